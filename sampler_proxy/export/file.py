"""Exports kept traces into a local file: OTLP JSON lines, one `ExportTraceServiceRequest` a line, bounded in size.

The file and its one predecessor, `<path>.1`, together hold at most `max_bytes`: a file that would grow beyond half of
that becomes the predecessor. A file that is there already is appended to (one larger than half, left by a larger
limit, is removed at its turn). A disk that fails is tried again with backoff, as a back end that is down would be:
whatever the error, it is never the lines' fault, though shorter ones may still fit. Nothing is synced: a crash of the
machine may cost the tail.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import sys
import threading
from contextlib import suppress

from google.protobuf.message import DecodeError

from sampler_proxy.config.model import FileExport
from sampler_proxy.errors import StartError
from sampler_proxy.export.exporter import Dependencies, Exporter, Persistence
from sampler_proxy.export.reasons import why_unwritable
from sampler_proxy.export.retry import Accepted, Failed, Fault
from sampler_proxy.otlp.json import json_line

PERSISTENCE = Persistence(initial_ns=10**9, max_ns=30 * 10**9, give_up_ns=300 * 10**9)


class FileExporter(Exporter):
    """One file and its predecessor as a destination."""

    def __init__(self, config: FileExport, dependencies: Dependencies) -> None:
        # Requests have no limit; lines have one, and are a few times as long.
        super().__init__(config, dependencies, PERSISTENCE, concurrency=1, limit_bytes=sys.maxsize)
        self._path = config.path
        self._lines = LineFile(config.path, config.max_bytes)

    def start(self) -> None:
        try:
            self._lines.check()
        except OSError as error:
            raise StartError(f"export {self.name}: cannot write {self._path}: {error.strerror}") from error
        super().start()

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

    def __init__(self, path: str, max_bytes: int) -> None:
        self.max_line_bytes = max_bytes // 2
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

    def _append(self, line: bytes) -> None:
        fd = self._open()
        try:
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
