"""Reads the plainest of HTTP requests without aiohttp's machinery: most requests of OTLP senders are of this kind.

A plain request is a POST of HTTP/1.1 with Content-Length whose head comes at once, and whose body of moderate size
follows soon; the next one comes when it has been answered. Of such a request aiohttp's task, streams and response cost
more than all that is done with a small one. Heads are parsed by aiohttp's parser, and remembered: a sender's heads
differ in the length alone. What is not plain goes to aiohttp as it came, and so does all that follows by that
connection; who answers is the same for both.
"""

from __future__ import annotations

import asyncio
import re
import time
import types
from collections.abc import Callable, Coroutine, Generator
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple

from aiohttp import HttpVersion, HttpVersion11
from aiohttp.http import HttpProcessingError, HttpRequestParser

from sampler_proxy.receive.http_answers import Answer
from sampler_proxy.receive.http_bodies import Content

if TYPE_CHECKING:
    from multidict import CIMultiDictProxy

MAX_HEAD_BYTES, MAX_BODY_BYTES = 4096, 256 * 1024
"""The largest plain request. What gathers of it here counts as received, like all else."""

SOON_S = 0.1
"""How long a body may take behind its head; what is not whole by then is aiohttp's, which knows more of slow bodies."""

MAX_KNOWN = 256
"""Heads that are remembered."""

_NOBODY: Any = None
_BEGINNING = b"POST "
_LENGTH = re.compile(rb"\r\ncontent-length: ?([0-9]{1,9})\r\n", re.IGNORECASE)
_END = b"\r\n\r\n"


class Head(NamedTuple):
    """Holds what a head says, but for its length."""

    raw_path: str
    path: str
    headers: CIMultiDictProxy[str]


class PlainRequest:
    """A request that is here, in the shape of aiohttp's BaseRequest, and its own content."""

    __slots__ = ("_body_at", "_parts", "content_length", "headers", "path", "raw_path", "transport")
    method = "POST"
    version: HttpVersion = HttpVersion11

    def __init__(self, head: Head, parts: list[bytes], body_at: int, transport: asyncio.Transport) -> None:
        self.raw_path, self.path, self.headers = head
        self._parts = parts
        self._body_at = body_at
        self.content_length = sum(map(len, parts)) - body_at
        self.transport = transport

    @property
    def content(self) -> Content:
        return self

    def is_eof(self) -> bool:
        return True

    def exception(self) -> BaseException | None:
        return None

    def read_nowait(self) -> bytes:
        """Return the body, once."""
        parts, self._parts = self._parts, []
        parts[0] = parts[0][self._body_at :]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def readany(self) -> bytes:
        return b""


Respond = Callable[[PlainRequest], Coroutine[Any, Any, Answer]]
"""Answers a request, with all headers that are its own; `last` closes the connection."""


class Heads:
    """The heads that senders repeat, by their bytes without the length. Used on one thread."""

    def __init__(self) -> None:
        self._known: dict[bytes, Head | None] = {}

    def find(self, head: bytes, length: re.Match[bytes]) -> Head | None:
        """Return what a head says, None where it is not plain. `head` ends with the first CRLF of the empty line."""
        key = head[: length.start(1)] + head[length.end(1) :]
        try:
            return self._known[key]
        except KeyError:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            found = self._known[key] = _parsed(head[: length.start(1)] + b"0" + head[length.end(1) :])
            return found


def _parsed(head: bytes) -> Head | None:
    loop = asyncio.get_running_loop()
    parser = HttpRequestParser(_NOBODY, loop, 65536)  # with no body, nothing is asked of the protocol
    try:
        messages, upgraded, rest = parser.feed_data(head + b"\r\n")
    except HttpProcessingError:
        return None
    if len(messages) != 1 or upgraded or rest:
        return None
    message = messages[0][0]
    if message.version != HttpVersion11 or message.should_close or message.chunked or "Expect" in message.headers:
        return None
    if message.method != "POST" or not message.path.startswith("/"):
        return None
    return Head(message.path, message.url.path, message.headers)


class PlainReader:
    """Reads the plain requests of one connection, until something else comes: then `give_up` is called with all that
    has come and was not answered, and nothing more may be fed."""

    def __init__(
        self,
        heads: Heads,
        respond: Respond,
        transport: asyncio.Transport,
        give_up: Callable[[bytes], None],
    ) -> None:
        self._heads = heads
        self._respond = respond
        self._transport = transport
        self._give_up = give_up
        self._loop = asyncio.get_running_loop()
        self._parts: list[bytes] = []  # of a request that is not whole
        self._missing = 0  # bytes of its body
        self._body_at = 0  # in the parts
        self._head: Head | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._answering: asyncio.Task[None] | None = None
        self._behind: list[bytes] = []  # what has come meanwhile

    def feed(self, data: bytes) -> None:
        """Take what has come, and answer the request if it is whole."""
        if self._answering is not None:
            self._behind.append(data)
            self._transport.pause_reading()
            return
        if self._parts:
            self._parts.append(data)
            self._missing -= len(data)
        elif self._begins(data):
            self._parts.append(data)
        else:
            self._give_up(data)
            return
        if self._missing > 0:
            if self._timer is None:
                self._timer = self._loop.call_later(SOON_S, self._too_slow)
        elif self._missing < 0 or self._transport.get_write_buffer_size():
            self._give_up(b"".join(self._all()))  # more than one request, or answers that nobody reads
        else:
            self._answer()

    def close(self) -> None:
        """Forget what has come: the connection has gone."""
        self._all()
        self._behind.clear()

    def _begins(self, data: bytes) -> bool:
        """Read the beginning of a request; return whether it may be a plain one."""
        end = data.find(_END, 0, MAX_HEAD_BYTES)
        if end < 0 or not data.startswith(_BEGINNING):
            return False
        length = _LENGTH.search(data, 0, end + 2)
        if length is None or int(length[1]) > MAX_BODY_BYTES:
            return False
        self._head = self._heads.find(data[: end + 2], length)
        self._body_at = end + 4
        self._missing = int(length[1]) + self._body_at - len(data)
        return self._head is not None

    def _all(self) -> list[bytes]:
        parts, self._parts = self._parts, []
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return parts

    def _too_slow(self) -> None:
        self._give_up(b"".join(self._all()))

    def _answer(self) -> None:
        """Answer the request at once, if that needs no waiting; else in a task."""
        assert self._head is not None
        answering = self._respond(PlainRequest(self._head, self._all(), self._body_at, self._transport))
        try:
            awaited = answering.send(None)
        except StopIteration as done:
            self._write(done.value)
        else:
            self._answering = self._loop.create_task(self._finish(answering, awaited))

    async def _finish(self, answering: Coroutine[Any, Any, Answer], awaited: Any) -> None:
        answer = await _resumed(answering, awaited)
        self._answering = None
        self._write(answer)
        if self._behind and not self._transport.is_closing():
            behind, self._behind = b"".join(self._behind), []
            self._transport.resume_reading()
            self._give_up(behind)

    def _write(self, answer: Answer) -> None:
        if not self._transport.is_closing():
            self._transport.write(written(answer))
            if answer.last:
                self._transport.close()


@types.coroutine
def _resumed(answering: Coroutine[Any, Any, Answer], awaited: Any) -> Generator[Any, Any, Answer]:
    """Go on with a coroutine that has begun, and waits for `awaited`."""
    try:
        while True:
            try:
                yield awaited
            except BaseException as error:
                awaited = answering.throw(error)
            else:
                awaited = answering.send(None)
    except StopIteration as done:
        answer: Answer = done.value
        return answer


_date: tuple[int, str] = (0, "")


def _now() -> str:
    """Return the time for an answer's head (RFC 9110, 5.6.7), made once a second."""
    global _date
    second = int(time.time())
    if second != _date[0]:
        _date = second, formatdate(second, usegmt=True)
    return _date[1]


def written(answer: Answer) -> bytes:
    """Return the bytes of an answer."""
    lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in answer.headers.items()]
    lines += [f"Content-Length: {len(answer.body)}", f"Date: {_now()}"]
    if answer.last:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + answer.body
