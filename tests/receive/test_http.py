"""The HTTP receiver by raw bytes: every status, in the request's encoding, and what connections do."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
import zlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import structlog.testing
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from sampler_proxy.errors import EffortSpent, MalformedRequest, OutOfMemory, Overloaded, RequestTooCostly, StartError
from sampler_proxy.receive import http, http_bodies
from sampler_proxy.receive.cors import Cors
from sampler_proxy.receive.http import HttpReceiver
from sampler_proxy.settings import Endpoint

LIMIT = 1 << 20
PROTOBUF = "application/x-protobuf"
NO_PAGES = Cors((), (), 0)
ANYWHERE = Endpoint("127.0.0.1", 0)


class Server:
    """A receiver, whose handler may be replaced, and what it has counted."""

    def __init__(self, cors: Cors = NO_PAGES, endpoint: Endpoint = ANYWHERE) -> None:
        self.refused: list[str] = []
        self.kinds: list[str] = []
        self.connections: list[str] = []
        self.taken: list[tuple[str, bytes]] = []
        self.answer: Callable[[bytes], bytes] = lambda _: b""
        self.receiver = HttpReceiver(
            endpoint,
            cors,
            LIMIT,
            self._take,
            self._take,
            self.refused.append,
            self.kinds.append,
            self.connections.append,
        )

    def _take(self, message: bytes) -> bytes:
        self.taken.append((threading.current_thread().name, message))
        return self.answer(message)


Test = Callable[[Server, int], Awaitable[None]]


def serve(test: Test, **options: Any) -> Server:
    async def main() -> Server:
        server = Server(**options)
        port = (await server.receiver.start()).port
        try:
            async with asyncio.timeout(30):
                await test(server, port)
        finally:
            await server.receiver.stop()
        return server

    return asyncio.run(main())


class Answer:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    def rpc(self) -> Status:
        assert self.headers["content-type"] == PROTOBUF
        return Status.FromString(self.body)


async def read(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
    return Answer(int(head[0].split()[1]), headers, await reader.readexactly(int(headers.get("content-length", 0))))


def request(body: bytes = b"", method: str = "POST", path: str = "/v1/traces", **headers: str) -> bytes:
    named = {"Host": "x", "Content-Type": PROTOBUF, "Content-Length": str(len(body))}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items() if value)]
    return "\r\n".join([*head, "", ""]).encode() + body


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("waited in vain")


async def ask(port: int, data: bytes) -> Answer:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        return await read(reader)
    finally:
        writer.close()


def raises(error: Exception) -> Callable[[bytes], bytes]:
    def answer(_: bytes) -> bytes:
        raise error

    return answer


TABLE = {
    "a request": (request(b"spans"), 200, None, None),
    "with parameters": (request(b"spans", Content_Type=PROTOBUF + "; charset=utf-8"), 200, None, None),
    "in upper case": (request(b"spans", Content_Type=PROTOBUF.upper()), 200, None, None),
    "empty": (request(), 200, None, None),
    "target in absolute form": (request(b"spans", path="http://x/v1/traces"), 200, None, None),
    "with a query": (request(b"spans", path="/v1/traces?a=b"), 200, None, None),
    "identity": (request(b"spans", Content_Encoding="identity"), 200, None, None),
    "chunked": (
        request(Content_Length="", Transfer_Encoding="chunked") + b"2\r\nsp\r\n3\r\nans\r\n0\r\n\r\n",
        200,
        None,
        None,
    ),
    "of the largest size": (request(bytes(LIMIT)), 200, None, None),
    "too large": (request(bytes(LIMIT + 1)), 413, "too_large", 8),
    "too large by its head": (request(Content_Length=str(LIMIT + 1)), 413, "too_large", 8),
    "too large in chunks": (
        request(Content_Length="", Transfer_Encoding="chunked") + b"100001\r\n" + bytes(LIMIT + 1) + b"\r\n0\r\n\r\n",
        413,
        "too_large",
        8,
    ),
    "no content type": (request(b"spans", Content_Type=""), 415, "content_type", None),
    "text": (request(b"spans", Content_Type="text/plain"), 415, "content_type", None),
    "unknown encoding": (request(b"spans", Content_Encoding="br"), 415, "unknown_compression", 12),
    "encoded twice": (request(b"spans", Content_Encoding="gzip, gzip"), 415, "unknown_compression", 12),
    "damaged gzip": (request(b"spans", Content_Encoding="gzip"), 400, "compression", 3),
    "json": (request(b"{}", Content_Type="application/json"), 200, None, None),
    "no json": (request(b"spans", Content_Type="application/json"), 400, "malformed", None),
    "get": (request(method="GET"), 405, None, 12),
    "put": (request(b"spans", method="PUT"), 405, None, 12),
    "options": (request(method="OPTIONS", Origin="https://a.example"), 405, None, 12),
    "logs": (request(b"x", path="/v1/logs"), 404, None, 12),
    "metrics": (request(b"x", path="/v1/metrics"), 404, None, 12),
    "another path": (request(b"x", path="/"), 404, None, 12),
    "an expectation": (request(b"spans", Expect="a miracle")[:-5], 417, None, 3),
}


@pytest.mark.parametrize("name", TABLE)
def test_statuses(name: str) -> None:
    sent, status, reason, code = TABLE[name]

    async def test(server: Server, port: int) -> None:
        answer = await ask(port, sent)
        assert answer.status == status, answer.body
        if code is not None:
            assert answer.rpc().code == code
        if status == 200:
            assert answer.headers["content-type"] == ("application/json" if name == "json" else PROTOBUF)
        if status == 405:
            assert answer.headers["allow"] == "POST"
        if code == 12 and status == 415:
            assert answer.headers["accept-encoding"] == "gzip, deflate, zstd"
        assert "retry-after" not in answer.headers
        assert "access-control-allow-origin" not in answer.headers
        assert "Python" not in answer.headers["server"]
        if status == 200:
            ((_, message),) = server.taken
            assert message == (b"" if name in ("empty", "json") else bytes(LIMIT) if "largest" in name else b"spans")
        else:
            assert not server.taken
        assert server.refused == ([reason] if reason else [])
        assert server.kinds == ([{"logs": "logs", "metrics": "metrics"}.get(name, "other")] if status == 404 else [])
        assert (await ask(port, request(b"next"))).status == 200

    serve(test)


ERRORS = {
    "memory": (Overloaded("the buffer is full", retry_after_ns=1_000_000_000), 503, 14, "1", []),
    "long": (Overloaded("the buffer is full", retry_after_ns=90_000_000_000), 503, 14, "2", []),
    "malformed": (MalformedRequest("no"), 400, 3, None, []),
    "effort": (RequestTooCostly("no"), 413, 8, None, []),
    "out of memory": (OutOfMemory("no", retry_after_ns=1), 503, 14, "1", []),
    "no memory": (MemoryError(), 503, 14, "1", ["out_of_memory"]),
    "our own": (ZeroDivisionError("s3cret"), 500, 13, None, ["internal"]),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_the_handler_raises(name: str) -> None:
    error, status, code, retry_after, refused = ERRORS[name]

    async def test(server: Server, port: int) -> None:
        server.answer = raises(error)
        with structlog.testing.capture_logs() as logs:
            answer = await ask(port, request(b"spans"))
        assert (answer.status, answer.rpc().code) == (status, code)
        assert answer.headers.get("retry-after") == retry_after
        infos = [RetryInfo.FromString(detail.value) for detail in answer.rpc().details]
        assert bool(infos) == (retry_after is not None)
        assert server.refused == refused
        assert "s3cret" not in str(logs) + answer.body.decode("latin-1")

    serve(test)


def test_a_costly_request_and_a_large_one_are_handled_on_the_other_thread() -> None:
    async def test(server: Server, port: int) -> None:
        def costly(_: bytes) -> bytes:
            if threading.current_thread() is threading.main_thread():
                raise EffortSpent
            return b""

        assert (await ask(port, request(bytes(http.INLINE_BYTES)))).status == 200
        assert (await ask(port, request(bytes(http.INLINE_BYTES + 1)))).status == 200
        zeros = gzip.compress(bytes(http.INLINE_BYTES + 1))
        assert (await ask(port, request(zeros, Content_Encoding="gzip"))).status == 200
        server.answer = costly
        assert (await ask(port, request(b"spans"))).status == 200
        names = ["MainThread", "http-large", "http-large", "MainThread", "http-large"]
        assert [name for name, _ in server.taken] == names

    serve(test)


def test_after_a_request_that_took_long_the_loop_is_left_alone() -> None:
    async def test(server: Server, port: int) -> None:
        server.answer = lambda _: (threading.Event().wait(2 * http.BLOCKED_S), b"")[1]
        for _ in range(2):
            assert (await ask(port, request(b"spans"))).status == 200
        assert [name for name, _ in server.taken] == ["MainThread", "http-large"]

    serve(test)


def test_a_connection_is_kept_and_may_be_pipelined() -> None:
    async def test(server: Server, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):
            writer.write(request(b"one"))
            assert (await read(reader)).status == 200
        writer.write(b"".join(request(b"%d" % number) for number in range(100)))
        assert [(await read(reader)).status for _ in range(100)] == [200] * 100
        assert [message for _, message in server.taken[3:]] == [b"%d" % number for number in range(100)]
        writer.close()

    serve(test)


def test_expectations_are_met_once_the_head_is_seen() -> None:
    async def test(server: Server, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request(b"spans", Expect="100-continue")[:-5])
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"spans")
        assert (await read(reader)).status == 200
        writer.write(request(Expect="100-continue", Content_Length=str(LIMIT + 1)))
        assert (await read(reader)).status == 413
        assert server.refused == ["too_large"]
        writer.close()

    serve(test)


def test_a_partial_success() -> None:
    async def test(server: Server, port: int) -> None:
        server.answer = lambda _: b"\x0a\x02\x08\x03"
        assert (await ask(port, request(b"spans"))).body == b"\x0a\x02\x08\x03"

    serve(test)


FOREIGN = {
    "http2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01",
    "proxy_protocol": b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
    "other": b"SSH-2.0-x\r\n",
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("pieces", [False, True])
def test_what_is_not_http_is_named_once_a_minute(kind: str, pieces: bool) -> None:
    async def test(server: Server, port: int) -> None:
        with structlog.testing.capture_logs() as logs:
            for _ in range(2):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                for piece in (FOREIGN[kind][:3], FOREIGN[kind][3:]) if pieces else (FOREIGN[kind],):
                    writer.write(piece)
                    await asyncio.sleep(0.02)
                said = await reader.read()
                assert (b"http/protobuf" in said) == (kind == "http2")
                writer.close()
        assert server.connections == [kind] * 2
        (line,) = logs
        assert line["peer"].startswith("127.0.0.1:")

    serve(test)


def test_slow_heads_and_bodies_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "HEAD_S", 0.3)
    monkeypatch.setattr(http_bodies, "BODY_S", 0.3)

    async def test(server: Server, port: int) -> None:
        for sent in (b"P", b"POST /v1/traces HTTP/1.1\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            with suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()
        answer = await ask(port, request(b"spans")[:-1])
        assert (answer.status, answer.rpc().code, answer.headers["connection"]) == (408, 14, "close")
        assert server.refused == ["stalled"]

    serve(test)


def test_connections_that_wait_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_CONNECTIONS", 20)

    async def test(server: Server, port: int) -> None:
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(60)]
        slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(60)]
        for _, writer in slow:
            writer.write(request(b"spans")[:-1])
        for _ in range(5):
            assert (await ask(port, request(b"spans"))).status == 200
        assert len(server.receiver._connections) <= 20
        for _, writer in (*idle, *slow):
            writer.close()

    serve(test)


def test_bytes_in_flight_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who holds most is told to come back; who holds little is served."""
    monkeypatch.setattr(http, "IN_FLIGHT_BYTES", 0)  # 3 MiB by the size of a request

    async def test(server: Server, port: int) -> None:
        part = request(bytes(LIMIT))[:-1]
        small = await asyncio.open_connection("127.0.0.1", port)
        small[1].write(request(bytes(1000))[:-1])
        greedy = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
        for _, writer in greedy:
            writer.write(part)
            await writer.drain()
        await until(lambda: len(server.refused) >= 2)
        small[1].write(b"\0")
        assert (await read(small[0])).status == 200
        assert server.receiver.peak_in_flight() < 4 * LIMIT
        assert set(server.refused) == {"in_flight"}
        answers = [asyncio.ensure_future(read(reader)) for reader, _ in greedy]
        done, waiting = await asyncio.wait(answers, timeout=1)
        for each in done:
            answer = each.result()
            assert (answer.status, answer.headers["retry-after"], answer.rpc().code) == (503, "1", 14)
        assert len(done) == len(server.refused)
        for each in waiting:
            each.cancel()
        for _, writer in (small, *greedy):
            writer.close()

    serve(test)


def test_draining_answers_what_is_in_hand() -> None:
    async def test(server: Server, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        idle = await asyncio.open_connection("127.0.0.1", port)
        idle[1].write(request(b"first"))
        await read(idle[0])
        writer.write(request(b"spans")[:-1])
        await until(lambda: server.receiver._in_hand == 1)
        draining = asyncio.ensure_future(server.receiver.drain(10))
        assert await idle[0].read() == b""
        with pytest.raises(OSError, match=r"."):
            await asyncio.open_connection("127.0.0.1", port)
        assert not draining.done()
        writer.write(b"s")
        answer = await read(reader)
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await reader.read() == b""
        await draining
        writer.close()
        idle[1].close()

    serve(test)


def test_draining_ends_with_its_grace() -> None:
    async def test(server: Server, port: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request(b"spans")[:-1])
        await until(lambda: server.receiver._in_hand == 1)
        await asyncio.wait_for(server.receiver.drain(0.1), 5)
        writer.close()

    serve(test)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "x" * 300])
def test_a_port_that_cannot_be_had(host: str, taken: int) -> None:
    async def main() -> None:
        receiver = Server(endpoint=Endpoint(host, taken)).receiver
        with pytest.raises(StartError, match=f"^http: cannot listen on {host}:{taken}: "):
            await receiver.start()
        await receiver.stop()

    asyncio.run(main())


PAGE = "https://shop.example"


@pytest.mark.parametrize(
    ("origins", "origin", "allowed"),
    [
        ([PAGE], PAGE, True),
        ([PAGE], PAGE.upper(), True),
        ([PAGE], PAGE + ":8443", False),
        ([PAGE], "https://shopXexample", False),
        ([PAGE], "https://evil.example", False),
        (["https://*.example"], "https://a.b.example", True),
        (["https://*.example"], "https://example", False),
        (["https://*.example"], "https://a.example.evil", False),
        (["*"], "null", True),
        ([], PAGE, False),
    ],
)
def test_pages_of_other_origins(origins: list[str], origin: str, allowed: bool) -> None:
    async def test(server: Server, port: int) -> None:
        asked = "content-type, X-Own, x-other"
        preflight = await ask(
            port, request(method="OPTIONS", Origin=origin, Access_Control_Request_Headers=asked, Content_Type="")
        )
        answer = await ask(port, request(b"spans", Origin=origin))
        assert answer.status == 200
        assert len(server.taken) == 1
        for each in (preflight, answer):
            assert each.headers.get("access-control-allow-origin") == (origin if allowed else None)
            assert each.headers.get("access-control-allow-credentials") == ("true" if allowed else None)
        if allowed:
            assert preflight.status == 204
            assert preflight.headers["access-control-allow-headers"] == "content-type, X-Own"
            assert preflight.headers["access-control-allow-methods"] == "POST"
            assert preflight.headers["access-control-max-age"] == "600"
            assert "Origin" in preflight.headers["vary"]
        else:
            assert preflight.status == (403 if origins else 405)
            assert "message" in json.loads(preflight.body)

    serve(test, cors=Cors(origins, ["x-own"], 600))


def test_any_header_may_be_allowed() -> None:
    allowed = Cors(["*"], ["*"], 5).preflight("https://a", "x-a, b,")
    assert allowed["Access-Control-Allow-Headers"] == "x-a, b"


def test_raw_deflate_is_read() -> None:
    raw = zlib.compressobj(wbits=-15)
    data = raw.compress(b"spans") + raw.flush()

    async def test(server: Server, port: int) -> None:
        assert (await ask(port, request(data, Content_Encoding="deflate"))).status == 200
        assert server.taken[0][1] == b"spans"

    serve(test)
