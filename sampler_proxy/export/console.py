"""Prints kept traces for people, to standard output: see `trace_tree`.

Colours and the width are those of the terminal, if it is one. Whoever reads may stop to (a pager, a terminal that is
held): then traces wait as they do for a back end that is down, and a stop does not wait for the reader.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import sys
import time
from collections.abc import Mapping

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sampler_proxy.config.model import ConsoleExport
from sampler_proxy.export.exporter import Dependencies, Exporter
from sampler_proxy.export.file import PERSISTENCE
from sampler_proxy.export.reasons import UNREAD
from sampler_proxy.export.retry import Accepted, Failed, Fault
from sampler_proxy.export.trace_tree import draw

WIDTH = 200
"""Characters of a line, where there is no terminal to ask."""

PATIENCE_S = 2.0
"""How long the reader may take for the next PIECE."""

PIECE = select.PIPE_BUF
"""What a pipe that is ready takes without making us wait."""


class ConsoleExporter(Exporter):
    """Standard output as a destination."""

    def __init__(self, config: ConsoleExport, dependencies: Dependencies, fd: int | None = None) -> None:
        """Create a stopped exporter; `fd`: instead of standard output."""
        super().__init__(config, dependencies, PERSISTENCE, concurrency=1, limit_bytes=sys.maxsize)
        self._fd = sys.__stdout__.fileno() if fd is None and sys.__stdout__ is not None else fd
        self._environ = dependencies.environ

    async def _send(self, request: bytes, _metadata: bytes) -> Accepted | Failed:
        try:
            await asyncio.to_thread(self._print, request)
        except DecodeError:
            return Failed(Fault.BYTES, "", "not to be read by the official parser")
        except OSError as error:
            return Failed(Fault.UNREACHABLE, errno.errorcode.get(error.errno or 0, "unknown error"), UNREAD)
        return Accepted()

    def _print(self, request: bytes) -> None:
        """Draw and write a request. Blocking. Raises DecodeError and OSError; then a part of it may be written."""
        if self._fd is None:
            raise OSError(errno.EBADF, "there is no standard output")
        width, colour = _terminal(self._fd, self._environ)
        text = draw(ExportTraceServiceRequest.FromString(request), width, colour)
        _write(self._fd, memoryview(text.encode("utf-8", "replace")))


def _terminal(fd: int, environ: Mapping[str, str]) -> tuple[int, bool]:
    """Return the width to draw for, and whether colours may be used (`NO_COLOR` forbids them: no-color.org)."""
    try:
        columns = os.get_terminal_size(fd).columns
    except OSError:
        return WIDTH, False
    return columns or WIDTH, not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def _write(fd: int, data: memoryview) -> None:
    """Write all of it. Raises OSError, also where the reader takes nothing for PATIENCE_S."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    since = time.monotonic()
    while data:
        if poll.poll(PATIENCE_S * 1000):
            data = data[os.write(fd, data[:PIECE]) :]
            since = time.monotonic()
        elif time.monotonic() - since >= PATIENCE_S:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
