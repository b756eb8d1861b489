"""A back end that keeps what it is sent: an OTLP/gRPC server on loopback, in this process or in one that can be killed.

    sink = Sink(); sink.port; sink.requests
    SinkProcess(file, folder, port): the same as `python -m tests.support.sink FILE PORT`, which prints its port

What the process answers with OK it has written to its file before, each request after its length (4 bytes, big-endian);
a record that a kill has torn is the last one and was not answered.
"""

from __future__ import annotations

import struct
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support import nezha, reference
from tests.support.processes import IMPORTED_FROM, Process, environment

SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"
REPOSITORY = Path(__file__).resolve().parent.parent.parent


def serve(
    export: Callable[[bytes, grpc.ServicerContext], bytes],
    port: int = 0,
    *,
    host: str = "127.0.0.1",
    threads: int = 8,
    max_receive_bytes: int = -1,
    credentials: grpc.ServerCredentials | None = None,
) -> tuple[grpc.Server, int]:
    """A started server whose method Export is `export`, bytes in, bytes out, and its port."""
    options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", max_receive_bytes)]
    server = grpc.server(ThreadPoolExecutor(threads), options=options)
    method = grpc.unary_unary_rpc_method_handler(export)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Export": method}),))
    address = f"{host}:{port}"
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    server.start()
    return server, port


class Sink:
    """Listens from its construction on. `take` gets the bytes of each request before it is answered."""

    def __init__(self, port: int = 0, take: Callable[[bytes], object] | None = None) -> None:
        self._received: list[bytes] = []
        self._take = take or self._received.append
        self._server, self.port = serve(self._export, port)

    def _export(self, request: bytes, _: grpc.ServicerContext) -> bytes:
        self._take(request)
        return ExportTraceServiceResponse().SerializeToString()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def requests(self) -> list[ExportTraceServiceRequest]:
        return [ExportTraceServiceRequest.FromString(data) for data in list(self._received)]

    @property
    def spans(self) -> list[Span]:
        return list(nezha.spans(self.requests))

    @property
    def traces(self) -> dict[bytes, list[reference.Seen]]:
        return reference.traces(self.requests)

    def contents(self) -> Counter[reference.SpanKey]:
        """Every span with its envelope, however requests were cut."""
        found: Counter[reference.SpanKey] = Counter()
        for request in self.requests:
            found.update(reference.spans_of(request))
        return found

    def stop(self) -> None:
        """At once: calls under way are cut off."""
        self._server.stop(None).wait(10)


class SinkProcess(Process):
    def __init__(self, file: Path, folder: Path, port: int = 0) -> None:
        env = environment()
        env["PYTHONPATH"] = f"{REPOSITORY}:{IMPORTED_FROM}"
        super().__init__("sink", [sys.executable, "-m", "tests.support.sink", str(file), str(port)], folder, env)
        self.file = file
        self.port = int(self.line())

    @property
    def size(self) -> int:
        """Of what it has stored."""
        return self.file.stat().st_size

    def span_ids(self) -> list[bytes]:
        """Of all spans stored, duplicates included."""
        return [span.span_id for span in nezha.spans(stored(self.file))]


def stored(file: Path) -> list[ExportTraceServiceRequest]:
    data, at, found = file.read_bytes(), 0, []
    while at + 4 <= len(data):
        end = at + 4 + struct.unpack_from(">I", data, at)[0]
        if end <= len(data):
            found.append(ExportTraceServiceRequest.FromString(data[at + 4 : end]))
        at = end
    return found


def main() -> None:
    path, port = sys.argv[1:]
    lock = threading.Lock()
    with open(path, "ab", buffering=0) as file:

        def store(request: bytes) -> None:
            with lock:
                file.write(struct.pack(">I", len(request)) + request)

        sink = Sink(int(port), store)
        print(sink.port, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
