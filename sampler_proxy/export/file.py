"""Exports kept traces into a local file: OTLP JSON lines, one request a line, bounded in size and age.

The file and its one predecessor, `<path>.1`, together hold at most `max_bytes`: a file that would grow beyond half of
that becomes the predecessor. So does one that was begun half of `max_age` ago, and a predecessor is removed when
nothing was written to it for as long: no line stays longer than `max_age`. A file that is there already is appended to
(one larger than half, left by a larger limit, is removed at its turn). A disk that fails is tried again with backoff,
as a back end that is down would be: whatever the error, it is never the lines' fault, though shorter ones may still
fit. Nothing is synced: a crash of the machine may cost the tail.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import stat
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from google.protobuf.message import DecodeError

from sampler_proxy.config.model import FileExport
from sampler_proxy.errors import StartError
from sampler_proxy.export.exporter import Dependencies, Exporter, Persistence
from sampler_proxy.export.reasons import why_unwritable
from sampler_proxy.export.retry import Accepted, Failed, Fault
from sampler_proxy.otlp.json import json_line

LOOK_S = 60.0
"""How often it is looked for lines that are too old, at the longest."""

_START = re.compile(rb'"startTimeUnixNano":"([0-9]{1,20})"')

PERSISTENCE = Persistence(initial_ns=10**9, max_ns=30 * 10**9, give_up_ns=300 * 10**9)


class FileExporter(Exporter):
    """One file and its predecessor as a destination."""

    def __init__(self, config: FileExport, dependencies: Dependencies) -> None:
        # Requests have no limit; lines have one, and are a few times as long.
        super().__init__(config, dependencies, PERSISTENCE, concurrency=1, limit_bytes=sys.maxsize)
        self._path = config.path
        max_age_s = None if config.max_age_ns is None else config.max_age_ns / 1e9
        self._look_s = LOOK_S if max_age_s is None else min(LOOK_S, max_age_s / 20)
        self._lines = LineFile(config.path, config.max_bytes, max_age_s)

    def start(self) -> None:
        try:
            self._lines.check()
        except OSError as error:
            raise StartError(f"export {self.name}: cannot write {self._path}: {error.strerror}") from error
        super().start()
        if self._lines.max_age_s is not None:
            self._lasting.begin(self._remove_old_lines)

    async def _remove_old_lines(self) -> None:
        """Remove what is too old, though nothing is written. A disk that fails is met by the next line, too."""
        while True:
            with suppress(OSError):
                await asyncio.to_thread(self._lines.remove_old)
            await asyncio.sleep(self._look_s)

    async def _send(self, request: bytes, _metadata: bytes) -> Accepted | Failed:
        try:
            line = await asyncio.to_thread(json_line, request)
        except DecodeError:  # our scan is more patient than the official parser, in how deep values may nest for one
            return Failed(Fault.BYTES, "", "not to be written as JSON")
        if len(line) > self._lines.max_line_bytes:
            return Failed(Fault.SIZE, "", "larger than half of the file's limit")
        try:
            await asyncio.to_thread(self._lines.append, line)
        except OSError as error:
            code = errno.errorcode.get(error.errno or 0, "unknown error")
            return Failed(Fault.UNREACHABLE, code, why_unwritable(error))
        return Accepted()


class LineFile:
    """Appends whole lines to a file, and starts a new one when it is full. Blocking.

    The file is opened for each append, a few times a second: so it may be moved or removed at any time, and nothing is
    held in between. Every method may raise OSError; then nothing of the line is left in the file, or, where the disk
    does not allow that either, it is removed before the next one is written.
    """

    def __init__(
        self, path: str, max_bytes: int, max_age_s: float | None = None, now_s: Callable[[], float] = time.time
    ) -> None:
        """Take the bounds of the file and its predecessor together; `max_age_s` None: of no age."""
        self.max_line_bytes = max_bytes // 2
        self.max_age_s = max_age_s
        self._now_s = now_s
        self._begun: tuple[int, int, float] | None = None  # the file, and when its first line was written
        self._path = path
        self._predecessor = f"{path}.1"
        self._torn: tuple[int, int, int] | None = None  # the file, and its size without what has to be removed
        self._lock = threading.Lock()

    def check(self) -> None:
        """Make sure that the file can be written: it exists afterwards. Removes a predecessor that is too large."""
        os.close(self._open())
        with suppress(FileNotFoundError):
            if os.stat(self._predecessor).st_size > self.max_line_bytes:
                os.unlink(self._predecessor)

    def append(self, line: bytes) -> None:
        """Append `line`, which ends with a line break and is no longer than `max_line_bytes`."""
        with self._lock:
            self._append(line)

    def remove_old(self) -> None:
        """Remove lines that are too old, as far as nothing younger stands behind them."""
        with self._lock:
            try:
                fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            except FileNotFoundError:
                pass
            else:
                try:
                    self._retire(fd)
                finally:
                    os.close(fd)
            self._remove_old_predecessor()

    def _retire(self, fd: int) -> bool:
        """Make a file the predecessor if it was begun too long ago; return whether it was."""
        if self.max_age_s is None or self._now_s() - self._begun_s(fd) <= self.max_age_s / 2:
            return False
        os.replace(self._path, self._predecessor)
        return True

    def _remove_old_predecessor(self) -> None:
        """Remove the predecessor if its first line may be too old: it took lines for half of the age at most."""
        with suppress(FileNotFoundError):
            if self.max_age_s is not None and self._now_s() - os.stat(self._predecessor).st_mtime > self.max_age_s / 2:
                os.unlink(self._predecessor)

    def _begun_s(self, fd: int) -> float:
        """Return when the first line of a file was written, or somewhat before: as long ago as its first span began, or
        else the predecessor was last written to. Now, for an empty one."""
        status = os.fstat(fd)
        if not status.st_size:
            return self._now_s()
        if self._begun is None or self._begun[:2] != (status.st_dev, status.st_ino):
            found = _START.search(os.pread(fd, 1 << 16, 0))
            begun_s = int(found[1]) / 1e9 if found else status.st_mtime
            with suppress(FileNotFoundError):
                begun_s = max(begun_s, os.stat(self._predecessor).st_mtime)
            self._begun = status.st_dev, status.st_ino, min(begun_s, status.st_mtime)
        return self._begun[2]

    def _append(self, line: bytes) -> None:
        fd = self._open()
        try:
            if self._retire(fd):
                os.close(fd)
                fd = -1
                fd = self._open()
            size = self._mended(fd)
            if size and os.pread(fd, 1, size - 1) != b"\n":
                line = b"\n" + line  # a crash has torn the last line; it must not take this one with it
            if size + len(line) > self.max_line_bytes:
                line = line.removeprefix(b"\n")
                if 0 < size <= self.max_line_bytes:
                    os.replace(self._path, self._predecessor)
                elif size:
                    os.unlink(self._path)
                os.close(fd)
                fd = -1
                fd = self._open()
                size = 0
            if not size:
                status = os.fstat(fd)
                self._begun = status.st_dev, status.st_ino, self._now_s()
            try:
                rest = memoryview(line)
                while rest:
                    rest = rest[os.write(fd, rest) :]
            except OSError:
                status = os.fstat(fd)
                self._torn = status.st_dev, status.st_ino, size
                with suppress(OSError):
                    self._mended(fd)
                raise
        finally:
            if fd >= 0:
                os.close(fd)

    def _mended(self, fd: int) -> int:
        """Remove what is left of a line that could not be written whole; returns the size of the file."""
        status = os.fstat(fd)
        size = status.st_size
        if self._torn is not None:
            device, inode, whole = self._torn
            if (device, inode) == (status.st_dev, status.st_ino) and size > whole:
                os.ftruncate(fd, whole)
                size = whole
            self._torn = None
        return size

    def _open(self) -> int:
        fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o640)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "not a regular file")
        return fd
