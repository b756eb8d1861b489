"""The folder of what has been learned: written whole, read back, refused where it is damaged, old or in use."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sampler_proxy.errors import StartError
from sampler_proxy.storage.learned import MAX_AGE_S, Learned, Storage, UnusableError

NOW_S = 1_800_000_000.0
LEARNED = {"rule": Learned(2.5, {bytes(range(16)): 7.0, bytes(16): 0.25}), "other": Learned(0.0, {})}


def saved(path: Path) -> Path:
    storage = Storage(str(path))
    storage.save(LEARNED, NOW_S)
    storage.close()
    return path / "rates.json"


def load(path: Path, now_s: float = NOW_S) -> dict[str, Learned]:
    storage = Storage(str(path))
    try:
        return storage.load(now_s)
    finally:
        storage.close()


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "state"
    assert load(path) == {}
    saved(path)
    assert load(path) == LEARNED
    assert load(path, NOW_S + MAX_AGE_S) == LEARNED
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for name in "rates.json", "rates.key":
        assert stat.S_IMODE((path / name).stat().st_mode) == 0o600
    assert sorted(os.listdir(path)) == ["lock", "rates.json", "rates.key"]


def test_fingerprints_are_the_folders_own(tmp_path: Path) -> None:
    prints = []
    for name in "a", "b", "a":
        storage = Storage(str(tmp_path / name))
        prints.append(storage.fingerprint(b"card 4111"))
        storage.close()
    assert prints[0] == prints[2] != prints[1]
    assert len(prints[0]) == 16
    # A damaged secret is replaced.
    (tmp_path / "a" / "rates.key").write_bytes(b"short")
    storage = Storage(str(tmp_path / "a"))
    assert storage.fingerprint(b"card 4111") != prints[0]
    assert (tmp_path / "a" / "rates.key").stat().st_size == 32
    storage.close()


@pytest.mark.parametrize("at", range(0, 200, 7))
def test_a_file_that_ends_early_is_damaged(tmp_path: Path, at: int) -> None:
    file = saved(tmp_path)
    file.write_bytes(file.read_bytes()[:at])
    with pytest.raises(UnusableError, match="damaged"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"format": 2}, "another version"),
        ({"saved_at": NOW_S - MAX_AGE_S - 1}, "too old"),
        ({"saved_at": NOW_S + MAX_AGE_S + 1}, "too old"),
        ({"saved_at": "x"}, "damaged"),
        ({"saved_at": 10**400}, "damaged"),
        ({"rules": {"r": {"level": 10**400, "demands": {}}}}, "damaged"),
        ({"rules": []}, "damaged"),
        ({"rules": {"r": 1}}, "damaged"),
        ({"rules": {"r": {"level": 1}}}, "damaged"),
        ({"rules": {"r": {"level": 1, "demands": []}}}, "damaged"),
        ({"rules": {"r": {"level": -1, "demands": {}}}}, "damaged"),
        ({"rules": {"r": {"level": True, "demands": {}}}}, "damaged"),
        ({"rules": {"r": {"level": float("nan"), "demands": {}}}}, "damaged"),
        ({"rules": {"r": {"level": 1, "demands": {"zz": 1}}}}, "damaged"),
        ({"rules": {"r": {"level": 1, "demands": {"00": 1}}}}, "damaged"),
        ({"rules": {"r": {"level": 1, "demands": {"00" * 16: "1"}}}}, "damaged"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, change: dict[str, object], why: str) -> None:
    file = saved(tmp_path)
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(UnusableError, match=why):
        load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[" * 100_000, b"null", b"[]", b"1" * 5000])
def test_what_is_no_such_file_is_damaged(tmp_path: Path, content: bytes) -> None:
    saved(tmp_path).write_bytes(content)
    with pytest.raises(UnusableError, match="damaged"):
        load(tmp_path)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "rates.json").mkdir()
    with pytest.raises(UnusableError, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_a_save_that_fails_leaves_the_former_file(tmp_path: Path) -> None:
    file = saved(tmp_path)
    before = file.read_bytes()
    (tmp_path / "rates.json.new").mkdir()
    storage = Storage(str(tmp_path))
    with pytest.raises(OSError, match="directory"):
        storage.save({}, NOW_S)
    storage.close()
    assert file.read_bytes() == before


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match=r"storage: .*file cannot be used: File exists"):
        Storage(str(tmp_path / "file"))
    (tmp_path / "a" / "rates.key").mkdir(parents=True)
    with pytest.raises(StartError, match="cannot be used: Is a directory"):
        Storage(str(tmp_path / "a"))


def test_a_folder_is_used_by_one_process(tmp_path: Path) -> None:
    script = (
        "import sys; from sampler_proxy.storage.learned import Storage\n"
        "s = Storage(sys.argv[1]); print(1, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"1\n"
        with pytest.raises(StartError, match="used by another process"):
            Storage(str(tmp_path))
        other.kill()  # nothing is left behind that would keep the next one out
        other.wait()
    Storage(str(tmp_path)).close()
