"""The admin port over real HTTP on loopback, on asyncio's loop and on uvloop's."""

from __future__ import annotations

import asyncio
import errno
import gzip
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import pytest
import uvloop
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from sampler_proxy import __version__, metrics
from sampler_proxy.errors import StartError
from sampler_proxy.metrics import Snapshot
from sampler_proxy.operate import http_guard
from sampler_proxy.operate.admin import Admin, Readiness
from sampler_proxy.receive.door import OPEN, Door
from sampler_proxy.settings import Endpoint

RULES = {"version": "0123456789ab", "rules": [{"name": "all", "match": None, "unless": None, "keep": "all"}]}
RATES = {"rules": [], "limit": None}
KNOWN = {bytes(range(16)): {"state": "decided", "rule": "all"}}

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    runner: Run = request.param
    return runner


class Service:
    """What stands behind the port: counts scrapes, and is as ready as a test says."""

    def __init__(self) -> None:
        self.scrapes = 0
        self.failure: Exception | None = None
        self.readiness = Readiness("ready")
        self.broken: str | None = None

    def snapshot(self) -> Snapshot:
        self.scrapes += 1
        if self.failure:
            raise self.failure
        return {
            metrics.SPANS_RECEIVED: {("grpc",): self.scrapes},
            metrics.SPANS_KEPT: {("errors",): self.scrapes},
            metrics.BUFFER_SPANS: {(): 0},
        }

    def admin(self, host: str = "127.0.0.1", port: int = 0, door: Door = OPEN) -> Admin:
        return Admin(
            Endpoint(host, port),
            lambda: self.snapshot,
            lambda: self.readiness,
            lambda: RULES,
            lambda: RATES,
            KNOWN.get,
            dict,
            lambda: self.broken,
            door,
        )


@asynccontextmanager
async def serving(service: Service, host: str = "127.0.0.1", door: Door = OPEN) -> AsyncIterator[aiohttp.ClientSession]:
    admin = service.admin(host, door=door)
    bound, port = await admin.start()
    scheme = "http" if door.tls is None else "https"
    url = f"{scheme}://[{bound}]:{port}" if ":" in bound else f"{scheme}://{bound}:{port}"
    try:
        async with aiohttp.ClientSession(url, auto_decompress=False) as session:
            yield session
    finally:
        await admin.stop()


def test_metrics_in_the_format_asked_for(run: Run) -> None:
    async def main() -> None:
        service = Service()
        async with serving(service) as session:
            for accept, content_type, parse in (
                ("", "text/plain; version=0.0.4; charset=utf-8", parse_text),
                ("text/html, */*;q=0.1", "text/plain; version=0.0.4; charset=utf-8", parse_text),
                ("application/openmetrics-text; version=one", "text/plain; version=0.0.4; charset=utf-8", parse_text),
                (
                    "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1",
                    "application/openmetrics-text; version=1.0.0; charset=utf-8",
                    parse_openmetrics,
                ),
            ):
                async with session.get("/metrics", headers={"Accept": accept, "Accept-Encoding": ""}) as response:
                    assert response.status == 200
                    assert response.headers["Content-Type"].startswith(content_type)
                    families = {family.name: family for family in parse(await response.text())}
                received = families["sampler_proxy_spans_received"].samples[0]
                assert (received.labels, received.value) == ({"transport": "grpc"}, service.scrapes)
                assert len(families) >= len(metrics.METRICS)
                assert "process_open_fds" in families
        assert service.scrapes == 4

    run(main())


def test_metrics_compressed_when_accepted(run: Run) -> None:
    async def main() -> None:
        async with (
            serving(Service()) as session,
            session.get("/metrics", headers={"Accept-Encoding": "gzip"}) as response,
        ):
            assert response.headers["Content-Encoding"] == "gzip"
            assert b"# HELP sampler_proxy_spans_received_total" in gzip.decompress(await response.read())

    run(main())


def test_concurrent_scrapes_are_each_consistent(run: Run) -> None:
    async def main() -> None:
        service = Service()

        async def scrape(session: aiohttp.ClientSession) -> float:
            async with session.get("/metrics", headers={"Accept-Encoding": ""}) as response:
                values = [
                    sample.value
                    for family in parse_text(await response.text())
                    if family.name in ("sampler_proxy_spans_received", "sampler_proxy_spans_kept")
                    for sample in family.samples
                ]
            assert len(values) == 2
            assert values[0] == values[1]
            return values[0]

        async with serving(service) as session:
            seen = await asyncio.gather(*(scrape(session) for _ in range(40)))
        assert sorted(seen) == list(range(1, 41))

    run(main())


def test_health_says_the_version(run: Run) -> None:
    async def main() -> None:
        service = Service()
        service.readiness = Readiness("draining")  # which is not a reason to be restarted
        async with serving(service) as session, session.get("/healthz") as response:
            assert response.status == 200
            assert await response.json() == {"status": "ok", "version": __version__}
            assert response.headers["Server"] == "sampler-proxy"

    run(main())


def test_health_fails_where_nothing_is_received(run: Run) -> None:
    async def main() -> None:
        service = Service()
        async with serving(service) as session:
            for service.broken, status in ((None, 200), ("the thread has ended", 503), (None, 200)):
                async with session.get("/healthz") as response:
                    assert response.status == status
                    expected = {"status": service.broken or "ok", "version": __version__}
                    assert await response.json() == expected

    run(main())


def test_readiness_follows_the_service(run: Run) -> None:
    async def main() -> None:
        service = Service()
        async with serving(service) as session:
            for readiness, status, body in (
                (Readiness("starting"), 503, {"status": "starting"}),
                (Readiness("ready"), 200, {"status": "ready"}),
                (Readiness("ready", {"reload": "refused"}), 200, {"status": "ready", "reload": "refused"}),
                (Readiness("draining", {"spans": 12}), 503, {"status": "draining", "spans": 12}),
            ):
                service.readiness = readiness
                async with session.get("/readyz") as response:
                    assert (response.status, await response.json()) == (status, body)
        assert service.scrapes == 0

    run(main())


def test_the_rules(run: Run) -> None:
    async def main() -> None:
        async with serving(Service()) as session, session.get("/rules") as response:
            assert (response.status, await response.json()) == (200, RULES)

    run(main())


def test_the_rates(run: Run) -> None:
    async def main() -> None:
        async with serving(Service()) as session, session.get("/rates") as response:
            assert (response.status, await response.json()) == (200, RATES)

    run(main())


def test_what_is_known_of_a_trace(run: Run) -> None:
    async def main() -> None:
        async with serving(Service()) as session:
            known, unknown = bytes(range(16)).hex(), bytes(range(1, 17)).hex()
            for trace_id, status in (
                (known, 200),
                (known.upper(), 200),
                (unknown, 404),
                (known[1:], 400),
                (known + "0", 400),
                ("g" + known[1:], 400),
                ("%20" + known[1:], 400),
                (known[:-1] + "%D9%A3", 400),  # a digit, but no hexadecimal one
            ):
                async with session.get(f"/traces/{trace_id}") as response:
                    assert response.status == status
                    body = await response.json()
                    if status == 200:
                        assert body == {"trace_id": known, "state": "decided", "rule": "all"}
                    else:
                        assert "error" in body

    run(main())


def test_anything_else_lists_what_there_is(run: Run) -> None:
    async def main() -> None:
        async with serving(Service()) as session:
            for path in "/", "/metric", "/metrics/", "/%00", "/../etc/passwd":
                async with session.get(path) as response:
                    assert response.status == 404
                    assert (await response.json())["there is"] == [
                        "/metrics",
                        "/healthz",
                        "/readyz",
                        "/rules",
                        "/rates",
                        "/destinations",
                        "/traces/{trace_id}",
                    ]
                    assert response.headers["Server"] == "sampler-proxy"
            async with session.post("/readyz") as response:
                assert response.status == 405
                assert response.headers["Allow"] == "GET,HEAD"

    run(main())


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/rules", "/rates", "/destinations"])
def test_head_is_get_without_the_body(run: Run, path: str) -> None:
    async def main() -> None:
        async with serving(Service()) as session:
            async with session.get(path) as got:
                await got.read()
            async with session.head(path) as head:
                assert await head.read() == b""
                assert (head.status, head.content_type) == (got.status, got.content_type)
                assert int(head.headers["Content-Length"]) > 0

    run(main())


def test_ipv6(run: Run) -> None:
    async def main() -> None:
        async with serving(Service(), "::1") as session, session.get("/healthz") as response:
            assert response.status == 200

    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    run(main())


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_wildcard_is_reached_over_both_families(run: Run, host: str) -> None:
    async def main() -> None:
        admin = Service().admin(host)
        bound, port = await admin.start()
        assert bound == host
        try:
            async with aiohttp.ClientSession() as session:
                for address in ("127.0.0.1", "[::1]"):
                    async with session.get(f"http://{address}:{port}/healthz") as response:
                        assert response.status == 200
            for other in ("0.0.0.0", "::"):
                with pytest.raises(StartError, match=r"Address already in use$"):
                    await Service().admin(other, port).start()
        finally:
            await admin.stop()

    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    run(main())


def test_a_wildcard_where_there_is_no_ipv6(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    create = socket.create_server

    def without_ipv6(address: Any, *, family: int, **options: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return create(address, family=family, **options)

    async def main() -> None:
        async with serving(Service(), "127.0.0.1") as session, session.get("/healthz") as response:
            assert response.status == 200
        admin = Service().admin("0.0.0.0")
        _, port = await admin.start()
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        await admin.stop()

    monkeypatch.setattr(socket, "create_server", without_ipv6)
    run(main())


def test_a_taken_port_is_a_start_error(run: Run) -> None:
    async def main() -> None:
        service = Service()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            admin = service.admin(port=port)
            with pytest.raises(StartError, match=rf"^admin: cannot listen on 127\.0\.0\.1:{port}: .*in use"):
                await admin.start()
            await admin.stop()
        assert await admin.start() == ("127.0.0.1", port)  # nothing was left open
        await admin.stop()

    run(main())


@pytest.mark.parametrize("host", ["192.0.2.1", "x" * 64 + ".invalid"])
def test_an_address_that_is_not_ours_is_a_start_error(run: Run, host: str) -> None:
    async def main() -> None:
        service = Service()
        admin = service.admin(host)
        with pytest.raises(StartError, match=r"^admin: cannot listen on "):
            await admin.start()

    run(main())


def test_stop_closes_idle_connections_and_the_port(run: Run) -> None:
    async def main() -> None:
        service = Service()
        admin = service.admin()
        await admin.stop()  # before it was started: nothing to do
        host, port = await admin.start()
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        async with asyncio.timeout(5):
            await admin.stop()
            await reader.read()  # to the end
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(host, port)
        await admin.stop()

    run(main())


def test_a_failing_scrape_harms_nothing_else_and_is_logged_by_class(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        service = Service()
        service.failure = LookupError("secret")
        async with serving(service) as session:
            async with session.get("/metrics") as response:
                assert response.status == 500
                assert "secret" not in await response.text()
            service.failure = None
            for path in "/healthz", "/metrics":
                async with session.get(path) as response:
                    assert response.status == 200

    run(main())
    assert "LookupError" in caplog.text
    assert "secret" not in caplog.text


def test_bytes_that_are_not_http_are_refused_and_not_logged(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serving(Service()) as session:
            async with session.get("/healthz") as response:
                host, port = response.url.host, response.url.port
            for garbage in b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"GET / HTTP/1.1\r\nsecret\x00: secret\r\n\r\n":
                reader, writer = await asyncio.open_connection(host, port)
                writer.write(garbage)
                async with asyncio.timeout(5):
                    assert (await reader.read()).startswith(b"HTTP/1.0 400 ")
                writer.close()
            async with session.get("/healthz") as response:
                assert response.status == 200

    run(main())
    assert "secret" not in caplog.text


# Who asks, and how long that may take


async def answer(port: int, request: bytes, host: str = "127.0.0.1") -> bytes:
    """Send a request as it is, the last on its connection; return the whole answer."""
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(request)
    async with asyncio.timeout(10):
        whole = await reader.read()
    writer.close()
    return whole


def get(*headers: str, path: str = "/healthz") -> bytes:
    return "\r\n".join((f"GET {path} HTTP/1.1", "Connection: close", *headers, "", "")).encode()


LOCAL, PAGE = "Host: localhost:8888", "Sec-Fetch-Site: cross-site"
STAY = get(LOCAL).replace(b"Connection: close\r\n", b"")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([LOCAL], 200),
        (["Host: 127.0.0.1:8888"], 200),
        (["Host: 10.1.2.3:8888"], 200),  # a probe of Kubernetes, through a mesh
        (["Host: [::1]:8888"], 200),
        (["Host: [fe80::1%25eth0]"], 200),
        (["Host: LocalHost."], 200),
        (["Host: app.localhost:8888"], 200),
        (["Host: sampler-proxy:8888"], 200),
        (["Host: sampler-proxy.observability.svc.cluster.local:8888"], 200),
        (["Host: host.docker.internal:8888"], 200),
        ([f"Host: {socket.gethostname()}:8888"], 200),
        (["Host: evil.example:8888"], 421),
        (["Host: localhost.evil.example"], 421),
        (["Host: 127.0.0.1.evil.example:8888"], 421),
        (["Host: evil.example:8888:8888"], 421),
        ([LOCAL, PAGE, "Sec-Fetch-Mode: no-cors"], 403),
        ([LOCAL, PAGE, "Sec-Fetch-Mode: cors"], 403),
        ([LOCAL, "Sec-Fetch-Site: same-site"], 403),
        ([LOCAL, PAGE, "Sec-Fetch-Mode: navigate"], 200),  # a link
        ([LOCAL, "Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate"], 200),  # written into the address bar
        ([LOCAL, "Sec-Fetch-Site: same-origin"], 200),
        ([LOCAL, "Origin: https://evil.example"], 403),
        ([LOCAL, "Origin: null"], 403),
        ([LOCAL, "Origin: http://localhost:3000"], 403),
        ([LOCAL, "Origin: http://localhost:8888"], 200),
    ],
)
def test_pages_of_other_sites_are_refused(run: Run, headers: list[str], status: int) -> None:
    async def main() -> None:
        service = Service()
        admin = service.admin()
        _, port = await admin.start()
        for path in "/metrics", "/healthz", "/traces/" + "ab" * 16, "/none":
            found = await answer(port, get(*headers, path=path))
            got = int(found.split()[1])
            assert got == (status if status != 200 or path in ("/metrics", "/healthz") else 404), (path, found)
            assert b"evil" not in found
        assert service.scrapes == (status == 200)
        await admin.stop()

    run(main())


def test_a_request_without_a_host_is_no_browsers(run: Run) -> None:
    async def main() -> None:
        admin = Service().admin()
        _, port = await admin.start()
        assert (await answer(port, b"GET /healthz HTTP/1.0\r\n\r\n")).split()[1] == b"200"
        await admin.stop()

    run(main())


def test_the_configured_name_is_known(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def here(host: str, *arguments: Any, **options: Any) -> Any:
        return real("127.0.0.1" if host == "proxy.example.org" else host, *arguments, **options)

    async def main() -> None:
        monkeypatch.setattr(socket, "getaddrinfo", here)
        admin = Service().admin("proxy.example.org")
        _, port = await admin.start()
        assert (await answer(port, get("Host: Proxy.example.org:80"))).split()[1] == b"200"
        assert (await answer(port, get("Host: other.example.org:80"))).split()[1] == b"421"
        await admin.stop()

    run(main())


def test_over_the_network_any_name_is_answered(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(http_guard, "_is_loopback", lambda _: False)
        admin = Service().admin()
        _, port = await admin.start()
        assert (await answer(port, get("Host: proxy.example.org:8888"))).split()[1] == b"200"
        assert (await answer(port, get("Host: evil.example", "Origin: http://other.example"))).split()[1] == b"403"
        await admin.stop()

    run(main())


@pytest.mark.parametrize("before", [b"", STAY], ids=["at first", "after a request"])
@pytest.mark.parametrize("sent", [b"", b"G", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"])
def test_half_a_request_is_waited_for_in_vain(
    run: Run, monkeypatch: pytest.MonkeyPatch, sent: bytes, before: bytes
) -> None:
    monkeypatch.setattr(http_guard, "HEAD_S", 0.2)
    if not sent:
        monkeypatch.setattr(http_guard, "IDLE_S", 0.2)

    async def main() -> None:
        admin = Service().admin()
        _, port = await admin.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        if before:
            writer.write(before)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
            await reader.readuntil(b"}")
        writer.write(sent)
        async with asyncio.timeout(10):
            with suppress(ConnectionError):
                assert await reader.read() == b""
        writer.close()
        assert (await answer(port, get(LOCAL))).split()[1] == b"200"
        await admin.stop()

    run(main())


def test_answers_that_nobody_reads_are_dropped(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_guard, "IDLE_S", 0.5)

    async def main() -> None:
        admin = Service().admin()
        _, port = await admin.start()
        with socket.socket() as stuck:
            stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stuck.connect(("127.0.0.1", port))
            stuck.setblocking(False)
            more = STAY.replace(b"healthz", b"metrics") * 100

            async def send_on() -> None:  # as soon as all is full it waits, until the other side has ended it
                while True:
                    await asyncio.get_running_loop().sock_sendall(stuck, more)

            with pytest.raises(ConnectionError):
                await asyncio.wait_for(send_on(), 30)
        await admin.stop()

    run(main())


def test_connections_that_wait_make_room_for_those_that_ask(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_guard, "MAX_CONNECTIONS", 20)

    async def main() -> None:
        admin = Service().admin()
        _, port = await admin.start()
        slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(100)]
        for _, writer in slow:
            writer.write(b"GET /healthz HTTP/1.1\r\n")
        for _ in range(5):
            assert (await answer(port, get(LOCAL))).split()[1] == b"200"
        ended = 0
        for reader, writer in slow:
            try:
                async with asyncio.timeout(0.05 if ended >= 80 else 10):
                    with suppress(ConnectionError):
                        assert await reader.read() == b""
                    ended += 1
            except TimeoutError:
                pass
            writer.close()
        assert 80 <= ended < 100
        await admin.stop()

    run(main())
