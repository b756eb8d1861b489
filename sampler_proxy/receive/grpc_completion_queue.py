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
counts: core's side holds a reference to the tag of everything that is still to come. Where there is none to handle an
event, its call is `_open`: it has been neither answered nor put where it waits for something, and is answered then.
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

_ANSWER_TRIES = 100
"""How often it is tried to answer a call for which there was no memory, a pause apart, before it is left to core, which
cancels it: its sender tries again, after a pause of its own."""

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
        # What a tag whose event is lost is referred to by; it depends on the interpreter.
        self._lost_references = _references({0: (0.0, object())}, 0)
        self._open: Any = None  # the call whose event is being handled, until it is answered or waits
        self._open_answer: bytes | Refusal | None = None  # what its request has been answered with; None: not yet
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
        out_of_memory = down = False
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
                    down = True
                elif event.completion_type == cygrpc.CompletionType.queue_shutdown:
                    return
                else:
                    self._refuse_stalled()
                # Core is down once its connections are gone, not the calls of them that we have begun: a batch that is
                # started on a queue that has been shut down ends the process.
                if down and not self._in_flight and not self._requested():
                    self._queue.shutdown()  # may be called again
                failures = 0
            except Exception as error:  # one call must not end the loop; core cancels it as it is freed
                failures += 1
                failed = True
                if failures == _MAX_FAILURES:
                    raise
                with suppress(Exception):
                    self._log_failure(error)
                out_of_memory = isinstance(error, MemoryError)
            if failed:
                event = tag = None
                self._answer_open(out_of_memory)
                self._recover(failures)

    def _log_failure(self, error: Exception) -> None:
        if isinstance(error, MemoryError):
            self._log_out_of_memory()
        else:
            self._log_once(error)

    def _answer_open(self, out_of_memory: bool) -> None:
        """Answer the call whose handling has failed: as its request was answered, or with a refusal, which is
        counted."""
        call, self._open = self._open, None
        answer, self._open_answer = self._open_answer, None
        if call is None:
            return
        if answer is None:
            answer = self._refuse_out_of_memory() if out_of_memory else self._refuse_internal()
        for _ in range(_ANSWER_TRIES):
            try:
                self._answer(call, answer)
                return
            except MemoryError:
                time.sleep(_FAILURE_PAUSE_S)
            except Exception:  # the call is of no use any more
                return

    def _recover(self, failures: int) -> None:
        """Put right what a failure has left behind: a message that will not come, a call that nobody has asked for, an
        answer that nobody has counted."""
        if failures > 1:
            time.sleep(_FAILURE_PAUSE_S)
        with suppress(Exception):  # it is tried again at the next failure
            for call in [*self._receiving]:
                if _references(self._receiving, call) <= self._lost_references:
                    del self._receiving[call]
                    self._open = call
                    self._answer_open(out_of_memory=True)
            self._fill_slots()
            answering = sys.getrefcount(self._answered) - self._idle_references
            self._in_flight = len(self._receiving) + len(self._waiting) + answering
            self._request_calls()

    def _request_calls(self) -> None:
        """Ask for calls, until as many are asked for as always shall be."""
        for _ in range(_REQUESTED_CALLS - self._requested()):
            self._request_call()

    def _requested(self) -> int:
        """Return how many calls have been asked for that have not begun."""
        return sys.getrefcount(self._begun) - self._idle_references

    def _request_call(self) -> None:
        with suppress(ValueError):  # another thread has told the server to shut down
            self._server.request_call(self._queue, self._queue, self._begun)

    def _accept(self, event: Any) -> None:
        call = self._open = event.call
        self._request_call()
        self._in_flight += 1
        handler = self._handlers.get(event.call_details.method)
        if handler is None:
            kind, refusal = grpc_status.not_served(event.call_details.method.decode("utf-8", "replace"))
            self._open_answer = refusal
            self._on_not_served(kind)
            self._answer(call, refusal)
        elif len(self._receiving) < grpc_server.MAX_RECEIVING:
            self._receive(call, handler)
        elif len(self._waiting) < grpc_server.MAX_WAITING:
            self._waiting.append((call, handler))
            self._open = None
            self._refuse_stalled()
        else:
            self._refuse(call, "busy", grpc_status.TOO_MANY_CALLS)

    def _receive(self, call: Any, handler: Handler) -> None:
        """Ask for a call's message. On an error nothing is asked for."""
        tag = (call, handler)
        self._receiving[call] = (time.monotonic(), tag)
        try:
            call.start_server_batch((_Message(0),), tag)
        except BaseException:
            del self._receiving[call]
            raise
        if self._open is call:
            self._open = None

    def _fill_slots(self) -> None:
        """Give free slots to the calls that wait. On an error they go on waiting."""
        while self._waiting and len(self._receiving) < grpc_server.MAX_RECEIVING:
            self._receive(*self._waiting[0])
            self._waiting.popleft()

    def _refuse_stalled(self) -> None:
        """Refuse a stalled call, and give its slot to the first one that waits."""
        if self._waiting and self._receiving:
            stalled, (since, _) = next(iter(self._receiving.items()))
            if time.monotonic() - since > grpc_server.STALLED_S:
                del self._receiving[stalled]
                self._refuse(stalled, "stalled", grpc_status.STALLED)
        self._fill_slots()

    def _refuse(self, call: Any, reason: str, refusal: Refusal) -> None:
        """Count a refusal of the engine's own, and answer with it."""
        self._open, self._open_answer = call, refusal
        self._count_refused(reason)
        self._answer(call, refusal)

    def _received(self, tag: tuple[Any, Handler], event: Any) -> None:
        call, handler = tag
        if self._receiving.pop(call, None) is None:
            return  # stalled, and so answered already
        self._open = call
        if self._waiting:
            self._fill_slots()
        message = event.batch_operations[0].message()
        if message is not None:
            self._open_answer = answer = self._handle(handler, message)
            self._answer(call, answer)
        elif event.success:
            self._open_answer = grpc_status.NO_MESSAGE
            self._answer(call, grpc_status.NO_MESSAGE)  # unless the client has cancelled: it will not hear
        else:
            # Core has answered RESOURCE_EXHAUSTED; this only ends the call.
            self._refuse(call, "too_large", grpc_status.NO_MESSAGE)

    def _answer(self, call: Any, answer: bytes | Refusal) -> None:
        """Answer a call; a refusal with initial metadata and status in one batch without a message, which core sends as
        Trailers-Only. On an error it stays open."""
        if isinstance(answer, Refusal):
            status = _Status(answer.trailers, answer.code, answer.message.encode(), 0)
            operations: tuple[Any, ...] = (_NO_INITIAL_METADATA, status, _CLOSE)
        else:
            operations = (_NO_INITIAL_METADATA, _Response(answer, 0), _OK, _CLOSE)
        call.start_server_batch(operations, self._answered)
        self._open = self._open_answer = None


def _references(receiving: dict[Any, tuple[float, object]], call: Any) -> int:
    """Return how many references there are to the tag of a call that is being received, those of this question too."""
    return sys.getrefcount(receiving[call][1])
