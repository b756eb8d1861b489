"""TLS and credentials of the gRPC port: one contract, both engines, by real clients."""

from __future__ import annotations

import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog.testing

from sampler_proxy.config.doors import BasicUser, SenderAuth, SenderToken, SenderUser, ServerTls
from sampler_proxy.errors import StartError
from sampler_proxy.receive import tls as receive_tls
from sampler_proxy.receive.credentials import Credentials
from sampler_proxy.receive.door import Door
from sampler_proxy.receive.grpc_aio import AioEngine
from sampler_proxy.receive.grpc_completion_queue import CompletionQueueEngine
from sampler_proxy.receive.grpc_server import GrpcEngine
from sampler_proxy.receive.tls import Tls
from tests.support.certificates import Authority, Pair, client_context

from .raw_http2 import EXPORT
from .waiting import eventually

UNAUTHENTICATED, UNAVAILABLE = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNAVAILABLE


class Server:
    """An engine behind a door, and what it was asked."""

    def __init__(self, engine_class: type[GrpcEngine], door: Door) -> None:
        self.requests: list[bytes] = []
        self.refused: list[str] = []
        self.connections: list[str] = []
        self.answer: Callable[[bytes], bytes] = lambda _: b"taken"
        self.engine = engine_class(
            {EXPORT: self._export},
            "127.0.0.1:0",
            1 << 20,
            self.refused.append,
            on_connection_refused=self.connections.append,
            door=door,
        )
        self.port = self.engine.start()
        self._channels: list[grpc.Channel] = []

    def _export(self, request: bytes) -> bytes:
        self.requests.append(request)
        return self.answer(request)

    def channel(self, authority: Authority | None = None, pair: Pair | None = None) -> grpc.Channel:
        options = [("grpc.use_local_subchannel_pool", 1)]
        if authority is None:
            channel = grpc.insecure_channel(f"127.0.0.1:{self.port}", options)
        else:
            files = (None, None) if pair is None else (pair.key.read_bytes(), pair.cert.read_bytes())
            credentials = grpc.ssl_channel_credentials(authority.pem, *files)
            channel = grpc.secure_channel(f"localhost:{self.port}", credentials, options)
        self._channels.append(channel)
        return channel

    def close(self) -> None:
        self.engine.stop()
        for channel in self._channels:
            channel.close()


def call(channel: grpc.Channel, request: bytes = b"x", timeout: float = 20, **options: Any) -> bytes:
    response: bytes = channel.unary_unary(EXPORT)(request, timeout=timeout, **options)
    return response


def code_of(channel: grpc.Channel, timeout: float = 20, **options: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, timeout=timeout, **options)
    code: grpc.StatusCode = caught.value.code()
    return code


def call_error(channel: grpc.Channel, **options: Any) -> grpc.RpcError | None:
    try:
        call(channel, **options)
    except grpc.RpcError as error:
        return error
    return None


def bearer(token: str) -> dict[str, Any]:
    return {"metadata": (("authorization", f"Bearer {token}"),)}


def basic(user: str, password: str) -> dict[str, Any]:
    return {"metadata": (("authorization", f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"),)}


@pytest.fixture(params=[CompletionQueueEngine, AioEngine], ids=["completion_queue", "aio"])
def engine_class(request: pytest.FixtureRequest) -> type[GrpcEngine]:
    return request.param


@pytest.fixture
def launch(engine_class: type[GrpcEngine]) -> Iterator[Callable[[Door], Server]]:
    running: list[Server] = []

    def start(door: Door) -> Server:
        running.append(Server(engine_class, door))
        return running[-1]

    yield start
    for server in running:
        server.close()


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def tls(pair: Pair, **more: str) -> Tls:
    return Tls(ServerTls.model_validate(pair.section(**more)), "receive.grpc")


Launch = Callable[[Door], Server]


# TLS


def test_a_call_over_tls_is_answered_and_plaintext_is_not(launch: Launch, ca: Authority) -> None:
    server = launch(Door(tls(ca.issue("server"))))
    assert call(server.channel(ca)) == b"taken"
    assert code_of(server.channel()) is UNAVAILABLE
    assert call(server.channel(ca), b"y" * 900_000) == b"taken"
    assert [len(request) for request in server.requests] == [1, 900_000]


def test_a_client_that_does_not_trust_the_certificate_goes(launch: Launch, ca: Authority, tmp_path: Path) -> None:
    server = launch(Door(tls(ca.issue("server"))))
    assert code_of(server.channel(Authority(tmp_path, "other"))) is UNAVAILABLE
    assert call(server.channel(ca)) == b"taken"


def test_clients_need_a_certificate_of_the_authority(launch: Launch, ca: Authority, tmp_path: Path) -> None:
    clients = Authority(tmp_path, "clients")
    server = launch(Door(tls(ca.issue("server"), client_ca_file=str(clients.path))))
    assert call(server.channel(ca, clients.issue("client"))) == b"taken"
    assert code_of(server.channel(ca), timeout=3) is UNAVAILABLE
    assert code_of(server.channel(ca, ca.issue("of another authority")), timeout=3) is UNAVAILABLE
    assert server.requests == [b"x"]


def test_a_certificate_is_exchanged_while_a_client_sends(launch: Launch, ca: Authority, tmp_path: Path) -> None:
    """New connections get the new one, old ones go on, and no call fails."""
    pair = ca.issue("server")
    used = tls(pair)
    server = launch(Door(used))
    channel, stop, failed, sent = server.channel(ca), threading.Event(), [], [0]

    def send() -> None:
        while not stop.is_set():
            try:
                call(channel)
                sent[0] += 1
            except grpc.RpcError as error:
                failed.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    eventually(lambda: sent[0] > 20)
    other = Authority(tmp_path, "other")
    other.issue("server")
    before = used.expires_s
    with structlog.testing.capture_logs() as logs:
        used.look()
        used.look()
    assert [line["event"] for line in logs] == ["receive.grpc: certificates read again"]
    assert used.expires_s >= before
    assert call(server.channel(other)) == b"taken"
    assert code_of(server.channel(ca)) is UNAVAILABLE
    so_far = sent[0]
    eventually(lambda: sent[0] > so_far + 20)
    stop.set()
    thread.join()
    assert not failed


def test_clients_of_a_new_authority_come_in_after_an_exchange(launch: Launch, ca: Authority, tmp_path: Path) -> None:
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    used = tls(ca.issue("server"), client_ca_file=str(old.path))
    server = launch(Door(used))
    before = old.issue("before")
    first = server.channel(ca, before)
    assert call(first) == b"taken"
    old.path.write_bytes(new.pem)
    used.look()
    assert call(server.channel(ca, new.issue("after"))) == b"taken"
    assert code_of(server.channel(ca, before), timeout=3) is UNAVAILABLE
    assert call(first) == b"taken"


def test_files_that_cannot_be_used_leave_the_former_in_use(launch: Launch, ca: Authority) -> None:
    pair = ca.issue("server")
    used = tls(pair)
    server = launch(Door(used))
    key = pair.key.read_bytes()
    for broken, told in ((b"", "no private key"), (ca.issue("another").key.read_bytes(), "is not the key of")):
        pair.key.write_bytes(broken)
        with structlog.testing.capture_logs() as logs:
            used.look()
            used.look()
        assert len(logs) == 1
        assert told in logs[0]["event"]
        assert str(pair.key) in logs[0]["event"]
        assert used.problem
        assert told in used.problem
        assert call(server.channel(ca)) == b"taken"
    pair.key.write_bytes(key)
    used.look()
    assert used.problem is None


def raw(server: Server, context: ssl.SSLContext) -> str | None:
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as wrapped,
    ):
        return wrapped.version()


def test_old_versions_of_tls_are_refused(launch: Launch, ca: Authority) -> None:
    server = launch(Door(tls(ca.issue("server"))))
    context = client_context(ca)
    context.set_alpn_protocols(["h2"])
    assert raw(server, context) == "TLSv1.3"
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert raw(server, context) == "TLSv1.2"
    with pytest.deprecated_call():
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        raw(server, context)


def test_the_least_version_may_be_1_3(ca: Authority) -> None:
    door = Door(tls(ca.issue("server"), min_version="1.3"))
    with pytest.raises(StartError, match="min_version"):
        Server(AioEngine, door)
    server = Server(CompletionQueueEngine, door)
    try:
        context = client_context(ca)
        context.set_alpn_protocols(["h2"])
        assert raw(server, context) == "TLSv1.3"
        assert call(server.channel(ca)) == b"taken"
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with structlog.testing.capture_logs() as logs, pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
            raw(server, context)
        eventually(lambda: logs)
        assert "min_version" in logs[0]["event"]
        assert server.connections == ["tls_version"]
    finally:
        server.close()


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"POST /v1/traces HTTP/1.1\r\nHost: x\r\n\r\n", b"400 Bad Request"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), b""),
        (b"\0\0\0\0", b""),
    ],
    ids=["http1", "http2", "other"],
)
def test_who_speaks_plaintext_is_told_so(ca: Authority, sent: bytes, answer: bytes) -> None:
    server = Server(CompletionQueueEngine, Door(tls(ca.issue("server"))))
    try:
        with (
            structlog.testing.capture_logs() as logs,
            socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection,
        ):
            connection.sendall(sent)
            received = b""
            while part := connection.recv(4096):
                received += part
        assert answer in received
        assert server.connections == ["plaintext"]
        assert "plaintext" in logs[0]["event"]
    finally:
        server.close()


def test_half_open_handshakes_end_and_harm_nobody(ca: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sampler_proxy.receive.grpc_server.HANDSHAKE_S", 1.0)
    server = Server(CompletionQueueEngine, Door(tls(ca.issue("server"))))
    context = client_context(ca)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    hello = outgoing.read()
    halves = []
    try:
        for _ in range(50):
            halves.append(socket.create_connection(("127.0.0.1", server.port), timeout=20))
            halves[-1].sendall(hello)
        assert call(server.channel(ca)) == b"taken"
        for half in halves:
            while half.recv(65536):  # the server's part, and the end
                pass
    finally:
        server.close()
        for half in halves:
            half.close()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"cert_file": "/none"}, "cert_file /none: cannot be read: No such file or directory"),
        ({"client_ca_file": "/none"}, "client_ca_file /none: cannot be read"),
    ],
)
def test_a_start_without_a_usable_file_says_which(ca: Authority, change: dict[str, str], told: str) -> None:
    section = {**ca.issue("server").section(), **change}
    with pytest.raises(StartError, match=told):
        receive_tls.Tls(ServerTls.model_validate(section), "receive.grpc")


# Credentials


def door(*tokens: SenderToken, basic: tuple[BasicUser, ...] = ()) -> Door:
    return Door(credentials=Credentials(SenderAuth(bearer_tokens=tokens, basic=basic), "receive.grpc"))


def test_a_token_lets_in_and_others_do_not(launch: Launch) -> None:
    known = door(SenderToken(name="old", token="first"), SenderToken(name="new", token="second"))
    assert known.credentials is not None
    server = launch(known)
    channel = server.channel()
    with structlog.testing.capture_logs() as logs:
        assert call(channel, **bearer("first")) == b"taken"
        assert call(channel, **bearer("second")) == b"taken"
        assert call(channel, metadata=(("authorization", "bearer second"),)) == b"taken"
        for wrong in (bearer("third"), bearer(""), {}, basic("old", "first"), {"metadata": (("authorization", "x"),)}):
            assert code_of(channel, **wrong) is UNAUTHENTICATED
    assert server.requests == [b"x"] * 3
    assert server.refused == ["unauthenticated"] * 5
    assert known.credentials.uses == {"old": 1, "new": 2}
    assert known.credentials.refused == 5
    assert len(logs) == 1
    assert "third" not in str(logs)


def test_a_user_with_a_password_comes_in(launch: Launch) -> None:
    user = SenderUser(name="u", user="anna", password="päss:word")
    hashed = SenderUser(name="h", user="bob", sha256="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")
    server = launch(door(basic=(user, hashed)))
    channel = server.channel()
    assert call(channel, **basic("anna", "päss:word")) == b"taken"
    assert call(channel, **basic("bob", "test")) == b"taken"
    for wrong in (basic("anna", "test"), basic("bob", "päss:word"), basic("", "test"), bearer("test")):
        assert code_of(channel, **wrong) is UNAUTHENTICATED
    assert code_of(channel, metadata=(("authorization", "Basic !!"),)) is UNAUTHENTICATED


def test_credentials_are_refused_before_the_message_is_read(launch: Launch) -> None:
    server = launch(door(SenderToken(name="a", token="first")))
    ended = threading.Event()

    def requests() -> Iterator[bytes]:  # of a message that never comes
        ended.wait(20)
        yield b""

    with pytest.raises(grpc.RpcError) as caught:
        server.channel().stream_unary(EXPORT)(requests(), timeout=20)
    ended.set()
    assert caught.value.code() is UNAUTHENTICATED


def test_the_secret_of_a_file_is_read_again(launch: Launch, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first\n")
    known = door(SenderToken(name="a", file=str(path)))
    assert known.credentials is not None
    channel = launch(known).channel()
    assert call(channel, **bearer("first")) == b"taken"
    path.write_text("second\r\n")
    with structlog.testing.capture_logs() as logs:
        known.credentials.look()
        known.credentials.look()
    assert [line["event"] for line in logs] == ["receive.grpc: the secret of a credential was read again"]
    assert call(channel, **bearer("second")) == b"taken"
    assert code_of(channel, **bearer("first")) is UNAUTHENTICATED
    for unusable in ("", "x" * 5000):
        path.write_text(unusable)
        with structlog.testing.capture_logs() as logs:
            known.credentials.look()
            known.credentials.look()
        assert len(logs) == 1
        assert known.credentials.problems
    assert call(channel, **bearer("second")) == b"taken"
    with pytest.raises(StartError, match="holds more than one line"):
        door(SenderToken(name="a", file=str(path)))


def test_requests_in_flight_are_bounded_for_each_credential(launch: Launch) -> None:
    busy = SenderToken(name="busy", token="first", max_in_flight=1)
    server = launch(door(busy, SenderToken(name="other", token="second")))
    channel = server.channel()
    for _ in range(3):  # one after the other
        assert call(channel, **bearer("first")) == b"taken"
    held = threading.Event()

    def requests() -> Iterator[bytes]:  # its message has not come yet
        held.wait(20)
        yield b"late"

    late = channel.stream_unary(EXPORT).future(requests(), timeout=20, **bearer("first"))

    def is_refused() -> bool:
        error = call_error(channel, **bearer("first"))
        if error is not None:
            assert error.code() is UNAVAILABLE
            assert "google.rpc.retryinfo-bin" in {key for key, _ in error.trailing_metadata()}
        return error is not None

    eventually(is_refused)
    assert call(channel, **bearer("second")) == b"taken"
    assert set(server.refused) == {"credential_busy"}
    held.set()
    assert late.result() == b"taken"
    eventually(lambda: not is_refused())


# Both, with what else the port does


def test_probes_need_no_credentials_and_reflection_does(launch: Launch) -> None:
    server = launch(door(SenderToken(name="a", token="first")))
    channel = server.channel()
    probe = channel.unary_unary("/grpc.health.v1.Health/Check")
    assert probe(b"", timeout=20) == b"\x08\x01"
    watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=20)
    assert next(watch) == b"\x08\x01"
    watch.cancel()
    reflect = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
    with pytest.raises(grpc.RpcError) as caught:
        list(reflect(iter([b"\x3a\x00"]), timeout=20))
    assert caught.value.code() is UNAUTHENTICATED
    assert len(list(reflect(iter([b"\x3a\x00"]), timeout=20, **bearer("first")))) == 1
    for method in ("/no.such/Method", EXPORT):
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(method)(b"", timeout=20)
        assert caught.value.code() is UNAUTHENTICATED


@pytest.mark.parametrize("with_tls", [False, True])
def test_over_a_unix_socket(ca: Authority, tmp_path: Path, engine_class: type[GrpcEngine], with_tls: bool) -> None:
    known = door(SenderToken(name="a", token="first")).credentials
    engine = engine_class(
        {EXPORT: lambda _: b"taken"},
        f"unix:{tmp_path}/socket",
        1 << 20,
        lambda _: None,
        door=Door(tls(ca.issue("server")) if with_tls else None, known),
    )
    engine.start()
    try:
        target = f"unix:{tmp_path}/socket"
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.ssl_target_name_override", "localhost")]
        with (
            grpc.secure_channel(target, grpc.ssl_channel_credentials(ca.pem), options)
            if with_tls
            else grpc.insecure_channel(target, options)
        ) as channel:
            assert call(channel, **bearer("first")) == b"taken"
            assert code_of(channel, **bearer("wrong")) is UNAUTHENTICATED
    finally:
        engine.stop()
