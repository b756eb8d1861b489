"""TLS and credentials of the HTTP port, by real clients, on both event loops."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog.testing
import uvloop
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from sampler_proxy.config.doors import SenderAuth, SenderToken, SenderUser, ServerTls
from sampler_proxy.receive.cors import Cors
from sampler_proxy.receive.credentials import Credentials
from sampler_proxy.receive.door import Door
from sampler_proxy.receive.http import HttpReceiver
from sampler_proxy.receive.tls import Tls
from sampler_proxy.settings import Endpoint
from tests.support.certificates import Authority, Pair, client_context

PROTOBUF = "application/x-protobuf"
NO_PAGES = Cors((), (), 0)


class Server:
    """A receiver behind a door, and what it has counted."""

    port = 0

    def __init__(self, door: Door, cors: Cors = NO_PAGES) -> None:
        self.refused: list[str] = []
        self.connections: list[str] = []
        self.taken: list[bytes] = []
        self.answer: Callable[[bytes], bytes] = lambda _: b""
        self.receiver = HttpReceiver(
            Endpoint("127.0.0.1", 0),
            cors,
            1 << 20,
            self._take,
            self._take,
            self.refused.append,
            on_connection_refused=self.connections.append,
            door=door,
        )

    def _take(self, message: bytes) -> bytes:
        self.taken.append(message)
        return self.answer(message)

    async def send(
        self, context: ssl.SSLContext | None, data: bytes = b"spans", method: str = "POST", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Send over a connection of its own."""
        scheme = "http" if context is None else "https"
        named = {"Content-Type": PROTOBUF} | {name.replace("_", "-"): value for name, value in headers.items()}
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                method,
                f"{scheme}://localhost:{self.port}/v1/traces",
                data=data,
                headers=named,
                ssl=context if context is not None else True,
            ) as answer,
        ):
            return answer.status, dict(answer.headers), await answer.read()


Test = Callable[[Server], Awaitable[None]]
Serve = Callable[..., Server]


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def serve(request: pytest.FixtureRequest) -> Serve:
    def serve(door: Door, test: Test, **options: Any) -> Server:
        async def main() -> Server:
            problems: list[dict[str, Any]] = []
            asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
            server = Server(door, **options)
            server.port = (await server.receiver.start()).port
            try:
                async with asyncio.timeout(30):
                    await test(server)
            finally:
                await server.receiver.stop()
            assert not problems
            return server

        result: Server = request.param(main())
        return result

    return serve


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def tls(pair: Pair, **more: str) -> Tls:
    return Tls(ServerTls.model_validate(pair.section(**more)), "receive.http")


async def until(condition: Callable[[], object]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("waited in vain")


def test_a_request_over_tls_is_taken(serve: Serve, ca: Authority) -> None:
    async def test(server: Server) -> None:
        assert (await server.send(client_context(ca)))[0] == 200
        assert (await server.send(client_context(ca), bytes(900_000)))[0] == 200

    server = serve(Door(tls(ca.issue("server"))), test)
    assert [len(message) for message in server.taken] == [5, 900_000]
    assert not server.connections


def test_who_speaks_plaintext_is_told_so(serve: Serve, ca: Authority) -> None:
    async def test(server: Server) -> None:
        status, _, body = await server.send(None)
        assert status == 400
        assert b"https://" in body

    with structlog.testing.capture_logs() as logs:
        server = serve(Door(tls(ca.issue("server"))), test)
    assert server.connections == ["plaintext"]
    assert ["plaintext" in line["event"] for line in logs] == [True]


def test_clients_need_a_certificate_of_the_authority(serve: Serve, ca: Authority, tmp_path: Path) -> None:
    clients = Authority(tmp_path, "clients")
    right, wrong = clients.issue("right"), ca.issue("wrong")

    async def test(server: Server) -> None:
        assert (await server.send(client_context(ca, right)))[0] == 200
        for context in (client_context(ca), client_context(ca, wrong)):
            with pytest.raises(aiohttp.ClientError):
                await server.send(context)
        with pytest.raises(aiohttp.ClientError):
            await server.send(client_context(clients, right))  # the client does not trust the server
        await until(lambda: len(server.connections) == 3)

    with structlog.testing.capture_logs() as logs:
        server = serve(Door(tls(ca.issue("server"), client_ca_file=str(clients.path))), test)
    assert server.connections == ["tls_failed"] * 3
    assert server.taken == [b"spans"]
    assert logs[0]["event"] == "http: a TLS handshake has failed: peer did not return a certificate"
    assert "127.0.0.1" in logs[0]["peer"]


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_the_least_version(serve: Serve, ca: Authority, version: str) -> None:
    async def test(server: Server) -> None:
        context = client_context(ca)
        assert (await server.send(context))[0] == 200
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        if version == "1.2":
            assert (await server.send(context))[0] == 200
            with pytest.deprecated_call():
                context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
            context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises(aiohttp.ClientError):
            await server.send(context)

    serve(Door(tls(ca.issue("server"), min_version=version)), test)


def test_a_certificate_is_exchanged_while_a_client_sends(serve: Serve, ca: Authority, tmp_path: Path) -> None:
    used = tls(ca.issue("server"))

    async def test(server: Server) -> None:
        context, sent, stop = client_context(ca), 0, asyncio.Event()

        async def send() -> int:
            nonlocal sent
            async with aiohttp.ClientSession(headers={"Content-Type": PROTOBUF}) as session:
                while not stop.is_set():
                    url = f"https://localhost:{server.port}/v1/traces"
                    async with session.post(url, data=b"spans", ssl=context) as answer:
                        assert answer.status == 200
                        await answer.read()
                    sent += 1
            return sent

        sending = asyncio.create_task(send())
        await until(lambda: sent > 20)
        other = Authority(tmp_path, "other")
        other.issue("server")
        await asyncio.to_thread(used.look)
        assert (await server.send(client_context(other)))[0] == 200
        with pytest.raises(aiohttp.ClientError):
            await server.send(client_context(ca))
        so_far = sent
        await until(lambda: sent > so_far + 20 or sending.done())
        stop.set()
        assert await sending

    serve(Door(used), test)


def test_half_open_handshakes_are_bounded_in_number_and_time(
    serve: Serve, ca: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sampler_proxy.receive.tls_listener.MAX_HANDSHAKES", 10)
    monkeypatch.setattr("sampler_proxy.receive.tls_listener.HANDSHAKE_S", 1.0)
    context = client_context(ca)
    hello = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost").do_handshake()
    begun = hello.read()

    async def half(port: int, data: bytes) -> None:
        """Begin a handshake, and read until the server ends it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        try:
            while await reader.read(65536):
                pass
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def test(server: Server) -> None:
        halves = [asyncio.create_task(half(server.port, data)) for data in (begun, begun[:100], b"\x16", b"") * 5]
        assert (await server.send(context))[0] == 200
        await asyncio.gather(*halves)
        assert (await server.send(context))[0] == 200

    serve(Door(tls(ca.issue("server"))), test)


def test_openssl_comes_in_and_leaves(serve: Serve, ca: Authority) -> None:
    async def test(server: Server) -> None:
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", "-CAfile", str(ca.path), "-quiet"]
        request = b"GET /v1/traces HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        done = await asyncio.to_thread(
            subprocess.run, [*command, "-verify_return_error"], input=request, capture_output=True, timeout=20
        )
        assert b"405 Method Not Allowed" in done.stdout

    serve(Door(tls(ca.issue("server"))), test)


def test_a_client_that_goes_during_the_handshake_harms_nobody(serve: Serve, ca: Authority) -> None:
    async def test(server: Server) -> None:
        for data in (b"", b"\x16\x03\x01", b"\x16\x03\x01\x00\x05hello"):
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                connection.sendall(data)
        assert (await server.send(client_context(ca)))[0] == 200

    serve(Door(tls(ca.issue("server"))), test)


# Credentials


def auth(**settings: Any) -> Door:
    return Door(credentials=Credentials(SenderAuth(**settings), "receive.http"))


TOKENS = (SenderToken(name="old", token="first"), SenderToken(name="new", token="second"))
USERS = (SenderUser(name="user", user="anna", password="secret"),)


def test_credentials_let_in_and_others_are_refused(serve: Serve) -> None:
    door = auth(bearer_tokens=TOKENS, basic=USERS)

    async def test(server: Server) -> None:
        for right in ("Bearer first", "bearer second", "Basic YW5uYTpzZWNyZXQ="):
            assert (await server.send(None, Authorization=right))[0] == 200
        for wrong in ("Bearer third", "Bearer", "Basic YW5uYTpmaXJzdA==", "Digest x", "Bearer caf\xe9"):
            status, headers, body = await server.send(None, Authorization=wrong)
            assert status == 401
            assert headers["WWW-Authenticate"].startswith('Bearer realm="sampler-proxy", Basic realm=')
            assert Status.FromString(body).code == 16
        assert (await server.send(None))[0] == 401
        assert (await server.send(None, b"{}", "GET"))[0] == 401

    with structlog.testing.capture_logs() as logs:
        server = serve(door, test)
    assert server.refused == ["unauthenticated"] * 7
    assert door.credentials is not None
    assert door.credentials.uses == {"old": 1, "new": 1, "user": 1}
    assert len(logs) == 1
    assert "third" not in str(logs)


def test_the_body_of_a_request_without_credentials_is_not_waited_for(serve: Serve) -> None:
    async def test(server: Server) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
        writer.write(b"Content-Length: 1000000\r\n\r\n")
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 401 ")
        assert b"Connection: close" in answer
        writer.close()

    serve(auth(bearer_tokens=TOKENS), test)


def test_pages_ask_without_credentials_whether_they_may_send(serve: Serve) -> None:
    async def test(server: Server) -> None:
        asked = {"Origin": "https://shop.example", "Access_Control_Request_Headers": "authorization"}
        status, headers, _ = await server.send(None, b"", "OPTIONS", **asked)
        assert status == 204
        assert "authorization" in headers["Access-Control-Allow-Headers"]
        status, headers, _ = await server.send(None, Origin="https://shop.example")
        assert status == 401
        assert headers["Access-Control-Allow-Origin"] == "https://shop.example"

    serve(auth(bearer_tokens=TOKENS), test, cors=Cors(("https://shop.example",), ("authorization",), 600))


def test_requests_in_flight_are_bounded_for_each_credential(serve: Serve) -> None:
    busy = SenderToken(name="busy", token="first", max_in_flight=1)

    async def test(server: Server) -> None:
        for _ in range(2):
            assert (await server.send(None, Authorization="Bearer first"))[0] == 200
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n")
        writer.write(b"Authorization: Bearer first\r\nContent-Length: 5\r\n\r\nspa")

        async def busy() -> bool:
            status, headers, body = await server.send(None, Authorization="Bearer first")
            if status == 429:
                assert headers["Retry-After"] == "1"
                assert Status.FromString(body).details[0].Is(RetryInfo.DESCRIPTOR)
            return status == 429

        while not await busy():
            pass
        assert (await server.send(None, Authorization="Bearer second"))[0] == 200
        writer.write(b"ns")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        assert not await busy()
        writer.close()

    server = serve(auth(bearer_tokens=(busy, TOKENS[1])), test)
    assert set(server.refused) == {"credential_busy"}


def test_over_a_unix_socket(ca: Authority, tmp_path: Path) -> None:
    path = tmp_path / "socket"

    async def main() -> None:
        receiver = HttpReceiver(
            Endpoint("", 0, str(path)),
            NO_PAGES,
            1 << 20,
            lambda _: b"",
            lambda _: b"",
            lambda _: None,
            door=Door(tls(ca.issue("server")), auth(bearer_tokens=TOKENS).credentials),
        )
        await receiver.start()
        try:
            for token, status in (("first", b"200"), ("wrong", b"401")):
                reader, writer = await asyncio.open_unix_connection(
                    path, ssl=client_context(ca), server_hostname="localhost"
                )
                writer.write(f"POST /v1/traces HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n".encode())
                writer.write(b"Content-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n")
                assert (await reader.readuntil(b"\r\n")).split()[1] == status
                writer.close()
        finally:
            await receiver.stop()
        assert not path.exists()

    asyncio.run(main())
