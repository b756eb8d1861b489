"""Serves gRPC by a plain loop over grpcio's completion queue, on a thread of its own.

No task, no future, no wake-up between threads per call.

This is the hot path of the proxy. The loop stands on grpcio's internal module `cygrpc`, whose `request_call`,
`start_server_batch` and `poll` have kept their shape for years though nobody promises it: `grpc.self_check` guards
against the day they change, and pyproject.toml pins grpcio to the range that CI tests.

A call is two batches and three events, told apart by their tags:

    _begun           a call has begun: ask for the next one, and for this one's message (or let it wait for its turn)
    (call, handler)  its message is there: handle it, answer
    _answered        the answer has left, or never will (cancelled, deadline passed, connection lost)

The operation that waits for a call's end (`ReceiveCloseOnServerOperation`) rides in the answer's batch; gRPC's own
servers spend a third batch and a fourth event on it. Core cancels a call that is freed without it.

A call lives, and the server cannot shut down, while an event, a tag or a variable of ours refers to it. So nothing
keeps calls but the tags of pending batches, `_receiving` and `_waiting`, and the loop lets go of its event before it
waits again.

Where there is no memory for an event, `poll` raises and the event is gone. Which one it was shows in the reference
counts: core's side holds a reference to the tag of everything that is still to come.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any

import structlog
from grpc._cython import cygrpc

from sampler_proxy.receive import grpc_server, grpc_status
from sampler_proxy.receive.accepting import Acceptor
from sampler_proxy.receive.core_acceptor import CoreAcceptor
from sampler_proxy.receive.grpc_server import GrpcEngine, Handler
from sampler_proxy.receive.grpc_status import Refusal

_DOWN = "down"

_REQUESTED_CALLS = 64
"""Calls asked for in advance. More than these between two polls wait in core's queue, which costs core a lock."""

_MAX_FAILURES = 1000
"""Polls that fail one after the other before the loop gives up: ten seconds, in which memory may come back."""

_FAILURE_PAUSE_S = 0.01

_HELD_HERE = 3
"""References to a tag whose event is lost: from `_receiving`, from a variable, and from the argument of getrefcount."""

# Operations without state of their own may take part in many batches at once: these have no metadata, no details that
# would have to be freed, and a flag that nobody reads.
_NO_INITIAL_METADATA = cygrpc.SendInitialMetadataOperation(None, 0)
_OK = cygrpc.SendStatusFromServerOperation((), 0, b"", 0)
_CLOSE = cygrpc.ReceiveCloseOnServerOperation(0)

log = structlog.get_logger()

_Message = cygrpc.ReceiveMessageOperation
_Response = cygrpc.SendMessageOperation
_Status = cygrpc.SendStatusFromServerOperation


class CompletionQueueEngine(GrpcEngine):
    """The engine over the completion queue; its contract is GrpcEngine's."""

    name = "completion queue"
    _draining = False

    def start(self) -> int:
        self._handlers: dict[bytes, Handler] = {method.encode(): handler for method, handler in self._methods.items()}
        self._receiving: dict[Any, tuple[float, object]] = {}  # call -> since when, and its tag; oldest first
        self._waiting: deque[tuple[Any, Handler]] = deque()
        listeners = grpc_server.open_listeners(self.address)
        try:
            core = self._start_server()
        except BaseException:
            for listener in listeners:
                listener.close()
            raise
        self._acceptor = Acceptor(listeners, core.hand_over, self._on_refused, self._on_connection_refused)
        self._begun, self._answered = object(), object()  # objects of their own, so that their references count events
        self._idle_references = sys.getrefcount(self._begun)
        self._request_calls()
        self._thread = threading.Thread(target=self._serve, name="grpc", daemon=True)
        self._thread.start()
        port: int = listeners[0].getsockname()[1]
        self._acceptor.start()
        return port

    def _start_server(self) -> CoreAcceptor:
        """Start core's server, and return the way in for connections: it listens to nothing by itself."""
        core = CoreAcceptor()
        self._queue = cygrpc.CompletionQueue()
        self._server = cygrpc.Server((*self._core_options(self._max_request_bytes), core.option), False)
        self._server.register_completion_queue(self._queue)
        self._server.add_http2_port(core.port)  # what it returns differs between versions
        core.connect()
        self._server.start()
        return core

    @property
    def alive(self) -> bool:
        return super().alive and (self._acceptor.alive or self._draining)

    def _begin_shutdown(self) -> None:
        self._draining = True
        self._acceptor.close()
        self._server.shutdown(self._queue, _DOWN)  # nothing happens the second time

    def _cancel_calls(self) -> None:
        self._server.cancel_all_calls()

    def _serve(self) -> None:
        """Run the loop. Where it cannot go on, close the port and cancel all calls, so that senders turn to others and
        the process can end; `alive` then says that this thread has ended."""
        try:
            self._run()
        except BaseException as error:
            self._begin_shutdown()
            self._cancel_calls()
            with suppress(Exception):
                log.error("grpc: the receiving thread cannot go on, and ends", error=type(error).__name__)

    def _run(self) -> None:
        poll = self._queue.poll
        failures = 0
        while True:
            failed, event, tag = False, None, None
            try:
                # The GIL is free meanwhile.
                event = poll(time.time() + grpc_server.RECHECK_S if self._waiting else None)
                tag = event.tag
                if type(tag) is tuple:
                    self._received(tag, event)
                elif tag is self._begun:
                    if event.success:  # else we are shutting down
                        self._accept(event)
                elif tag is self._answered:
                    self._in_flight -= 1
                elif tag is _DOWN:
                    self._queue.shutdown()  # every call has ended
                elif event.completion_type == cygrpc.CompletionType.queue_shutdown:
                    return
                else:
                    self._refuse_stalled()
                failures = 0
            except Exception as error:  # one call must not end the loop; core cancels it as it is freed
                failures += 1
                failed = True
                if failures == _MAX_FAILURES:
                    raise
                with suppress(Exception):
                    self._log_failure(error)
            if failed:
                event = tag = None
                self._recover(failures)

    def _log_failure(self, error: Exception) -> None:
        if isinstance(error, MemoryError):
            self._log_out_of_memory()
        else:
            self._log_once(error)

    def _recover(self, failures: int) -> None:
        """Put right what a failure has left behind: a message that will not come, a call that nobody has asked for, an
        answer that nobody has counted."""
        if failures > 1:
            time.sleep(_FAILURE_PAUSE_S)
        with suppress(Exception):  # it is tried again at the next failure
            for call, (_, tag) in [*self._receiving.items()]:
                if sys.getrefcount(tag) <= _HELD_HERE:
                    del self._receiving[call]
                    _refuse(call, self._refuse_out_of_memory(), self._answered)
            answering = sys.getrefcount(self._answered) - self._idle_references
            self._in_flight = len(self._receiving) + len(self._waiting) + answering
            self._request_calls()

    def _request_calls(self) -> None:
        """Ask for calls, until as many are asked for as always shall be."""
        for _ in range(_REQUESTED_CALLS - (sys.getrefcount(self._begun) - self._idle_references)):
            self._request_call()

    def _request_call(self) -> None:
        with suppress(ValueError):  # another thread has told the server to shut down
            self._server.request_call(self._queue, self._queue, self._begun)

    def _accept(self, event: Any) -> None:
        self._request_call()
        self._in_flight += 1
        call = event.call
        handler = self._handlers.get(event.call_details.method)
        if handler is None:
            kind, refusal = grpc_status.not_served(event.call_details.method.decode("utf-8", "replace"))
            self._on_not_served(kind)
            _refuse(call, refusal, self._answered)
        elif len(self._receiving) < grpc_server.MAX_RECEIVING:
            self._receive(call, handler)
        elif len(self._waiting) < grpc_server.MAX_WAITING:
            self._waiting.append((call, handler))
            self._refuse_stalled()
        else:
            self._on_refused("busy")
            _refuse(call, grpc_status.TOO_MANY_CALLS, self._answered)

    def _receive(self, call: Any, handler: Handler) -> None:
        tag = (call, handler)
        self._receiving[call] = (time.monotonic(), tag)
        call.start_server_batch((_Message(0),), tag)

    def _refuse_stalled(self) -> None:
        """Refuse a stalled call, and give its slot to the first one that waits."""
        stalled, (since, _) = next(iter(self._receiving.items()))
        if self._waiting and time.monotonic() - since > grpc_server.STALLED_S:
            del self._receiving[stalled]
            self._on_refused("stalled")
            _refuse(stalled, grpc_status.STALLED, self._answered)
            self._receive(*self._waiting.popleft())

    def _received(self, tag: tuple[Any, Handler], event: Any) -> None:
        call, handler = tag
        if self._receiving.pop(call, None) is None:
            return  # stalled, and so answered already
        if self._waiting:
            self._receive(*self._waiting.popleft())
        message = event.batch_operations[0].message()
        if message is not None:
            answer = self._handle(handler, message)
            if isinstance(answer, Refusal):
                _refuse(call, answer, self._answered)
            else:
                call.start_server_batch((_NO_INITIAL_METADATA, _Response(answer, 0), _OK, _CLOSE), self._answered)
        elif event.success:
            _refuse(call, grpc_status.NO_MESSAGE, self._answered)  # unless the client has cancelled: it will not hear
        else:
            self._on_refused("too_large")
            # Core has answered RESOURCE_EXHAUSTED; this only ends the call.
            _refuse(call, grpc_status.NO_MESSAGE, self._answered)


def _refuse(call: Any, refusal: Refusal, tag: object) -> None:
    """Answer with initial metadata and status in one batch without a message, which core sends as Trailers-Only."""
    status = _Status(refusal.trailers, refusal.code, refusal.message.encode(), 0)
    call.start_server_batch((_NO_INITIAL_METADATA, status, _CLOSE), tag)
