"""Serves gRPC by a plain loop over grpcio's completion queue, on a thread of its own.

No task, no future, no wake-up between threads per call.

This is the hot path of the proxy. The loop stands on grpcio's internal module `cygrpc`, whose `request_call`,
`start_server_batch` and `poll` have kept their shape for years though nobody promises it: `grpc.self_check` guards
against the day they change, and pyproject.toml pins grpcio to the range that CI tests.

A call is two batches and three events, told apart by their tags:

    _begun     a call has begun: ask for the next one, and for this one's message (or let it wait for its turn)
    a Call    its message is there: handle it, answer. Or a large one has been answered on its thread (grpc_lane.py)
    _answered  the answer has left, or never will (cancelled, deadline passed, connection lost)

The operation that waits for a call's end (`ReceiveCloseOnServerOperation`) rides in the answer's batch; gRPC's own
servers spend a third batch and a fourth event on it. Core cancels a call that is freed without it.

A call lives, and the server cannot shut down, while an event, a tag or a variable of ours refers to it. So nothing
keeps calls but the tags of pending batches, `_places` and what waits to be handled, and the loop lets go of its event
before it waits again.

Long: one loop, whose steps share the books of calls.

Messages are handled as they come, until that has taken long (gathering.py). Then whatever has arrived is gathered
first, and handled by connections in turn (turns.py), for SLICE_S before it is looked again: who sends little does not
wait behind who sends much. What a connection may do is in bounds.py.

An object with more than thirty attributes is slower to use (CPython keeps those apart), which every call would feel.

Where there is no memory for an event, `poll` raises and the event is gone. Which one it was shows in the reference
counts: core's side holds a reference to the tag of everything that is still to come. Where there is none to handle an
event, its call is `_open`: it has been neither answered nor put where it waits for something, and is answered then.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import structlog
from grpc._cython import cygrpc

from sampler_proxy.errors import EffortSpent
from sampler_proxy.receive import grpc_server, grpc_status, recoding
from sampler_proxy.receive.accepting import Acceptor
from sampler_proxy.receive.bounds import Bounds
from sampler_proxy.receive.client_hello import TlsOpening
from sampler_proxy.receive.core_acceptor import CoreAcceptor
from sampler_proxy.receive.credentials import Credentials, Lease
from sampler_proxy.receive.gathering import DEAR_S, SLICE_S, Gathering
from sampler_proxy.receive.grpc_call import Call
from sampler_proxy.receive.grpc_lane import Lane
from sampler_proxy.receive.grpc_server import GrpcEngine, Method
from sampler_proxy.receive.grpc_status import Refusal
from sampler_proxy.receive.grpc_streams import Step, Stream, Streams
from sampler_proxy.receive.inflate import SIGNATURES, Inflation
from sampler_proxy.receive.metadata import bind
from sampler_proxy.receive.opening import Opening
from sampler_proxy.receive.places import Places
from sampler_proxy.receive.relay import Relay, Relayed
from sampler_proxy.receive.turns import Turns

_DOWN = "down"
_PROBES = grpc_server.PROBES.encode()

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
    _draining = _cancelled = False

    def start(self) -> int:
        self._handlers: dict[bytes, tuple[Method, Method | None]] = {
            method.encode(): (handler, self._large_methods.get(method)) for method, handler in self._methods.items()
        }
        self._places: Places[Call] = Places(grpc_server.MAX_RECEIVING, grpc_server.MAX_WAITING, _peer)
        self._bounds = Bounds(self._in_flight_bound, self._on_connection_refused)
        self._streams = Streams(self._streaming, self)
        self._ready: Turns[Call] = Turns()
        self._gathering = Gathering()  # in `_ready`
        listeners = grpc_server.open_listeners(self.address)
        try:
            core = self._start_server()
        except BaseException:
            for listener in listeners:
                listener.close()
            raise

        def hand_over(
            listener: socket.socket, connection: socket.socket, received: bytes, relayed: Relayed | None = None
        ) -> None:
            self._bounds.connections.add(connection, relayed)
            core.hand_over(listener, connection, received)

        tls = self._door.tls
        self._bounds.connections.encrypted = tls is not None
        self._acceptor = Acceptor(
            listeners,
            hand_over,
            Relay(hand_over),
            self._on_refused,
            self._on_connection_refused,
            Opening if tls is None else partial(TlsOpening, tls.min_version),
        )
        self._begun, self._answered = object(), object()  # objects of their own, so that their references count events
        # By what they are referred to while there are no events, and a tag whose event is lost: it depends on the
        # interpreter.
        self._references = sys.getrefcount(self._begun), _references({object(): None})[0][1]
        self._open: Any = None  # the call whose event is being handled, until it is answered or waits
        self._open_answer: bytes | Refusal | None = None  # what its request has been answered with; None: not yet
        self._request_calls()
        self._lane: Lane[Call] = Lane(self._handle_large)
        self._unanswerable: list[Call] = []  # by the lane
        self._thread = threading.Thread(target=self._serve, name="grpc", daemon=True)
        self._thread.start()
        self._lane.start()
        self._acceptor.start()
        return grpc_server.port_of(listeners[0])

    def _start_server(self) -> CoreAcceptor:
        """Start core's server, and return the way in for connections: it listens to nothing by itself."""
        core = CoreAcceptor()
        self._queue = cygrpc.CompletionQueue()
        self._server = cygrpc.Server((*self._core_options(self._max_request_bytes), core.option), False)
        self._server.register_completion_queue(self._queue)
        tls = self._door.tls
        credentials = None if tls is None else tls.grpc_credentials()._credentials
        self._server.add_http2_port(core.port, credentials)  # what it returns differs between versions
        core.connect()
        self._server.start()
        return core

    @property
    def alive(self) -> bool:
        if not super().alive:
            return False
        return self._lane.alive and self._acceptor.relay.alive and (self._acceptor.alive or self._draining)

    def peak_in_flight(self) -> int:
        return self._bounds.bytes.peak()

    def _tell_watchers(self) -> None:
        self._streams.tell()

    def _begin_shutdown(self) -> None:
        self._draining = True
        self._acceptor.close()
        self._server.shutdown(self._queue, _DOWN)  # nothing happens the second time

    def _cancel_calls(self) -> None:
        self._cancelled = True  # what waits for the lane has been told so: taken all the same, it would come twice
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
        finally:
            self._lane.close()
            self._acceptor.relay.close()

    def _run(self) -> None:
        poll, receiving = self._queue.poll, self._places.receiving
        gathering, bounds = self._gathering, self._bounds
        failures = 0
        out_of_memory = down = False
        while True:
            failed, event, tag = False, None, None
            try:
                # The GIL is free meanwhile.
                event = poll(0.0 if gathering.on else bounds.next_look_time_s if receiving else None)
                tag = event.tag
                if type(tag) is Call:
                    self._received(tag, event)
                elif tag is self._begun:
                    if event.success:
                        self._accept(event)
                    else:  # we are shutting down
                        self._streams.end()
                elif tag is self._answered:
                    self._in_flight -= 1
                elif type(tag) is Stream or type(tag) is Step:
                    self._streams.happened(tag, event)
                elif tag is _DOWN:
                    down = True
                elif event.completion_type == cygrpc.CompletionType.queue_shutdown:
                    return
                else:
                    self._nothing_came()
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

    def _nothing_came(self) -> None:
        """Do what is to be done when all events have been handled for now."""
        if self._ready:
            self._serve_ready()
        else:
            self._gathering.on = False
            if (now := time.monotonic()) >= self._bounds.next_look_s:
                self._look(now)

    def _log_failure(self, error: Exception) -> None:
        if isinstance(error, MemoryError):
            self._failures.out_of_memory()
        else:
            self._failures.unexpected(error)

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
            for lost in [each for each, count in _references(self._places.receiving) if count <= self._references[1]]:
                self._places.leave(lost)
                if not lost.answered:
                    self._open = lost.call
                    self._answer_open(out_of_memory=True)
            self._fill_places(time.monotonic())
            self._streams.recover()
            answering = sys.getrefcount(self._answered) - self._references[0]
            self._in_flight = len(self._places.receiving) + self._places.waiting + len(self._streams) + answering
            self._request_calls()

    def _request_calls(self) -> None:
        """Ask for calls, until as many are asked for as always shall be."""
        for _ in range(_REQUESTED_CALLS - self._requested()):
            self._request_call()

    def _requested(self) -> int:
        """Return how many calls have been asked for that have not begun."""
        return sys.getrefcount(self._begun) - self._references[0]

    def _request_call(self) -> None:
        try:  # noqa: SIM105 - for every call
            self._server.request_call(self._queue, self._queue, self._begun)
        except ValueError:  # another thread has told the server to shut down
            pass

    def _accept(self, event: Any) -> None:
        call = self._open = event.call
        self._request_call()
        self._in_flight += 1
        admitted = None if self._door.credentials is None else self._ask(self._door.credentials, event)
        handlers = self._handlers.get(event.call_details.method)
        if self._door.metadata is not None and handlers is not None and not isinstance(admitted, Refusal):
            noted = self._noted(event.invocation_metadata)
            if isinstance(noted, Refusal):
                admitted = noted
            elif noted:
                handlers = bind(handlers[0], noted), handlers[1] and bind(handlers[1], noted)
        if isinstance(admitted, Refusal):
            self._open_answer, its = admitted, None
            self._answer(call, admitted)
        else:
            its = self._other(event) if handlers is None else Call(call, call.peer(), *handlers)
            if admitted is not None and its is not None:
                its.lease = admitted
        now = time.monotonic()
        if its is not None:
            self.enter(its, now)
        if now >= self._bounds.next_look_s:
            self._look(now)
        if self._gathering.on and now >= self._gathering.until_s:
            self._serve_ready()

    def _ask(self, credentials: Credentials, event: Any) -> Lease | Refusal | None:
        """Ask a call for its credentials; None: it needs none, being a probe."""
        if event.call_details.method.startswith(_PROBES):
            return None
        return self._admit(credentials, event.invocation_metadata, event.call.peer())

    def _other(self, event: Any) -> Call | None:
        """Take a call of a streaming method; answer one of a method that nobody handles."""
        method, call = event.call_details.method, event.call
        if self._streams.knows(method):
            if (stream := self._streams.begin(call, method)) is None:
                self._refuse(Call(call, b"", bytes, None), "busy", grpc_status.TOO_MANY_CALLS)
            return stream
        if method == recoding.UNKNOWN:
            self._refuse(Call(call, b"", bytes, None), "unknown_compression", grpc_status.UNKNOWN_COMPRESSION)
            return None
        kind, refusal = grpc_status.not_served(method.decode("utf-8", "replace"))
        self._open_answer = refusal
        self._on_not_served(kind)
        self._answer(call, refusal)
        return None

    def enter(self, its: Call, now: float) -> None:
        """Give a call a place, in which its message is read, or let it wait for one."""
        if self._places.enter(its, now):
            try:
                its.call.start_server_batch((_Message(0),), its)
            except BaseException:
                self._places.leave(its)
                raise
            self._open = None
        else:
            self._open = None
            if (crowded := self._places.crowded()) is not None:
                self._refuse(crowded, "busy", grpc_status.TOO_MANY_CALLS)

    def _fill_places(self, now: float) -> None:
        """Give free places to the calls that wait. On an error they go on waiting."""
        while self._places.waiting and (its := self._places.next(now)) is not None:
            try:
                its.call.start_server_batch((_Message(0),), its)
            except BaseException:
                self._places.put_back(its)
                raise

    def _look(self, now: float) -> None:
        """End the calls that hold too many bytes; where others wait for their places, those that have stalled, too."""
        while self._unanswerable:
            self._done(self._unanswerable.pop())
        whole = [its for its in self._places.receiving if its.whole]
        for its in self._bounds.bytes.look(self._places.older_than(now - grpc_server.LOOK_S), whole):
            self._end(its, "in_flight", grpc_status.TOO_MANY_BYTES, now)
        for its in self._places.holding_up(now - grpc_server.STALLED_S):
            if not its.whole:
                self._end(its, "stalled", grpc_status.STALLED, now)
        self._fill_places(now)
        self._bounds.looked(now)

    def _end(self, its: Call, reason: str, refusal: Refusal, now: float) -> None:
        """Refuse a call whose message is not there yet."""
        self._places.leave(its)
        self._refuse(its, reason, refusal)
        self._bounds.did_not_finish(its.peer, now)

    def _refuse(self, its: Call, reason: str, refusal: Refusal) -> None:
        """Count a refusal of the engine's own, and answer with it."""
        self._open, self._open_answer = its.call, refusal
        self._count_refused(reason)
        if its.opened:
            self.close(its, _operations(refusal)[1:])
        else:
            self._answer(its.call, refusal)

    # For streams: what grpc_streams.Engine says

    def leave(self, its: Call, event: Any) -> bytes | Refusal | None:
        if not self._places.leave(its):
            return None
        message: bytes | None = None if event is None else event.batch_operations[0].message()
        if message is not None:
            if self._bounds.bytes.watched:
                self._bounds.bytes.arrived(its.peer, len(message))
        elif event is not None and not its.opened and event.success:
            self._bounds.broke_off(its.peer, time.monotonic())
        if self._places.waiting:
            self._fill_places(time.monotonic())
        return grpc_status.NO_MESSAGE if message is None else message

    def answer(self, handler: Method, message: bytes) -> bytes | Refusal:
        return self._handle(handler, message)

    def close(self, its: Call, operations: tuple[Any, ...]) -> None:
        its.call.start_server_batch(operations, self._answered)
        self._open = self._open_answer = None

    def ended(self) -> None:
        self._in_flight -= 1

    def _received(self, its: Call, event: Any) -> None:
        if its.answered:
            self._done(its)
            return
        self._open = its.call
        if not self._places.leave(its):  # ended, and so answered already
            self._open = None
            return
        message = event.batch_operations[0].message()
        now = time.monotonic()
        if message is None:
            self._end_without_message(its, event.success, now)
            return
        if self._bounds.bytes.watched:
            self._bounds.bytes.arrived(its.peer, len(message))
        gathering = self._gathering
        if gathering.on:
            self._hand_on(its, message, len(message), self._ready, now)
            if now >= gathering.until_s:
                self._serve_ready()
        else:
            self._take(its, message, now)
            done = time.monotonic()
            if done - now > DEAR_S or gathering.dear_s:
                gathering.weigh(now, done)

    def _hand_on(
        self, its: Call, message: bytes | Inflation, size: int, where: Turns[Call] | Lane[Call], now: float
    ) -> None:
        """Let a message wait to be handled; its call has its place meanwhile."""
        its.message, its.size, its.whole = message, size, True
        self._places.hold(its, now)
        try:
            where.add(its.peer, its)
        except BaseException:
            self._places.leave(its)
            raise
        self._open = None

    def _end_without_message(self, its: Call, success: bool, now: float) -> None:
        if self._places.waiting:
            self._fill_places(now)
        if success:
            self._open_answer = grpc_status.NO_MESSAGE
            self._answer(its.call, grpc_status.NO_MESSAGE)  # unless the client has cancelled: it will not hear
            self._bounds.broke_off(its.peer, now)
        else:
            # Core has answered RESOURCE_EXHAUSTED; this only ends the call.
            self._refuse(its, "too_large", grpc_status.NO_MESSAGE)

    def _leave(self, its: Call, now: float) -> None:
        """Let a call have its place no longer, and give the place to who waits."""
        self._places.leave(its)
        if self._places.waiting:
            self._fill_places(now)

    def _serve_ready(self) -> None:
        """Handle messages that have arrived, connections in turn, until it is time to look what else has."""
        begun = now = time.monotonic()
        while self._ready and now - begun < SLICE_S:
            peer, its = self._ready.take()
            since = now
            self._open = its.call
            self._places.leave(its)
            its.whole = False
            assert isinstance(its.message, bytes)
            self._take(its, its.message, now)
            now = time.monotonic()
            self._ready.charge(peer, now - since)
        self._gathering.until_s = now + SLICE_S

    def _take(self, its: Call, message: bytes, now: float) -> None:
        """Handle the message of a call that has no place any more, and answer it; or have the thread of large messages
        do so, which one that is compressed is inflated for as far as it takes to see that."""
        if self._bounds.broken_off.levels:
            self._bounds.broken_off.good(its.peer)
        size = len(message)
        inflation = None
        is_large = size > grpc_server.LARGE_BYTES
        if message.startswith(SIGNATURES):
            inflation = Inflation(message, self._max_request_bytes)
            is_large = (its.large_handler is not None and not inflation.begin(grpc_server.LARGE_BYTES)) or is_large
        if is_large and its.large_handler is not None:
            self._hand_on(its, inflation or message, size, self._lane, now)
            return
        if self._places.waiting:
            self._fill_places(now)
        try:
            if inflation is None:
                answer = self._handle_plain(its.handler, message)
            else:
                answer = self._handle(its.handler, inflation)
        except EffortSpent:
            self._hand_on(its, inflation or message, size, self._lane, now)
        else:
            self._open_answer = answer
            self._answer(its.call, answer)

    def _handle_large(self, its: Call) -> None:
        """Handle a large message, on its thread, and answer it: with the call for a tag, so that the receiving thread
        hears of it."""
        answer: bytes | Refusal | None = None
        for _ in range(_ANSWER_TRIES):
            try:
                if answer is None and self._cancelled:
                    self._count_refused("draining")
                    answer = grpc_status.STOPPING
                elif answer is None:
                    assert its.large_handler is not None
                    answer = self._handle(its.large_handler, its.message)
                its.message = b""
                operations = _operations(answer)
                its.answered = True
                its.call.start_server_batch(operations, its)
                return
            except MemoryError:
                time.sleep(_FAILURE_PAUSE_S)
            except Exception:  # the call is of no use any more
                break
        self._unanswerable.append(its)

    def _done(self, its: Call) -> None:
        """Take a call off the books that the other thread has had."""
        self._in_flight -= 1
        self._leave(its, time.monotonic())

    def _answer(self, call: Any, answer: bytes | Refusal) -> None:
        """Answer a call; a refusal with initial metadata and status in one batch without a message, which core sends as
        Trailers-Only. On an error it stays open."""
        call.start_server_batch(_operations(answer), self._answered)
        self._open = self._open_answer = None


def _peer(its: Call) -> bytes:
    return its.peer


def _operations(answer: bytes | Refusal) -> tuple[Any, ...]:
    if isinstance(answer, bytes):
        return _NO_INITIAL_METADATA, _Response(answer, 0), _OK, _CLOSE
    return _NO_INITIAL_METADATA, _Status(answer.trailers, answer.code, answer.message.encode(), 0), _CLOSE


def _references(receiving: Mapping[Any, object]) -> list[tuple[Any, int]]:
    """Return how many references there are to each tag, those of this question too."""
    return [(each, sys.getrefcount(each)) for each in receiving]
