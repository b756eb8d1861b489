"""Processes as a measurement needs them: started on a core, watched through /proc (Linux only), stopped."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_STOP_S = 20.0
REPOSITORY = Path(__file__).resolve().parent.parent


class BenchmarkError(Exception):
    """What was to be measured did not behave as it must for a measurement to mean something."""


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on (state, parent, ...): the second may hold spaces."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def family(pid: int) -> list[int]:
    """The process and all its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):  # it may end while we look
                children.setdefault(int(_stat(int(entry))[1]), []).append(int(entry))
    found = [pid]
    for parent in found:
        found += children.get(parent, [])
    return found


def cpu_s(pid: int) -> float:
    """User and system time of a process so far, with its living descendants and its children that have ended."""
    ticks = 0
    for member in family(pid):
        with contextlib.suppress(OSError):
            ticks += sum(map(int, _stat(member)[11:15]))  # utime stime cutime cstime
    return ticks / _TICKS_PER_S


def rss_bytes(pid: int) -> int:
    """Resident memory of a process and its living descendants."""
    total = 0
    for member in family(pid):
        with contextlib.suppress(OSError):
            total += int(Path(f"/proc/{member}/statm").read_text().split()[1]) * _PAGE
    return total


def pin(pid: int, core: int) -> None:
    """Bind all threads of a process and its descendants to one core."""
    for member in family(pid):
        for task in os.listdir(f"/proc/{member}/task"):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(task), {core})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise BenchmarkError(f"{what} after {timeout_s:.0f} s")
        time.sleep(0.1)


def accepts(endpoint: str) -> bool:
    """Does somebody listen there?"""
    host, _, port = endpoint.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), 1).close()
    except OSError:
        return False
    return True


class Process:
    """A child process on one core. Its errors, and its output unless it is asked for, go to a log file."""

    def __init__(
        self, command: Sequence[str], core: int, log: Path, directory: Path, *, dialogue: bool = False
    ) -> None:
        self._log = log
        pipe = subprocess.PIPE if dialogue else None
        with log.open("ab") as errors:
            self._popen = subprocess.Popen(
                command,
                stdin=pipe or subprocess.DEVNULL,
                stdout=pipe or errors,
                stderr=errors,
                cwd=directory,
                preexec_fn=lambda: os.sched_setaffinity(0, {core}),
            )
        self.pid = self._popen.pid

    def check(self) -> None:
        """Raise if it has ended."""
        if self._popen.poll() is not None:
            tail = self._log.read_text(errors="replace")[-2000:]
            raise BenchmarkError(f"a process ended with {self._popen.returncode}; its log ends with:\n{tail}")

    def read(self) -> dict[str, Any]:
        """The next line it says; waits for it."""
        assert self._popen.stdout
        line = self._popen.stdout.readline()
        if not line:
            self._popen.wait(_STOP_S)
            self.check()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, line: str) -> dict[str, Any]:
        assert self._popen.stdin
        self._popen.stdin.write(line.encode() + b"\n")
        self._popen.stdin.flush()
        return self.read()

    def stop(self) -> None:
        """Ask it to end (by the end of its input if it has one, else SIGTERM); after a while make it."""
        if self._popen.stdin:
            with contextlib.suppress(OSError):
                self._popen.stdin.close()
        else:
            self._popen.terminate()
        try:
            self._popen.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        if self._popen.stdout:
            self._popen.stdout.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def module(name: str, *arguments: str) -> list[str]:
    """The command of a module of this folder; to be run in the repository."""
    return [sys.executable, "-m", f"benchmarks.{name}", *arguments]
