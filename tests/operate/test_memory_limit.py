"""Where the system lets this process have less memory than its bounds add up to, one line at start says so."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import structlog

from sampler_proxy.config.model import Config, GrpcExport
from sampler_proxy.operate import memory_limit
from sampler_proxy.operate.memory_limit import BoundWatch, limits, warn

MIB = 1 << 20
OF_GROUP = "the limit of its control group"
NEED = 1024 + 64 + 64 + 128  # the defaults of buffer, decision memory and one queue, and the process


def test_the_default_bounds_are_what_this_test_thinks() -> None:
    config = Config()
    assert config.buffer.max_bytes == 1024 * MIB
    others = config.buffer.decision_memory_bytes + sum(export.queue.max_bytes for export in config.export)
    assert others + memory_limit.PROCESS_BYTES == (NEED - 1024) * MIB


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([], None),
        ([(OF_GROUP, NEED * MIB)], None),
        ([(OF_GROUP, NEED * MIB - 1)], "leaves room for 1279MiB, and buffer, decision memory, queues and the process"),
        ([(OF_GROUP, NEED * MIB - 1)], "may take 1280MiB: set buffer.max_bytes to 1023MiB or less, or allow"),
        ([("ulimit -v", 300 * MIB), (OF_GROUP, 400 * MIB)], "memory: ulimit -v leaves room for 300MiB"),
        ([("ulimit -v", 300 * MIB), (OF_GROUP, 400 * MIB)], "set buffer.max_bytes to 44MiB or less"),
        ([(OF_GROUP, 256 * MIB + 5)], "may take 1280MiB: lower the bounds, or allow this process more"),
    ],
)
def test_one_line_for_the_tightest_limit(found: list[tuple[str, int]], expected: str | None) -> None:
    with structlog.testing.capture_logs() as logs:
        warn(Config(), iter(found))
    assert len(logs) == (0 if expected is None else 1)
    if expected is not None:
        assert expected in logs[0]["event"]
        assert logs[0]["log_level"] == "warning"


@pytest.mark.parametrize(("passthrough", "share"), [("all", 64), ("off", 0), ("discard", 0)])
def test_what_is_passed_on_has_its_share(passthrough: str, share: int) -> None:
    """A sixteenth of the buffer, where a destination takes it."""
    config = Config(export=(GrpcExport(name="a", endpoint="http://somewhere"),), passthrough=passthrough)
    for room, logs_expected in ((NEED + share) * MIB, 0), ((NEED + share) * MIB - 1, 1):
        with structlog.testing.capture_logs() as logs:
            warn(config, iter([(OF_GROUP, room)]))
        assert len(logs) == logs_expected
    assert "set buffer.max_bytes to 1023MiB or less" in logs[0]["event"]


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {"memory.max": "1000\n"}, [1000]),
        ("0::/\n", {"memory.max": "max\n"}, []),
        ("0::/a/b\n", {"a/b/memory.max": "30", "a/memory.max": "20", "memory.max": "max"}, [30, 20]),
        ("0::/of/the/host\n", {"memory.max": "7"}, [7]),
        ("4:cpu,memory:/x\n0::/\n", {"memory/x/memory.limit_in_bytes": "5"}, [5]),
        ("3:cpu:/x\n", {"memory/x/memory.limit_in_bytes": "5"}, []),
        ("0::/\n", {}, []),
        (None, {}, []),
    ],
)
def test_limits_of_control_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: str | None, files: dict[str, str], expected: list[int]
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    if groups is not None:
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        file = tmp_path / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert list(limits(tmp_path)) == [(OF_GROUP, each) for each in expected]


def test_a_limit_of_the_address_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is mapped by now, libraries for the most part, is not what the bounds speak of."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/statm").write_text(f"{300 * MIB // resource.getpagesize()} 1 1 1 0 1 0\n")
    monkeypatch.setattr(resource, "getrlimit", lambda number: (500 * MIB if number == resource.RLIMIT_AS else -1, -1))
    assert list(limits(tmp_path)) == [("ulimit -v", 264 * MIB)]


class Bounded:
    configured_max_bytes = max_bytes = 1024 * MIB


def test_a_lowered_bound_is_said_once_a_minute() -> None:
    pipeline, now = Bounded(), 0.0
    watch = BoundWatch(pipeline, lambda: now)
    with structlog.testing.capture_logs() as logs:
        for now, bound in ((1.0, 300), (2.0, 300), (3.0, 200), (60.0, 100), (61.0, 100), (200.0, 100)):  # noqa: B007
            pipeline.max_bytes = bound * MIB + 5
            watch.look()
    told = [entry["event"].partition(" from now")[0] for entry in logs]
    assert told == [f"out of memory: the buffer is bounded by {bound}MiB" for bound in (300, 100)]
