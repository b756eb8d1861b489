"""When a changed file is taken, what of it, and what is said about it; with real files and their events."""
# ruff: noqa: ASYNC110, ASYNC240

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog
import uvloop

from sampler_proxy.config.check import Loaded, check, load_config
from sampler_proxy.config.model import Config
from sampler_proxy.operate import reload
from sampler_proxy.operate.messages import MAX_LOGGED
from sampler_proxy.operate.reload import Reloader, changed_keys, links, version_of

Logs = list[dict[str, Any]]
Run = Callable[[Coroutine[Any, Any, None]], None]

A = "rules: [{name: a, keep: all}]\n"
B = "rules: [{name: b, match: '{ .x = 1 }', keep: 10%}, {name: rest, keep: none}]\n"
BAD = "rules:\n  - {name: a, match: '{ statu = error }', keep: all}\n  - {name: rest, keep: 2}\n"


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    runner: Run = request.param
    return runner


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload, "SETTLE_S", 0.01)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "etc" / "proxy.yaml"
    file.parent.mkdir()
    file.write_text(A)
    return file


@pytest.fixture
def logs() -> Any:
    with structlog.testing.capture_logs() as found:
        yield found


class Bench:
    """A reloader, what it has applied, and how often it was about to read the file."""

    def __init__(self, file: Path) -> None:
        self.applied: list[Loaded] = []
        self.changed: list[Collection[str]] = []
        self.loads = 0
        self.failure: Exception | None = None
        self.file = file
        self.reloader = Reloader(check(str(file), os.environ), self._load, self._apply, lambda: 1_700_000_000.25)

    def _load(self) -> Loaded:
        self.loads += 1
        return check(str(self.file), os.environ)

    def _apply(self, loaded: Loaded, changed: Collection[str]) -> None:
        if self.failure:
            raise self.failure
        self.applied.append(loaded)
        self.changed.append(changed)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(15):
            while not condition():
                await asyncio.sleep(0.005)

    async def ask(self) -> None:
        """And wait for what comes of it."""
        before = sum(self.reloader.reloads.values())
        self.reloader.ask()
        await self.until(lambda: sum(self.reloader.reloads.values()) > before)


@asynccontextmanager
async def running(file: Path, watching: bool = True) -> AsyncIterator[Bench]:
    """Without `watching`, only what is asked for happens."""
    bench = Bench(file)
    coroutine = bench.reloader.run() if watching else bench.reloader._loop()
    task = asyncio.create_task(coroutine)
    try:
        yield bench
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def names(bench: Bench) -> list[list[str]]:
    return [[rule.name for rule in loaded.config.rules] for loaded in bench.applied]


def events(logs: Logs, level: str) -> list[str]:
    return [line["event"] for line in logs if line["log_level"] == level]


async def changing(bench: Bench, change: Callable[[], object], condition: Callable[[], object]) -> None:
    change()
    await bench.until(condition)


def write(file: Path, text: str) -> Callable[[], object]:
    return partial(file.write_text, text)


def test_a_changed_file_is_applied(run: Run, file: Path, logs: Logs) -> None:
    async def main() -> None:
        async with running(file) as bench:
            before = bench.reloader.active
            await changing(bench, write(file, B), lambda: bench.reloader.reloads["applied"])
            assert names(bench) == [["b", "rest"]]
            assert bench.reloader.active.version == version_of(bench.applied[0].config.rules) != before.version
            assert bench.reloader.detail() == {}
            assert bench.reloader.active.describe() == {
                "version": bench.reloader.active.version,
                "loaded_at": "2023-11-14T22:13:20.250Z",
                "source": str(file),
                "rules": [
                    {"name": "b", "match": "{ .x = 1 }", "unless": None, "keep": "10%"},
                    {"name": "rest", "match": None, "unless": None, "keep": "none"},
                ],
            }

    run(main())
    assert events(logs, "error") == events(logs, "warning") == []


def replace_atomically(file: Path) -> Callable[[], object]:
    new = file.with_suffix(".new")
    new.write_text(B)
    return lambda: os.replace(new, file)


def remove_and_write(file: Path) -> Callable[[], object]:
    def change() -> None:
        file.unlink()
        file.write_text(B)

    return change


@pytest.mark.parametrize("how", [replace_atomically, remove_and_write])
def test_ways_to_save(file: Path, how: Callable[[Path], Callable[[], object]]) -> None:
    async def main() -> None:
        async with running(file) as bench:
            await changing(bench, how(file), lambda: bench.reloader.reloads["applied"])
            await changing(bench, write(file, A), lambda: bench.reloader.reloads["applied"] == 2)  # still watched
            assert names(bench) == [["b", "rest"], ["a"]]
            assert bench.reloader.reloads["failed"] == 0

    asyncio.run(main())


def config_map(volume: Path, number: int, text: str) -> None:
    """As kubelet does: a new folder, a link to it, moved over the old link; then the old folder goes."""
    folder = volume / f"..2026_{number}"
    folder.mkdir()
    (folder / "proxy.yaml").write_text(text)
    (volume / "..data_tmp").symlink_to(folder.name)
    os.replace(volume / "..data_tmp", volume / "..data")
    old = volume / f"..2026_{number - 1}"
    if old.exists():
        (old / "proxy.yaml").unlink()
        old.rmdir()


def test_a_config_map_is_followed_from_swap_to_swap(run: Run, tmp_path: Path) -> None:
    config_map(tmp_path, 1, A)
    file = tmp_path / "proxy.yaml"
    file.symlink_to("..data/proxy.yaml")

    async def main() -> None:
        async with running(file) as bench:
            for number, text in (2, B), (3, A), (4, B):
                swap = partial(config_map, tmp_path, number, text)
                await changing(bench, swap, lambda number=number: len(bench.applied) == number - 1)
            assert names(bench) == [["b", "rest"], ["a"], ["b", "rest"]]
            assert bench.reloader.reloads["failed"] == 0

    run(main())


def test_what_leads_to_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = tmp_path / "real" / "inner"
    real.mkdir(parents=True)
    (real / "f").touch()
    (tmp_path / "dir").symlink_to("real/../real")
    (tmp_path / "abs").symlink_to(tmp_path / "dir" / "inner" / "f")
    (tmp_path / "loop").symlink_to("loop")
    assert links(str(real / "f")) == {str(real / "f")}
    assert links(str(tmp_path / "abs")) == {str(tmp_path / "abs"), str(tmp_path / "dir"), str(real / "f")}
    assert links(str(tmp_path / "loop"))  # ends
    assert links(str(tmp_path / "none" / "f")) == {str(tmp_path / "none" / "f")}
    monkeypatch.chdir(tmp_path)
    assert links("real/./inner/../inner/f") == {str(real / "f")}


def test_a_folder_that_goes_and_comes_back(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload, "POLL_S", 0.05)

    async def main() -> None:
        async with running(file) as bench:
            elsewhere = file.parent.with_name("elsewhere")
            await changing(bench, lambda: file.parent.rename(elsewhere), lambda: bench.reloader.reloads["failed"])
            assert bench.reloader.faults == (f"{file}: cannot be read: No such file or directory",)
            (elsewhere / file.name).write_text(B)
            await changing(bench, lambda: elsewhere.rename(file.parent), lambda: bench.applied)
            await changing(bench, write(file, A), lambda: len(bench.applied) == 2)

    asyncio.run(main())


def test_a_bad_file_changes_nothing_and_is_said_with_positions(run: Run, file: Path, logs: Logs) -> None:
    async def main() -> None:
        async with running(file) as bench:
            active = bench.reloader.active
            await changing(bench, write(file, BAD), lambda: bench.reloader.reloads["failed"])
            assert bench.reloader.active is active
            assert bench.applied == []
            detail: Any = bench.reloader.detail()
            assert [fault.split(":")[1:3] for fault in detail["reload"]["failed"]] == [["2", "25"], ["3", "24"]]
            assert detail["reload"]["rules"] == active.version
            assert not any("\n" in fault for fault in detail["reload"]["failed"])
            faults = events(logs, "error")
            assert faults[0].startswith(f"{file}:2:25: unknown word statu")
            assert faults[1].startswith(f"{file}:3:24: ")
            assert len(faults) == 3

            await bench.ask()  # the same again
            assert bench.reloader.reloads == {"applied": 0, "unchanged": 0, "failed": 2}
            assert events(logs, "error") == faults * 2

            await changing(bench, write(file, A), lambda: bench.reloader.reloads["unchanged"])
            assert bench.reloader.detail() == {}
            assert bench.applied == []
            assert bench.reloader.active is active

    run(main())


def test_a_great_many_faults_are_not_all_logged(file: Path, logs: Logs) -> None:
    async def main() -> None:
        async with running(file, watching=False) as bench:
            file.write_text("rules:\n" + "  - {name: a, keep: 2}\n" * 500)
            await bench.ask()
            detail: Any = bench.reloader.detail()
            assert len(detail["reload"]["failed"]) == MAX_LOGGED
            assert len(events(logs, "error")) == MAX_LOGGED + 2
            assert events(logs, "error")[-2].startswith("and 949 more")

    asyncio.run(main())


def test_what_cannot_be_applied_leaves_the_rules_and_keeps_the_service(file: Path, logs: Logs) -> None:
    async def main() -> None:
        async with running(file, watching=False) as bench:
            active = bench.reloader.active
            bench.failure = LookupError("payload")
            file.write_text(B)
            await bench.ask()
            assert bench.reloader.reloads["failed"] == 1
            assert bench.reloader.active is active
            assert bench.reloader.faults == (f"{file}: LookupError",)
            bench.failure = None
            await bench.ask()
            assert names(bench) == [["b", "rest"]]
            assert bench.reloader.faults == ()

    asyncio.run(main())
    assert "payload" not in str(logs)


def test_equal_content_does_nothing_unless_asked(file: Path, logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload, "POLL_S", 0.05)

    async def main() -> None:
        async with running(file) as bench:
            file.write_text(A)
            os.utime(file)
            (file.parent / "other").write_text(B)
            await bench.until(lambda: len(events(logs, "debug")) > 3)
            assert bench.loads == 0
            assert events(logs, "info") == []
            await bench.ask()
            assert bench.loads == 0
            assert events(logs, "info") == ["nothing to reload: the configuration has not changed"]
            assert bench.reloader.reloads["unchanged"] == 1

    asyncio.run(main())


def test_a_changed_file_with_the_same_rules_keeps_them(file: Path, logs: Logs) -> None:
    async def main() -> None:
        async with running(file, watching=False) as bench:
            active = bench.reloader.active
            file.write_text("# a comment\n" + A)
            await bench.ask()
            assert bench.reloader.active is active
            assert bench.applied == []
            assert events(logs, "info") == ["configuration reloaded: the rules have not changed"]

    asyncio.run(main())


def test_what_has_changed_is_told(file: Path, logs: Logs) -> None:
    async def main() -> None:
        async with running(file, watching=False) as bench:
            for text in (
                A + "limit: {spans: 1/s}\nstamp: {decision: false}\n",
                B + "redact: {preset: common}\n",
                B + "redact: {preset: strict}\n",
            ):
                file.write_text(text)
                await bench.ask()
            assert [list(changed) for changed in bench.changed] == [["limit"], ["rules", "limit", "redact"], ["redact"]]
            for text in (
                A + "redact: {preset: strict}\n",
                B + "limit: {spans: 1/s}\n",
                B + "redact: {preset: common}\n",
                B,
            ):
                file.write_text(text)
                await bench.ask()
            assert events(logs, "info") == [
                "limit reloaded: the rules have not changed",
                "rules, limit and redact reloaded",
                "redact reloaded: the rules have not changed",
                "rules reloaded",
                "rules, limit and redact reloaded",
                "limit and redact reloaded: the rules have not changed",
                "redact reloaded: the rules have not changed",
            ]

    asyncio.run(main())


def test_a_file_is_not_read_while_it_is_being_written(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload, "SETTLE_S", 0.3)

    async def main() -> None:
        async with running(file, watching=False) as bench:
            file.write_text("")  # which alone would be a valid file, with the default rules
            bench.reloader.ask()
            await asyncio.sleep(0.1)
            file.write_text(B)
            await bench.until(lambda: bench.applied)
            assert names(bench) == [["b", "rest"]]

    asyncio.run(main())


def test_keys_that_want_a_restart_are_named_until_it_comes(file: Path, logs: Logs) -> None:
    async def main() -> None:
        async with running(file, watching=False) as bench:
            for text in (B, A):
                logs.clear()
                file.write_text(text + "buffer: {max_bytes: 2GiB}\nreceive: {grpc: {endpoint: '0.0.0.0:1'}}\n")
                await bench.ask()
                assert events(logs, "warning") == ["receive.grpc.endpoint, buffer.max_bytes: restart to apply"]
                assert bench.reloader.detail() == {"restart_to_apply": ("receive.grpc.endpoint", "buffer.max_bytes")}
            file.write_text(BAD)
            await bench.ask()
            assert set(bench.reloader.detail()) == {"reload", "restart_to_apply"}
            file.write_text(A)
            await bench.ask()
            assert bench.reloader.detail() == {}
            assert names(bench) == [["b", "rest"], ["a"]]

    asyncio.run(main())


def test_credentials_are_taken_over_where_there_are_some(file: Path, logs: Logs) -> None:
    """Neither the first nor the last of a port: the one would be believed to guard it, the other would open it."""

    def auth(token: str) -> str:
        return f"{A}receive: {{grpc: {{auth: {{bearer_tokens: [{{name: a, token: {token}}}]}}}}}}\n"

    async def main() -> None:
        file.write_text(auth("one"))
        async with running(file, watching=False) as bench:
            for text, changed, pending in (
                (auth("two"), ["auth"], ()),
                (A, None, ("receive.grpc.auth",)),
                (A + "limit: {spans: 5/s}\n", ["limit"], ("receive.grpc.auth",)),
                (auth("two"), ["limit"], ()),
                (auth("three"), ["auth"], ()),
                (auth("three") + "admin: {auth: {bearer_tokens: [{name: a, token: b}]}}\n", None, ("admin.auth",)),
            ):
                before = len(bench.changed)
                file.write_text(text)
                await bench.ask()
                assert [list(each) for each in bench.changed[before:]] == ([] if changed is None else [changed])
                assert bench.reloader.pending == pending
        assert "auth reloaded: the rules have not changed" in events(logs, "info")

    asyncio.run(main())


EXPORT = "export: [{name: t, endpoint: 'http://h:1', headers: {k: v}}, {name: f, protocol: file, path: x}]\n"


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", []),
        ("rules: [{name: z, keep: none}]", []),
        ("stamp: {decision: false}", ["stamp.decision"]),
        ("shutdown_timeout: 1s\nbuffer: {decision_wait: 1s, decision_memory: 1MiB}", None),
        (EXPORT.replace("v}", "secret}, timeout: 1s"), ["export.t.headers", "export.t.timeout"]),
        (EXPORT.replace("path: x", "path: y, batch: {max_wait: 1s}"), ["export.f.batch.max_wait", "export.f.path"]),
        (EXPORT.replace("name: f", "name: g"), ["export"]),
        ("export: [{name: t, endpoint: 'http://h:1'}]", ["export"]),
    ],
)
def test_changed_keys(tmp_path: Path, text: str, keys: list[str] | None) -> None:
    def config(text: str) -> Config:
        file = tmp_path / "c.yaml"
        file.write_text(text if "export" in text else text + "\n" + EXPORT)
        return check(str(file), {}).config

    found = list(changed_keys(config(""), config(text)))
    if keys is None:
        keys = ["buffer.decision_wait", "buffer.decision_memory", "shutdown_timeout"]
    assert found == keys


def test_warnings_are_logged_with_the_rules_that_they_are_about(file: Path, logs: Logs) -> None:
    async def main() -> None:
        async with running(file, watching=False) as bench:
            file.write_text("rules: [{name: a, match: '{ .a && .b || .c }', keep: all}, {name: rest, keep: 1%}]\n")
            await bench.ask()
            assert len(events(logs, "warning")) == 1
            assert events(logs, "warning")[0].startswith(f"{file}:1:38: warning: && and || have the same precedence")

    asyncio.run(main())


def test_without_a_file_there_is_nothing_to_reload(logs: Logs) -> None:
    async def main() -> None:
        loaded = load_config(Config())
        reloader = Reloader(loaded, lambda: loaded, lambda *_: None, lambda: 0.0)
        task = asyncio.create_task(reloader.run())
        reloader.ask()
        async with asyncio.timeout(5):
            while not logs:
                await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.wait([task])
        assert reloader.active.describe()["source"] is None

    asyncio.run(main())
    assert events(logs, "warning") == ["there is no configuration file to reload"]


def test_what_references_stand_for_is_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("rules: [{name: a, match: '{ .k = \"${env:KEY}\" }', keep: 1%}, {name: rest, keep: 1%}]\n")
    versions = set()
    for value in "s3cret", "other":
        loaded = check(str(file), {"KEY": value})
        assert loaded.config.rules[0].match == f'{{ .k = "{value}" }}'
        active = Reloader(loaded, lambda loaded=loaded: loaded, lambda *_: None, lambda: 0.0).active
        assert active.rules[0].match == '{ .k = "${env:KEY}" }'
        versions.add(active.version)
    assert len(versions) == 2
