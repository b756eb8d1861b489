"""Plain requests are answered as all others are, and what is not plain goes to aiohttp whole."""

from __future__ import annotations

import asyncio
import gc
import threading
from contextlib import suppress

import pytest
from aiohttp import web

from sampler_proxy.errors import EffortSpent
from sampler_proxy.receive import http_connections, http_plain
from sampler_proxy.receive.cors import Cors
from sampler_proxy.receive.refusal_counts import RefusalCounts
from tests.receive.test_http import LIMIT, TABLE, Answer, Server, read, request, serve, until


@pytest.fixture
def to_aiohttp(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Collect what aiohttp is given."""
    given: list[bytes] = []
    feed = web.RequestHandler.data_received

    def data_received(self: web.RequestHandler[web.BaseRequest], data: bytes) -> None:
        given.append(data)
        feed(self, data)

    monkeypatch.setattr(web.RequestHandler, "data_received", data_received)
    return given


async def exchange(port: int, *pieces: bytes, pause_s: float = 0.02) -> Answer:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for piece in pieces:
        writer.write(piece)
        await asyncio.sleep(pause_s)
    answer = await read(reader)
    writer.close()
    return answer


@pytest.mark.parametrize("name", TABLE)
def test_both_ways_give_the_same_answer(name: str, to_aiohttp: list[bytes]) -> None:
    sent = TABLE[name][0]

    async def test(_: Server, port: int) -> None:
        plain = await exchange(port, sent, pause_s=0)
        taken = len(to_aiohttp)
        other = await exchange(port, sent[:30], sent[30:])
        assert len(to_aiohttp) > taken
        assert (plain.status, plain.body) == (other.status, other.body)
        for each in (plain, other):
            assert each.headers.pop("date")
        assert plain.headers == other.headers

    serve(test, cors=Cors(["https://*.example"], [], 60))


def test_plain_requests_do_not_reach_aiohttp(to_aiohttp: list[bytes]) -> None:
    async def test(server: Server, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        whole = request(b"spans")
        body_at = len(whole) - 5
        for pieces in ((whole,), (whole[:body_at], whole[body_at:]), (whole[:-2], whole[-2:-1], whole[-1:])):
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0.01)
            assert (await read(reader)).status == 200
        assert (await exchange(port, request(b"spans", Content_Type="text/plain"))).status == 415
        writer.close()
        assert [message for _, message in server.taken] == [b"spans"] * 3
        assert not to_aiohttp

    serve(test)


OTHERS = {
    "chunked": request(Content_Length="", Transfer_Encoding="chunked") + b"5\r\nspans\r\n0\r\n\r\n",
    "to be closed": request(b"spans", Connection="close"),
    "an older version": request(b"spans").replace(b"HTTP/1.1", b"HTTP/1.0"),
    "two lengths": request(b"spans").replace(b"\r\n\r\n", b"\r\nContent-Length: 4\r\n\r\n"),
    "a length and chunks": request(b"spans", Transfer_Encoding="chunked"),
    "a damaged length": request(b"spans").replace(b"Length: 5", b"Length: +5"),
    "a folded header": request(b"spans").replace(b"\r\n\r\n", b"\r\nA: b\r\n c\r\n\r\n"),
    "a damaged name": request(b"spans").replace(b"\r\n\r\n", b"\r\nA b: c\r\n\r\n"),
    "an upgrade": request(b"spans", Connection="Upgrade", Upgrade="websocket"),
    "large": request(bytes(http_plain.MAX_BODY_BYTES + 1)),
    "a long head": request(b"spans", X=http_plain.MAX_HEAD_BYTES * "x"),
    "two at once": request(b"spans") + request(b"spans"),
    "in absolute form": request(b"spans", path="http://x/v1/traces"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_others_go_to_aiohttp_from_their_first_byte(name: str, to_aiohttp: list[bytes]) -> None:
    sent = OTHERS[name]

    async def test(_: Server, port: int) -> None:
        answer = await exchange(port, sent)
        assert answer.status in (200, 400)
        given = b"".join(to_aiohttp)
        assert sent.startswith(given)
        assert answer.status == 400 or given == sent

    serve(test)


def test_a_slow_body_goes_to_aiohttp(to_aiohttp: list[bytes]) -> None:
    async def test(server: Server, port: int) -> None:
        sent = request(b"spans")
        assert (await exchange(port, sent[:-3], sent[-3:], pause_s=2 * http_plain.SOON_S)).status == 200
        assert b"".join(to_aiohttp) == sent
        assert len(server.taken) == 1

    serve(test)


def test_a_body_that_ends_with_its_connection_is_forgotten(
    to_aiohttp: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where it is too slow by then: the timer may fire between the end of a connection and the word of it."""

    async def test(_: Server, port: int) -> None:
        errors: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        held: list[http_plain.PlainReader] = []
        begins = http_plain.PlainReader._begins
        monkeypatch.setattr(
            http_plain.PlainReader, "_begins", lambda self, data: held.append(self) or begins(self, data)
        )
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request(b"spans")[:-2])
        await until(lambda: bool(held))
        held[0]._transport.close()
        held[0]._too_slow()
        await asyncio.sleep(0.05)
        writer.close()
        assert not to_aiohttp
        assert (await exchange(port, request(b"spans"))).status == 200
        gc.collect()
        assert not errors

    serve(test)


def test_what_comes_behind_a_request_that_takes_long_waits(to_aiohttp: list[bytes]) -> None:
    """The other thread has it; the connection is read no further, and the order of the answers is kept."""

    async def test(server: Server, port: int) -> None:
        goes_on = threading.Event()

        def answer(message: bytes) -> bytes:
            if threading.current_thread() is threading.main_thread():
                raise EffortSpent
            goes_on.wait(20)
            return b"\x0a\x02\x08" + message

        server.answer = answer
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request(b"\x01"))
        await until(lambda: len(server.taken) == 2)
        writer.write(request(b"\x02"))
        writer.write(request(b"\x03"))
        await asyncio.sleep(0.05)
        assert len(server.taken) == 2
        goes_on.set()
        assert [(await read(reader)).body[-1] for _ in range(3)] == [1, 2, 3]
        assert b"".join(to_aiohttp) == request(b"\x02") + request(b"\x03")
        writer.close()

    serve(test)


def test_a_client_that_reads_no_answers_is_held_up(to_aiohttp: list[bytes]) -> None:
    """Answers that cannot be sent do not gather here: aiohttp waits until they are read."""

    async def test(server: Server, port: int) -> None:
        server.answer = lambda _: bytes(LIMIT)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(20):
            writer.write(request(b"spans"))
            await asyncio.sleep(0.01)
        assert to_aiohttp
        assert len(server.taken) < 20
        for _ in range(20):
            assert len((await read(reader)).body) == LIMIT
        writer.close()

    serve(test)


def test_no_memory_for_a_body_is_said_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def read_nowait(_: http_plain.PlainRequest) -> bytes:
        raise MemoryError

    async def test(server: Server, port: int) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(http_plain.PlainRequest, "read_nowait", read_nowait)
            answer = await exchange(port, request(b"spans"))
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert server.refused == ["out_of_memory"]
        assert (await exchange(port, request(b"spans"))).status == 200

    serve(test)


def test_what_cannot_be_counted_for_want_of_memory_is_counted_later() -> None:
    counted: list[str] = []
    memory = False

    def count(reason: str) -> None:
        if not memory:
            raise MemoryError
        counted.append(reason)

    counting = RefusalCounts(count).add
    counting("out_of_memory")
    counting("malformed")
    memory = True
    counting("out_of_memory")
    assert sorted(counted) == ["malformed", "out_of_memory", "out_of_memory"]
    counting("malformed")
    assert len(counted) == 4


@pytest.mark.parametrize("flood", [b"x" * (1 << 20), b"X: y\r\n" * (1 << 18)], ids=["one line", "many lines"])
@pytest.mark.parametrize("before", [b"", request(b"spans", Transfer_Encoding="", Connection="keep-alive")])
def test_of_a_head_without_end_aiohttp_sees_little(before: bytes, flood: bytes, to_aiohttp: list[bytes]) -> None:
    async def test(server: Server, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        if before:
            writer.write(before[:30])
            await asyncio.sleep(0.02)
            writer.write(before[30:])
            assert (await read(reader)).status == 200
        writer.write(b"POST /v1/traces HTTP/1.1\r\n" + flood)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            assert (await read(reader)).status == 400
            await reader.read()
        writer.close()
        assert len(b"".join(to_aiohttp)) <= http_connections.MAX_HEAD_BYTES + 1000
        assert max(map(len, to_aiohttp)) <= http_connections.SLICE_BYTES
        assert len(server.taken) == bool(before)
        assert (await exchange(port, request(b"spans"))).status == 200

    serve(test)


def test_a_connection_on_which_nothing_comes_costs_no_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    make = web.RequestHandler.connection_made
    monkeypatch.setattr(
        web.RequestHandler, "connection_made", lambda self, transport: made.append(self) or make(self, transport)
    )

    async def test(server: Server, port: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        await until(lambda: len(server.receiver._connections) == 1)
        assert not made
        await server.receiver.stop()  # ends it all the same
        await until(lambda: len(server.receiver._connections) == 0)
        writer.close()

    serve(test)


def test_few_heads_are_remembered() -> None:
    async def test(server: Server, port: int) -> None:
        for number in range(3 * http_plain.MAX_KNOWN):
            assert (await exchange(port, request(b"spans", X=str(number)), pause_s=0)).status == 200
        assert len(server.taken) == 3 * http_plain.MAX_KNOWN

    serve(test)
