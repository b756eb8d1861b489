"""The yardstick: an OTLP/gRPC server that takes every request and answers with an empty message, and does nothing else.

It serves from grpcio's completion queue on one thread, without asyncio: the least that receiving costs in Python.
What a proxy reaches is quoted as a ratio to it, measured in the same minutes on the same core. grpcio's internal
module makes no promises, so this file says which calls it relies on by using nothing else: request_call,
start_server_batch, poll.

What a large message costs here depends on whether its memory is fresh: glibc moves the size from which a block is
mapped by itself, according to what it has seen, so that from one start to the next the same echo takes 15 or 90 page
faults a request, and twice the time. The threshold is therefore fixed at its default, which is what most starts came to
where the reference numbers were taken.

usage: python -m benchmarks.echo HOST:PORT
"""

import ctypes
import sys
from typing import Any

from grpc._cython import cygrpc

_OPTIONS = (("grpc.max_receive_message_length", 64 << 20), ("grpc.http2.bdp_probe", 0))
_WAITING_CALLS = 32
_M_MMAP_THRESHOLD = -3  # malloc.h
_MMAP_THRESHOLD = 128 << 10
_NEW_CALL = object()


def fix_mapping_threshold() -> None:
    """Fix glibc's threshold from which a block is mapped; nothing with another allocator."""
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD)


def serve(address: str) -> None:
    """Answer calls, of whatever method, until the process is killed."""
    fix_mapping_threshold()
    queue = cygrpc.CompletionQueue()
    server = cygrpc.Server(_OPTIONS, False)
    server.register_completion_queue(queue)
    if not server.add_http2_port(address.encode()):
        raise SystemExit(f"cannot listen at {address}")
    server.start()
    for _ in range(_WAITING_CALLS):
        server.request_call(queue, queue, _NEW_CALL)
    print("ready", address, flush=True)

    def ended(_: Any) -> None:
        """Of a closed or answered call nothing is wanted but that it is over."""

    while True:
        event = queue.poll(None)
        if event.tag is _NEW_CALL:
            server.request_call(queue, queue, _NEW_CALL)
            call = event.call

            def answer(received: Any, call: Any = call) -> None:
                received.batch_operations[0].message()  # makes the request's bytes, as every receiver has to
                call.start_server_batch(
                    (
                        cygrpc.SendInitialMetadataOperation(None, 0),
                        cygrpc.SendMessageOperation(b"", 0),
                        cygrpc.SendStatusFromServerOperation((), 0, b"", 0),
                    ),
                    ended,
                )

            call.start_server_batch((cygrpc.ReceiveMessageOperation(0),), answer)
            call.start_server_batch((cygrpc.ReceiveCloseOnServerOperation(0),), ended)
        else:
            event.tag(event)
        del event  # it would keep its call alive until the next one comes


if __name__ == "__main__":
    serve(sys.argv[1])
