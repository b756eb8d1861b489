"""Serves the streaming methods of a port on the completion queue: each message is answered by one, until the client has
sent all; or one message is answered again whenever its answer changes (Health/Watch).

A call waits for a place for each message that is read, as unary calls do (places.py), so that the bounds are theirs;
while a watched one waits for a change, it has none. How many there are is bounded here, in all and for a connection.

Nothing keeps a call but the tags of its batches and its place: when a call has ended, it is gone.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from grpc._cython import cygrpc

from sampler_proxy.receive import grpc_status
from sampler_proxy.receive.grpc_call import Call
from sampler_proxy.receive.grpc_server import Method, Streaming
from sampler_proxy.receive.grpc_status import Refusal

MAX_OPEN, MAX_OPEN_EACH = 1024, 32
"""Streaming calls that may be open at once: in all, and by one connection."""

_NO_INITIAL_METADATA = cygrpc.SendInitialMetadataOperation(None, 0)
_OK = cygrpc.SendStatusFromServerOperation((), 0, b"", 0)
_CLOSE = cygrpc.ReceiveCloseOnServerOperation(0)


class Stream(Call):
    """A call of a streaming method: the tag of its reads."""

    request = last = b""
    """Of a call that is watched: its message, and what it was answered last."""
    writing = False
    talking = False
    """Whether it neither waits for a message nor has ended."""

    def __init__(self, call: Any, peer: bytes, method: Streaming) -> None:
        super().__init__(call, peer, method.answer, None)
        self.watches, self.ask = method.watches, method.answer


class Step:
    """The tag of another batch of a streaming call."""

    __slots__ = ("done", "stream")

    def __init__(self, done: Callable[[Stream, bool], None], stream: Stream) -> None:
        self.done = done
        self.stream = stream


class Engine(Protocol):
    """Does what only an engine can do for its streams."""

    def enter(self, its: Call, now: float) -> None:
        """Read a message, with a place."""

    def leave(self, its: Call, event: Any) -> bytes | Refusal | None:
        """Return the message of a call, or with what it has to be refused; None where it has been answered already.
        The call has no place any more."""

    def answer(self, handler: Method, message: bytes) -> bytes | Refusal:
        """Have a message handled."""

    def close(self, its: Call, operations: tuple[Any, ...]) -> None:
        """End a call with a batch."""

    def ended(self) -> None:
        """Take note that a call has ended that was not ended by `close`."""


class Streams:
    """The streaming calls of one engine. Used by its thread, but for `tell`."""

    def __init__(self, methods: Mapping[str, Streaming], engine: Engine) -> None:
        self._methods = {name.encode(): method for name, method in methods.items()}
        self._engine = engine
        self._open: weakref.WeakSet[Stream] = weakref.WeakSet()
        self._changing = threading.Lock()  # of calls that are watched, and of `_open`
        self._ending = False

    def __len__(self) -> int:
        """Return how many are in nobody else's books."""
        return sum(stream.talking for stream in self._open)

    def knows(self, method: bytes) -> bool:
        """Tell whether a method is a streaming one."""
        return method in self._methods

    def begin(self, call: Any, method: bytes) -> Stream | None:
        """Take a call, to be read; None where there are too many."""
        stream = Stream(call, call.peer(), self._methods[method])
        with self._changing:
            its = sum(each.peer == stream.peer for each in self._open)
            if its >= MAX_OPEN_EACH or len(self._open) >= MAX_OPEN:
                return None
            self._open.add(stream)
        return stream

    def happened(self, tag: Stream | Step, event: Any) -> None:
        """Go on where a batch has ended. On an error the call is dropped: core cancels it as it is freed."""
        stream = tag if isinstance(tag, Stream) else tag.stream
        try:
            if isinstance(tag, Step):
                tag.done(stream, event.success)
            else:
                self._received(stream, event)
        except BaseException:
            stream.talking = False
            raise

    def tell(self) -> None:
        """Tell those who watch what has changed. From any thread."""
        with self._changing:
            for stream in list(self._open):
                self._update(stream)

    def end(self) -> None:
        """End all calls, since the server is shutting down; those that are being written to, behind that."""
        with self._changing:
            self._ending = True
            streams = list(self._open)
        for stream in streams:
            if stream.watches and stream.talking:
                self._end_watched(stream)
            elif not stream.talking and self._engine.leave(stream, None) is not None:
                self._refuse(stream, grpc_status.STOPPING)

    def _received(self, stream: Stream, event: Any) -> None:
        message = self._engine.leave(stream, event)
        if message is None:
            return
        if isinstance(message, Refusal):
            if message is grpc_status.NO_MESSAGE and stream.opened:  # the client has sent all
                self._engine.close(stream, (_OK, _CLOSE))
            else:
                self._refuse(stream, message)
            return
        answer = grpc_status.STOPPING if self._ending else self._engine.answer(stream.handler, message)
        if isinstance(answer, Refusal):
            self._refuse(stream, answer)
            return
        opening = () if stream.opened else (_NO_INITIAL_METADATA,)
        with self._changing:
            stream.opened = stream.writing = stream.talking = True
            stream.request, stream.last = message, answer
            stream.call.start_server_batch(
                (*opening, cygrpc.SendMessageOperation(answer, 0)), Step(self._written, stream)
            )
            if stream.watches:
                stream.call.start_server_batch((_CLOSE,), Step(self._closed, stream))

    def _written(self, stream: Stream, success: bool) -> None:
        if stream.watches:
            with self._changing:
                stream.writing = False
                self._update(stream)
            if self._ending:
                self._end_watched(stream)
            return
        stream.writing = stream.talking = False
        if not success or self._ending:
            self._refuse(stream, grpc_status.STOPPING)  # which a client that has gone does not hear
        else:
            self._engine.enter(stream, time.monotonic())

    def _update(self, stream: Stream) -> None:
        """Write to a call that is watched what has changed. The lock is held."""
        if not stream.watches or not stream.talking or stream.writing or self._ending:
            return
        answer = stream.ask(stream.request)
        if answer != stream.last:
            stream.call.start_server_batch((cygrpc.SendMessageOperation(answer, 0),), Step(self._written, stream))
            stream.last, stream.writing = answer, True

    def _end_watched(self, stream: Stream) -> None:
        with self._changing:
            if stream.talking and not stream.writing:
                stream.writing = True  # nothing may be written behind it
                stream.call.start_server_batch((_status(grpc_status.STOPPING),), Step(_nothing, stream))

    def _closed(self, stream: Stream, _: bool) -> None:
        """Take note that a call that was watched has ended, whoever has ended it."""
        with self._changing:
            stream.talking = False
        self._engine.ended()

    def _refuse(self, stream: Stream, refusal: Refusal) -> None:
        opening = () if stream.opened else (_NO_INITIAL_METADATA,)
        self._engine.close(stream, (*opening, _status(refusal), _CLOSE))


def _status(refusal: Refusal) -> Any:
    return cygrpc.SendStatusFromServerOperation(refusal.trailers, refusal.code, refusal.message.encode(), 0)


def _nothing(_: Stream, __: bool) -> None:
    """Do nothing."""
