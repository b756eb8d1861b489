"""Serves gRPC by grpcio's public asyncio server, with a loop on a thread of its own.

This engine takes 2.5 times the CPU per small call, so it is used only where grpc_completion_queue.py does not work with
the grpcio at hand. The contract is the same, save for what core does without telling anybody: it refuses messages above
twice the size limit, so `on_refused` is called only for those between; and it listens itself, so that calls in an
unknown compression and connections that are not HTTP/2 end without a count. Methods are registered as client-streaming
ones, since only such a method may read when it chooses, and is told of a call without a message. Places are
shared among connections all the same; bytes in flight and broken calls are not seen here, large messages are handled
like all others, and how many calls of streaming methods there are is bounded for a connection only.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Hashable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

import grpc
import grpc.aio

from sampler_proxy.errors import StartError
from sampler_proxy.receive import grpc_server, grpc_status
from sampler_proxy.receive.grpc_server import GrpcEngine, Method, Streaming
from sampler_proxy.receive.grpc_status import Refusal
from sampler_proxy.receive.metadata import bind
from sampler_proxy.receive.places import Places

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_FOREVER_S = 86_400.0  # longer than any drain
_Found = TypeVar("_Found")

BEAT_S = 1.0
"""How often the loop shows that it runs."""

STUCK_S = 30.0
"""A loop that has not run for so long is given up. A request takes it milliseconds, the largest one a second."""


class AioEngine(GrpcEngine):
    """The engine over `grpc.aio`; its contract is GrpcEngine's."""

    name = "grpc.aio"

    def start(self) -> int:
        if self._door.tls is not None and self._door.tls.min_version != "1.2":
            raise StartError("grpc: this engine (grpc.aio) cannot refuse TLS 1.2: remove tls.min_version")
        grpc_server.check_address(self.address)
        self._places: Places[Any] = Places(grpc_server.MAX_RECEIVING, grpc_server.MAX_WAITING, _peer)
        self._turns: dict[Any, asyncio.Future[bool]] = {}  # of the calls that wait: whether they have a place, or never
        self._beats = self._beats_seen = 0
        self._silent_s, self._looked_s = 0.0, time.monotonic()
        started: Future[int] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(started)), name="grpc", daemon=True)
        self._thread.start()
        return started.result()

    @property
    def alive(self) -> bool:
        """Tell whether the thread runs, and its loop within STUCK_S. To be asked by one thread, every second or more
        often: of the time between two looks no more than BEAT_S counts, since this whole process may have stood
        still."""
        if not super().alive:
            return False
        now = time.monotonic()
        if self._beats != self._beats_seen:
            self._beats_seen, self._silent_s = self._beats, 0.0
        else:
            self._silent_s += min(now - self._looked_s, BEAT_S)
        self._looked_s = now
        return self._silent_s < STUCK_S

    async def _beat(self) -> None:
        while True:
            self._beats += 1
            await asyncio.sleep(BEAT_S)

    def _tell_watchers(self) -> None:
        self._wake(self._changed)

    def _begin_shutdown(self) -> None:
        self._wake(self._ending)
        self._stop(_FOREVER_S)

    def _cancel_calls(self) -> None:
        self._stop(None)

    def _wake(self, event: asyncio.Event) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(event.set)

    def _stop(self, grace_s: float | None) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(
                lambda: self._stops.append(self._loop.create_task(self._server.stop(grace_s)))
            )

    async def _run(self, started: Future[int]) -> None:
        try:
            self._loop = asyncio.get_running_loop()
            self._stops: list[asyncio.Task[None]] = []
            self._changed, self._ending = asyncio.Event(), asyncio.Event()  # the health, and the server
            self._server = grpc.aio.server(options=self._core_options(2 * self._max_request_bytes))
            handlers = {**self._methods, **self._large_methods}  # there is one thread, and no need for both
            behaviours = {method: self._behaviour(method, handler) for method, handler in handlers.items()}
            streaming = {name: self._conversation(name, method) for name, method in self._streaming.items()}
            self._server.add_generic_rpc_handlers((_Methods(behaviours, streaming, self._not_served),))
            try:
                if self._door.tls is None:
                    port = self._server.add_insecure_port(self.address)
                else:
                    port = self._server.add_secure_port(self.address, self._door.tls.grpc_credentials())
            except RuntimeError:
                port = 0
            if not port:
                raise StartError(f"grpc: cannot listen on {self.address}")
            if self.address.startswith(grpc_server.UNIX):
                port = 0
            await self._server.start()
        except BaseException as error:
            started.set_exception(error)
            return
        started.set_result(port)
        beating = self._loop.create_task(self._beat())
        await self._server.wait_for_termination()
        await asyncio.gather(*self._stops)
        beating.cancel()

    async def _ask(self, context: Any, name: str) -> object:
        """Ask a call for its credentials, unless it is a probe, and end it where they are refused. What is returned is
        to be kept until it has been answered."""
        credentials = self._door.credentials
        if credentials is None or name.startswith(grpc_server.PROBES):
            return None
        admitted = self._admit(credentials, context.invocation_metadata(), context.peer().encode())
        if isinstance(admitted, Refusal):
            await context.abort(_CODES[admitted.code], admitted.message, admitted.trailers)
        return admitted

    def _behaviour(self, name: str, handler: Method) -> Callable[[object, Any], Awaitable[bytes]]:
        async def behaviour(_: object, context: Any) -> bytes:
            self._in_flight += 1
            try:
                _admitted = await self._ask(context, name)
                noted = b"" if self._door.metadata is None else self._noted(context.invocation_metadata())
                if not isinstance(noted, Refusal):
                    noted = await self._answer(bind(handler, noted) if noted else handler, context)
                answer = noted
            finally:
                self._in_flight -= 1
            if isinstance(answer, bytes):
                return answer
            await context.abort(_CODES[answer.code], answer.message, answer.trailers)
            raise AssertionError("abort raises")

        return behaviour

    def _conversation(self, name: str, method: Streaming) -> Callable[[object, Any], Awaitable[None]]:
        async def behaviour(_: object, context: Any) -> None:
            _admitted = await self._ask(context, name)
            reading = asyncio.ensure_future(self._read(context))
            first = True
            while not isinstance(message := await self._unless_ending(reading, context), Refusal):
                answer = self._handle(method.answer, message)
                if isinstance(answer, Refusal):
                    message = answer
                    break
                await context.write(answer)
                first = False
                if method.watches:
                    await self._unless_ending(asyncio.ensure_future(self._changed.wait()), context)
                    if (now := method.answer(message)) != answer:
                        await context.write(now)
                    await self._unless_ending(asyncio.ensure_future(asyncio.Event().wait()), context)
                reading = asyncio.ensure_future(self._read(context))
            if first or message is not grpc_status.NO_MESSAGE:  # else the client has sent all
                await context.abort(_CODES[message.code], message.message, message.trailers)

        return behaviour

    async def _unless_ending(self, what: asyncio.Future[_Found], context: Any) -> _Found:
        """Wait for something; end the call where the server shuts down before."""
        ending = asyncio.ensure_future(self._ending.wait())
        try:
            await asyncio.wait((what, ending), return_when=asyncio.FIRST_COMPLETED)
            if ending.done():
                refusal = grpc_status.STOPPING
                await context.abort(_CODES[refusal.code], refusal.message, refusal.trailers)
            return await what
        finally:
            ending.cancel()
            what.cancel()

    def _not_served(self, method: str) -> Callable[[object, Any], Awaitable[bytes]]:
        async def behaviour(_: object, context: Any) -> bytes:
            await self._ask(context, method)
            kind, refusal = grpc_status.not_served(method)
            self._on_not_served(kind)
            await context.abort(_CODES[refusal.code], refusal.message)
            raise AssertionError("abort raises")

        return behaviour

    async def _answer(self, handler: Method, context: Any) -> bytes | Refusal:
        message = await self._read(context)
        return message if isinstance(message, Refusal) else self._handle(handler, message)

    async def _read(self, context: Any) -> bytes | Refusal:
        """Return a call's message, for which it waits for its turn, or with what it has to be refused."""
        if not self._places.enter(context, time.monotonic()):
            turn = self._turns[context] = self._loop.create_future()
            if (crowded := self._places.crowded()) is not None:
                self._turns[crowded].set_result(False)
            if not await self._wait(context, turn):
                self._on_refused("busy")
                return grpc_status.TOO_MANY_CALLS
        try:
            message = await context.read()
        finally:
            self._leave(context)
        return grpc_status.NO_MESSAGE if message is grpc.aio.EOF else message

    async def _wait(self, context: Any, turn: asyncio.Future[bool]) -> bool:
        """Wait for a place; False where the call has to be refused."""
        try:
            while not turn.done():
                await self._refuse_stalled()
                await asyncio.wait((turn,), timeout=grpc_server.RECHECK_S)
            return turn.result()
        except asyncio.CancelledError:  # its client has gone
            if not turn.done():
                self._places.give_up(context)
            elif turn.result():
                self._leave(context)
            raise
        finally:
            del self._turns[context]

    def _leave(self, context: Any) -> bool:
        """Take back the place of a call, and give it to who waits; False where the call has none any more."""
        if not self._places.leave(context):
            return False
        now = time.monotonic()
        while (call := self._places.next(now)) is not None:
            self._turns[call].set_result(True)
        return True

    async def _refuse_stalled(self) -> None:
        """Refuse all stalled calls whose places others wait for."""
        for stalled in self._places.holding_up(time.monotonic() - grpc_server.STALLED_S):
            if not self._leave(stalled):
                continue  # it has ended while others were refused
            self._on_refused("stalled")
            refusal = grpc_status.STALLED
            with suppress(Exception):  # it must not end the call that waits
                await stalled.abort(_CODES[refusal.code], refusal.message, refusal.trailers)


def _peer(context: Any) -> Hashable:
    peer: str = context.peer()
    return peer


_Behaviour = Callable[[object, Any], Awaitable[bytes]]
_Conversation = Callable[[object, Any], Awaitable[None]]


class _Methods(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(
        self,
        behaviours: dict[str, _Behaviour],
        streaming: dict[str, _Conversation],
        not_served: Callable[[str], _Behaviour],
    ) -> None:
        self._handlers = {
            **{name: grpc.stream_unary_rpc_method_handler(each) for name, each in behaviours.items()},
            **{name: grpc.stream_stream_rpc_method_handler(each) for name, each in streaming.items()},
        }
        self._not_served = not_served

    def service(self, handler_call_details: Any) -> Any:
        method = handler_call_details.method
        return self._handlers.get(method) or grpc.stream_unary_rpc_method_handler(self._not_served(method))
