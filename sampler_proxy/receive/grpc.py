"""Chooses between the two gRPC engines.

`create` prefers the completion-queue engine (grpc_completion_queue.py), which costs 40 % of the CPU per small call and
accepts connections itself, but stands on grpcio's internals: before it is used, a few real calls prove that this grpcio
behaves as needed. If not: one warning, and the engine over the public `grpc.aio` (grpc_aio.py). One contract suite
holds for both.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from contextlib import suppress

import grpc
import structlog

from sampler_proxy.errors import Overloaded, StartError
from sampler_proxy.receive import grpc_server, reflection
from sampler_proxy.receive.door import OPEN, Door
from sampler_proxy.receive.grpc_aio import AioEngine
from sampler_proxy.receive.grpc_server import GrpcEngine, Handler
from sampler_proxy.receive.keepalive import Keepalive

CHECK_CALL_S = 5.0
"""How long one call of the self-check may take."""

log = structlog.get_logger()


def create(
    methods: Mapping[str, Handler],
    address: str,
    max_request_bytes: int,
    on_refused: Callable[[str], None],
    on_not_served: Callable[[str], None] = lambda _: None,
    on_connection_refused: Callable[[str], None] = lambda _: None,
    large_methods: Mapping[str, Handler] | None = None,
    keepalive: Keepalive = grpc_server.DEFAULT_KEEPALIVE,
    door: Door = OPEN,
) -> GrpcEngine:
    """Make the best engine that works with the grpcio at hand, not started. Blocks for the self-check (0.2 s).

    The arguments are those of GrpcEngine.
    """
    chosen: type[GrpcEngine]
    try:
        from sampler_proxy.receive.grpc_completion_queue import CompletionQueueEngine

        chosen = CompletionQueueEngine
        if (address_of_check := loopback()) is None:
            log.warning("no loopback address to check the gRPC engine on: it is used unchecked")
        else:
            self_check(chosen, address_of_check)
    except Exception as error:  # whatever a changed internal module may do
        log.warning(
            "falling back to the slower grpc.aio engine: this grpcio does not behave as expected",
            grpcio=grpc.__version__,
            error=type(error).__name__,
        )
        chosen = AioEngine
    return chosen(
        methods,
        address,
        max_request_bytes,
        on_refused,
        on_not_served,
        on_connection_refused,
        large_methods,
        keepalive,
        door,
    )


def loopback() -> str | None:
    """Return a loopback address with port 0 that this machine has: of IPv4, else of IPv6; None where it has neither."""
    for address in ("127.0.0.1:0", "[::1]:0"):
        with suppress(StartError):
            grpc_server.check_address(address)
            return address
    return None


def self_check(engine_class: type[GrpcEngine], address: str = "127.0.0.1:0") -> None:
    """Start an engine of this class at a loopback address, call it, and drain it.

    Raises unless every answer is as it should be: to a plain message, a compressed one, one that is too large, to a
    refusal, to a method that does not exist, and to a streaming one.
    """
    refused: list[str] = []

    def refuse(_: bytes) -> bytes:
        raise Overloaded("full", retry_after_ns=1)

    engine = engine_class({"/check/Echo": bytes, "/check/Refuse": refuse}, address, 4096, refused.append)
    try:
        port = engine.start()
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))
        with grpc.insecure_channel(f"{address.rpartition(':')[0]}:{port}", options) as channel:

            def call(
                method: str, message: bytes, compression: grpc.Compression = grpc.Compression.NoCompression
            ) -> object:
                try:
                    return channel.unary_unary(method)(message, timeout=CHECK_CALL_S, compression=compression)
                except grpc.RpcError as error:
                    return error.code(), len(error.trailing_metadata())

            answers = [
                call("/check/Echo", b"\n" * 4096),
                call("/check/Echo", b"\n" * 4096, grpc.Compression.Gzip),
                call("/check/Echo", gzip.compress(b"\n" * 4097)),
                call("/check/Echo", b"\n" * 4097),
                call("/check/Refuse", b""),
                call("/check/None", b""),
                len(list(channel.stream_stream(reflection.METHODS[0])(iter((b"", b"")), timeout=CHECK_CALL_S))),
            ]
    finally:
        drained = engine.drain(5)
    too_large = (grpc.StatusCode.RESOURCE_EXHAUSTED, 0)
    expected = [
        b"\n" * 4096,
        b"\n" * 4096,
        too_large,
        too_large,
        (grpc.StatusCode.UNAVAILABLE, 2),
        (grpc.StatusCode.UNIMPLEMENTED, 0),
        2,
    ]
    if answers != expected or refused != ["too_large", "too_large"] or not drained:
        raise RuntimeError("self-check failed")
