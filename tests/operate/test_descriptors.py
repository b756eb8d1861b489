"""File descriptors: the limit is raised, and running out of them is said once."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from typing import Any

import pytest
import structlog

from sampler_proxy.operate.descriptors import DescriptorWatch


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (40, 99));"
        "from sampler_proxy.operate.descriptors import raise_file_limit; raise_file_limit(); raise_file_limit();"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "(99, 99)\n"


@pytest.mark.parametrize(("number", "who"), [(errno.EMFILE, "this process"), (errno.ENFILE, "the machine")])
def test_a_lack_of_descriptors_is_said_once_a_minute_and_so_is_its_end(
    monkeypatch: pytest.MonkeyPatch, number: int, who: str
) -> None:
    now = 0.0
    watch = DescriptorWatch(lambda: now)
    open_file = os.open
    lacking = True

    def opened(*arguments: Any) -> int:
        if lacking:
            raise OSError(number, os.strerror(number))
        return open_file(*arguments)

    monkeypatch.setattr(os, "open", opened)
    with structlog.testing.capture_logs() as logs:
        for now in (0.0, 1.0, 59.0, 60.0, 61.0):  # noqa: B007
            watch.check()
        lacking = False
        for now in (62.0, 63.0, 66.9, 67.0, 68.0, 69.0):  # noqa: B007
            watch.check()
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    line = f"{who} is out of file descriptors (limit of this process: {soft})"
    assert [entry["event"].partition(": new")[0] for entry in logs] == [line, line, "there are file descriptors again"]


def test_descriptors_that_come_and_go_near_the_limit_are_one_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    now, free, held = 0.0, 0, 0
    watch = DescriptorWatch(lambda: now)

    def opened(*_: Any) -> int:
        nonlocal held
        if held == free:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        held += 1
        return held

    def closed(_: int) -> None:
        nonlocal held
        held -= 1

    with monkeypatch.context() as patched, structlog.testing.capture_logs() as logs:
        patched.setattr(os, "open", opened)
        patched.setattr(os, "close", closed)
        for free in (0, 1, 0, 7, 1, 0, 7, 7, 7, 7, 7, 7, 7, 9, 0, 9, 9, 9, 9, 9):  # noqa: B007 (each second)
            watch.check()
            assert held == 0
            now += 1
        assert [entry["event"].partition(" (")[0] for entry in logs] == ["this process is out of file descriptors"]
        watch.check()
        assert logs[-1]["event"].startswith("there are file descriptors again")
