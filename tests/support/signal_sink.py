"""A back end on loopback that knows some signals, and keeps what it is sent of each."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import grpc

from sampler_proxy.otlp.signals import Signal


class SignalSink:
    """Listens from its construction on. `answer(signal, context)` may abort a call."""

    def __init__(
        self,
        knows: Iterable[Signal] = Signal,
        port: int = 0,
        answer: Callable[[Signal, grpc.ServicerContext], object] = lambda _signal, _context: None,
    ) -> None:
        self.answer = answer
        self.asked: dict[Signal, int] = defaultdict(int)
        self._stored: dict[Signal, list[bytes]] = defaultdict(list)
        self._lock = threading.Lock()
        self._server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        for signal in knows:
            service, _, name = signal.method[1:].partition("/")
            method = grpc.unary_unary_rpc_method_handler(self._taking(signal))
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: method}),))
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self._server.start()

    def _taking(self, signal: Signal) -> Callable[[bytes, grpc.ServicerContext], bytes]:
        def take(request: bytes, context: grpc.ServicerContext) -> bytes:
            with self._lock:
                self.asked[signal] += 1
            self.answer(signal, context)
            with self._lock:
                self._stored[signal].append(request)
            return b""

        return take

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def of(self, signal: Signal) -> bytes:
        """All requests of a signal as one: messages that follow one another are one message."""
        with self._lock:
            return b"".join(self._stored[signal])

    def requests(self, signal: Signal) -> list[bytes]:
        with self._lock:
            return self._stored[signal].copy()

    def stop(self) -> None:
        """At once: calls under way are cut off."""
        self._server.stop(None).wait(10)
