"""Names with several addresses, addresses that come, go and hang: real servers on addresses of loopback."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import time
from contextlib import ExitStack, asynccontextmanager

import grpc
import grpc.aio
import pytest

from sampler_proxy.export import peers
from sampler_proxy.export.exporter import Dependencies
from sampler_proxy.export.otlp import OtlpExporter
from sampler_proxy.export.otlp_grpc import GrpcLink, GrpcTransport
from sampler_proxy.export.proxies import proxy_for, without_credentials
from sampler_proxy.export.reasons import NO_NAME
from sampler_proxy.export.retry import Accepted, Fault
from sampler_proxy.otlp.signals import Signal
from tests.export.support import assemble, counts, offer, running, until
from tests.export.test_otlp_grpc import config, exporting
from tests.support.http2_server import Http2Server


class Name:
    """Back ends behind one name, which may move. `addresses`: last bytes of 127.0.0.x; None: it does not resolve."""

    def __init__(self, monkeypatch):
        monkeypatch.setattr(peers, "resolve", self._resolve)
        monkeypatch.setattr(peers, "RESOLVE_EVERY_S", 0.3)
        monkeypatch.setattr(peers, "RESOLVE_AGAIN_S", 0.1)
        monkeypatch.setattr(peers, "REST_NS", (10**8, 10**9))
        self.addresses = None
        self.asked = 0
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    async def _resolve(self, _host, _port):
        self.asked += 1
        if self.addresses is None:
            raise socket.gaierror("no such name")
        return [f"127.0.0.{last}" for last in self.addresses]

    def config(self, **settings):
        made = config(self.port, batch_bytes=1, **settings)
        return made.model_copy(update={"endpoint": f"http://tempo.example:{self.port}"})


@pytest.fixture
def name(monkeypatch):
    return Name(monkeypatch)


def test_three_addresses_are_used_in_turn(run, backend, name):
    servers = [backend(port=name.port, host=f"127.0.0.{last}") for last in (1, 2, 3)]
    name.addresses = [1, 2, 3]

    async def scenario():
        async with exporting(name.config()) as exporter:
            offer(exporter, range(1, 301))
            await until(lambda: exporter.queue.empty)
            assert counts(exporter) == (600, 0, {})

    run(scenario())
    assert min(len(server.seen) for server in servers) > 50


def test_new_addresses_are_taken_up_and_old_ones_left(run, backend, name):
    one, two = (backend(port=name.port, host=f"127.0.0.{last}") for last in (1, 2))
    name.addresses = [1]

    async def scenario():
        async with exporting(name.config()) as exporter:
            offer(exporter, range(1, 11))
            await until(lambda: exporter.queue.empty)
            name.addresses = [2]  # while the first still works
            await until(lambda: [peer.address for peer in exporter.transport._peers._peers] == ["127.0.0.2"])
            offer(exporter, range(11, 21))
            await until(lambda: exporter.queue.empty)
            assert exporter.failed_tries == 0

    run(scenario())
    assert [len(one.seen), len(two.seen)] == [10, 10]


def test_a_back_end_that_moves_is_found_again(run, backend, name):
    one = backend(port=name.port, host="127.0.0.1")
    name.addresses = [1]

    async def scenario():
        async with exporting(name.config()) as exporter:
            offer(exporter, [1])
            await until(lambda: exporter.queue.empty)
            await asyncio.to_thread(one.stop)
            offer(exporter, [2])
            await until(lambda: exporter.failed_tries)
            name.addresses = [2]
            two = backend(port=name.port, host="127.0.0.2")
            await until(lambda: exporter.queue.empty)
            return two

    assert run(scenario()).stored == {2: 2}


def test_a_name_that_does_not_resolve_yet(run, backend, name, caplog):
    backend(port=name.port, host="127.0.0.1")

    async def scenario():
        async with exporting(name.config()) as exporter:
            offer(exporter, [1])
            await until(lambda: exporter.failed_tries)
            name.addresses = [1]
            await until(lambda: exporter.queue.empty)
            name.addresses = None  # what is known stays
            asked = name.asked
            await until(lambda: name.asked >= asked + 2)  # the first answer has been dealt with
            offer(exporter, [2])
            await until(lambda: exporter.queue.empty)

    run(scenario())
    assert "the name does not resolve" in caplog.text


class HeldCalls:
    """Channels without a network; `answers` by target: coroutine functions."""

    def __init__(self, answers):
        self.answers = answers
        self.opened = []
        self.called = []
        self.timeouts = []

    def __call__(self, target):
        self.opened.append(target)
        return GrpcLink(HeldChannel(self, target))


class HeldChannel:
    def __init__(self, held, target):
        self.held, self.target = held, target
        self.closing = False

    def unary_unary(self, _method):
        async def call(_request, *, timeout, **_kwargs):
            self.held.called.append(self.target)
            self.held.timeouts.append(timeout)
            if self.closing:
                raise grpc.aio.UsageError("Channel is closing.")
            return await self.held.answers[self.target]()

        return call

    def get_state(self, **_kwargs):
        return grpc.ChannelConnectivity.READY

    async def close(self, _grace=None):
        self.closing = True


def unreachable():
    none = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, none, none, "failed to connect to all addresses")


@pytest.fixture
def sender(name):
    """A transport that is not started, with its peers over HeldCalls."""

    def make(answers, addresses, **settings):
        name.addresses = addresses
        dependencies = Dependencies(assemble, time.monotonic_ns, random.random, lambda _seconds: None, {})
        transport = GrpcTransport(name.config(**settings), dependencies)
        held = HeldCalls({f"127.0.0.{last}": answer for last, answer in answers.items()})
        transport._peers = peers.Peers("tempo.example", name.port, held, time.monotonic_ns, linger_s=0)
        return transport, held

    return make


def test_addresses_that_change_during_a_try_are_skipped(run, name, sender):
    """The first one cannot be reached; meanwhile the name has moved away from all of them."""

    async def moves():
        name.addresses = [3]
        await transport._peers.refresh()
        await asyncio.sleep(0)  # closing
        raise unreachable()

    transport, held = sender({1: moves, 2: moves, 3: None}, [1, 2])

    async def scenario():
        outcome = await transport.send(Signal.TRACES, b"")
        assert (outcome.fault, outcome.code) == (Fault.UNREACHABLE, "UNAVAILABLE")

    run(scenario())
    assert len(held.called) == 1


def test_a_channel_that_closes_before_its_call_begins_is_passed_over(run, sender):
    async def closed():
        raise grpc.aio.UsageError("Channel is closed.")

    async def works():
        return b""

    async def scenario():
        transport, held = sender({1: closed, 2: works}, [1, 2])
        assert [await transport.send(Signal.TRACES, b""), await transport.send(Signal.TRACES, b"")] == [
            Accepted(0),
            Accepted(0),
        ]
        assert len(held.called) == 3
        transport, _ = sender({1: closed, 2: closed}, [1, 2])
        assert (await transport.send(Signal.TRACES, b"")).fault is Fault.UNREACHABLE

    run(scenario())


def test_a_closed_channel_cancels_calls_and_not_their_tasks(run, name):
    """A real channel, closed with a grace that is over before the call is."""

    async def scenario():
        with Http2Server(lambda _call: None, host="127.0.0.1", port=name.port) as server:
            name.addresses = [1]
            async with exporting(name.config()) as exporter:
                sending = asyncio.create_task(exporter.transport.send(Signal.TRACES, b""))
                await until(lambda: server.calls)
                await exporter.transport._peers._peers[0].link.close(0.01)
                outcome = await sending
                assert (outcome.fault, outcome.code) == (Fault.LOST, "CANCELLED")

    run(scenario())


def test_a_task_that_is_cancelled_ends(run, sender):
    async def scenario():
        transport, held = sender({1: asyncio.Event().wait}, [1])
        sending = asyncio.create_task(transport.send(Signal.TRACES, b""))
        await until(lambda: held.called)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending

    run(scenario())


def test_time_outs_of_old_calls_do_not_count_against_a_fresh_channel(run, sender, name):
    async def scenario():
        transport, held = sender({}, [1])
        (peer,) = await transport._peers.candidates()
        old = peer.link
        for _ in range(10):
            transport._peers.failed(peer, old, timeout=True)
        assert len(held.opened) == 2  # connected anew once
        assert (peer.failures, peer.timeouts) == (1, 0)
        transport._peers.answered(peer, old)
        assert peer.failures == 1
        transport._peers.answered(peer, peer.link)
        assert peer.failures == 0

        name.addresses = [2]
        await transport._peers.refresh()
        assert len(held.opened) == 3
        for _ in range(10):
            transport._peers.failed(peer, peer.link, timeout=True)
        assert len(held.opened) == 3  # none for an address that is gone

    run(scenario())


def test_one_deadline_for_all_addresses(run, sender):
    """Seconds of a clock that only the calls move on."""
    now = [0]

    async def slow():
        now[0] += 4 * 10**9
        raise unreachable()

    async def scenario():
        transport, held = sender(dict.fromkeys((1, 2, 3, 4), slow), [1, 2, 3, 4], timeout_ns=10 * 10**9)
        transport._clock = lambda: now[0]
        assert (await transport.send(Signal.TRACES, b"")).fault is Fault.UNREACHABLE
        assert held.timeouts == pytest.approx([10, 6, 2])

    run(scenario())


def test_a_time_out_in_what_others_left_is_held_against_nobody(run, sender):
    now = [0]
    none = grpc.aio.Metadata()

    async def slow():
        now[0] += 8 * 10**9
        raise unreachable()

    async def times_out():
        raise grpc.aio.AioRpcError(grpc.StatusCode.DEADLINE_EXCEEDED, none, none, "Deadline Exceeded")

    async def scenario():
        transport, held = sender({1: times_out, 2: slow}, [1, 2], timeout_ns=10 * 10**9)
        transport._clock = lambda: now[0]
        assert (await transport.send(Signal.TRACES, b"")).fault is Fault.TIMEOUT
        assert held.timeouts == pytest.approx([10, 2])
        assert [peer.timeouts for peer in transport._peers._peers] == [0, 0]
        assert [peer.failures for peer in transport._peers._peers] == [0, 1]
        now[0] += 10**12
        transport._peers._turn = 1
        await transport.send(Signal.TRACES, b"")
        assert [peer.timeouts for peer in transport._peers._peers] == [1, 0]

    run(scenario())


def test_resolving_is_shared_and_bounded_by_the_time_out(run, sender, monkeypatch):
    async def scenario():
        release, asked = asyncio.Event(), []

        async def resolve(_host, port):
            asked.append(port)
            await release.wait()
            return ["127.0.0.1"]

        monkeypatch.setattr(peers, "resolve", resolve)

        async def works():
            return b""

        transport, held = sender({1: works}, None, timeout_ns=100_000_000)
        outcomes = await asyncio.gather(*(transport.send(Signal.TRACES, b"") for _ in range(8)))
        assert {(outcome.fault, outcome.why) for outcome in outcomes} == {(Fault.UNREACHABLE, NO_NAME)}
        sending = [asyncio.create_task(transport.send(Signal.TRACES, b"")) for _ in range(8)]
        await asyncio.sleep(0)
        sending[0].cancel()  # ends it for none of the others
        release.set()
        outcomes = await asyncio.gather(*sending, return_exceptions=True)
        assert isinstance(outcomes[0], asyncio.CancelledError)
        assert outcomes[1:] == [Accepted(0)] * 7
        assert (len(asked), len(held.opened)) == (1, 1)

    run(scenario())


def test_closing_ends_resolving(run, sender, monkeypatch):
    async def scenario():
        asked = []

        async def resolve(_host, _port):
            asked.append(1)
            await asyncio.Event().wait()

        monkeypatch.setattr(peers, "resolve", resolve)
        transport, held = sender({}, None)
        refreshing = asyncio.create_task(transport._peers.refresh())
        await until(lambda: asked)
        await transport._peers.close()
        with pytest.raises(asyncio.CancelledError):
            await refreshing
        assert held.opened == []

    run(scenario())


def test_an_address_where_nothing_listens_costs_no_try(run, backend, name):
    backend(port=name.port, host="127.0.0.2")
    name.addresses = [1, 2, 3]

    async def scenario():
        async with exporting(name.config()) as exporter:
            offer(exporter, range(1, 101))
            await until(lambda: exporter.queue.empty)
            assert (counts(exporter), exporter.failed_tries) == ((200, 0, {}), 0)

    run(scenario())


def test_a_back_end_that_hangs_is_left(run, backend, name):
    """Its kernel acknowledges all, and it answers nothing; nor does it on a new connection."""
    name.addresses = [1, 2]
    accepted = []

    def hang(_call):
        accepted.append(time.monotonic())

    with ExitStack() as stack:
        stack.enter_context(Http2Server(hang, host="127.0.0.1", port=name.port))
        working = backend(port=name.port, host="127.0.0.2")

        async def scenario():
            async with exporting(name.config(timeout_ns=200_000_000, concurrency=4)) as exporter:
                for first in range(1, 400, 20):
                    offer(exporter, range(first, first + 20), spans=1)
                    await until(lambda: exporter.queue.counters().queued_spans < 20)
                await until(lambda: exporter.queue.empty)
                assert counts(exporter) == (400, 0, {})

        run(scenario())
    assert len(working.stored) == 400
    assert 0 < len(accepted) < 200  # in turn it would be 400


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_names_and_addresses_as_they_are_written(run, backend, host):
    server = backend(host=host)

    async def scenario():
        made = config(server.port).model_copy(update={"endpoint": f"http://{host}:{server.port}"})
        async with exporting(made) as exporter:
            offer(exporter, [1])
            await until(lambda: exporter.queue.empty)
            assert exporter.failed_tries == 0

    if host == "[::1]" and not server.port:
        pytest.skip("this machine has no IPv6")
    run(scenario())
    assert server.stored == {1: 2}


class ConnectProxy:
    """An HTTP proxy that knows CONNECT only."""

    def __init__(self):
        self.asked = []

    async def start(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    async def _serve(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(head.split()[1])
        port = int(self.asked[-1].rpartition(":")[2])
        back_reader, back_writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

        async def copy(source, sink):
            while data := await source.read(65536):
                sink.write(data)
            sink.close()

        await asyncio.gather(copy(reader, back_writer), copy(back_reader, writer), return_exceptions=True)


@asynccontextmanager
async def exporting_in(environ, settings):
    dependencies = Dependencies(assemble, time.monotonic_ns, random.random, lambda _seconds: None, environ)
    async with running(OtlpExporter(settings, dependencies)) as exporter:
        yield exporter


@pytest.mark.parametrize("no_proxy", ["", "tempo.example", ".example", "*", "other.example,tempo.example:{port}"])
def test_a_proxy_of_the_environment(run, backend, name, caplog, no_proxy):
    caplog.set_level(logging.INFO, "sampler_proxy")
    server = backend(port=name.port, host="127.0.0.1")
    name.addresses = [1]

    async def scenario():
        proxy = ConnectProxy()
        await proxy.start()
        environ = {
            "HTTPS_PROXY": f"http://user:s3cret@127.0.0.1:{proxy.port}",
            "NO_PROXY": no_proxy.format(port=name.port),
        }
        async with exporting_in(environ, name.config()) as exporter:
            offer(exporter, [1])
            await until(lambda: exporter.queue.empty)
        proxy.server.close()
        return proxy.asked

    asked = run(scenario())
    assert server.stored == {1: 2}
    assert asked == ([] if no_proxy else [f"tempo.example:{name.port}"])
    assert ("is reached through the HTTP proxy 127.0.0.1:" in caplog.text) is not bool(no_proxy)
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize(
    ("host", "no_proxy"),
    [
        ("tempo.example.com", ""),
        ("tempo.example.com", "le.com"),
        ("badexample.com", "example.com,.example.com,*.example.com"),
        ("tempo.example.com", "example.com:1"),
        ("tempo.example.com", "10.0.0.0/8 other.com"),
        ("tempo.example.com", "tempo"),
        ("11.1.2.3", "10.0.0.0/8"),
        ("10.1.2.3", "10.1.2.30,10.1.2"),
        ("fe00::1", "fd00::/8"),
        ("10.1.2.3", "1.2.3"),
        ("10.1.2.3", "2.3"),
    ],
)
def test_the_library_agrees_on_who_goes_through_a_proxy(run, monkeypatch, host, no_proxy):
    """It reads `no_proxy` by itself where it is given a proxy: the proxy is asked whenever the log says that it is."""

    async def scenario():
        proxy = ConnectProxy()
        await proxy.start()
        environ = {"http_proxy": f"http://127.0.0.1:{proxy.port}", "no_proxy": no_proxy}
        for key, value in environ.items():
            monkeypatch.setenv(key, value)
        named = proxy_for(host, 4317, environ)
        authority = f"[{host}]:4317" if ":" in host else f"{host}:4317"
        if named is None:  # then it is not given one
            assert host == "10.1.2.3"
        else:
            settings = config(1).model_copy(update={"endpoint": f"http://{authority}"})
            async with exporting_in(environ, settings) as exporter:
                offer(exporter, [1])
                await until(lambda: proxy.asked)
            assert proxy.asked[0] == authority
        proxy.server.close()

    run(scenario())


@pytest.mark.parametrize("proxy", ["https://127.0.0.1:1", "socks5://user:s3cret@127.0.0.1:1", "http://"])
def test_a_proxy_that_the_library_passes_by_is_told(run, backend, caplog, proxy):
    server = backend()

    async def scenario():
        async with exporting_in({"http_proxy": proxy}, config(server.port)) as exporter:
            offer(exporter, [1])
            await until(lambda: exporter.queue.empty)

    run(scenario())
    assert "is reached without the proxy of the environment, " in caplog.text
    assert "through the HTTP proxy" not in caplog.text
    assert "s3cret" not in caplog.text


def test_the_environment_of_the_library_is_not_asked(run, backend, monkeypatch):
    """gRPC reads the variables by itself, and `NO_PROXY` it does not know."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    server = backend()

    async def scenario():
        async with exporting(config(server.port)) as exporter:
            offer(exporter, [1])
            await until(lambda: exporter.queue.empty)
            assert exporter.failed_tries == 0

    run(scenario())


P = "http://proxy:3128"


@pytest.mark.parametrize(
    ("host", "environ", "expected"),
    [
        ("tempo", {}, None),
        ("tempo", {"http_proxy": P}, P),
        ("tempo", {"HTTP_PROXY": P}, P),
        ("tempo", {"https_proxy": P, "http_proxy": "http://other:1"}, P),
        ("tempo", {"grpc_proxy": P, "https_proxy": "http://other:1"}, P),
        ("tempo", {"http_proxy": "proxy:3128"}, P),
        ("tempo", {"http_proxy": ""}, None),
        ("tempo", {"http_proxy": P, "no_proxy": ""}, P),
        ("tempo", {"http_proxy": P, "no_proxy": "*"}, None),
        ("tempo", {"http_proxy": P, "no_proxy": "tempo"}, None),
        ("TEMPO", {"http_proxy": P, "no_proxy": "tempo"}, None),
        ("tempo.", {"http_proxy": P, "no_proxy": "tempo"}, None),
        ("tempo", {"http_proxy": P, "NO_PROXY": "other, Tempo ,more"}, None),
        ("tempo", {"http_proxy": P, "NO_PROXY": "other tempo"}, None),
        ("tempo", {"http_proxy": P, "no_grpc_proxy": "other", "no_proxy": "tempo"}, P),
        ("tempo.svc.local", {"http_proxy": P, "no_proxy": "svc.local"}, None),
        ("tempo.svc.local", {"http_proxy": P, "no_proxy": ".svc.local"}, None),
        ("tempo.svc.local", {"http_proxy": P, "no_proxy": "*.svc.local"}, None),
        ("svc.local", {"http_proxy": P, "no_proxy": ".svc.local"}, None),
        ("temposvc.local", {"http_proxy": P, "no_proxy": "svc.local"}, P),
        ("tempo", {"http_proxy": P, "no_proxy": "tempo:4317"}, None),
        ("tempo", {"http_proxy": P, "no_proxy": "tempo:4318"}, P),
        ("tempo", {"http_proxy": P, "no_proxy": ".:4317"}, P),
        ("10.1.2.3", {"http_proxy": P, "no_proxy": "10.0.0.0/8"}, None),
        ("11.1.2.3", {"http_proxy": P, "no_proxy": "10.0.0.0/8"}, P),
        ("10.1.2.3", {"http_proxy": P, "no_proxy": "10.1.2.3"}, None),
        ("10.1.2.3", {"http_proxy": P, "no_proxy": "10.1.2.3:4317"}, None),
        ("10.1.2.3", {"http_proxy": P, "no_proxy": "10.0.0.1/8"}, None),
        ("tempo", {"http_proxy": P, "no_proxy": "10.0.0.0/8"}, P),
        ("fd00::1", {"http_proxy": P, "no_proxy": "fd00::/8"}, None),
        ("fd00::1", {"http_proxy": P, "no_proxy": "[fd00::1]:4317"}, None),
        ("fe00::1", {"http_proxy": P, "no_proxy": "fd00::/8"}, P),
    ],
)
def test_who_goes_through_a_proxy(host, environ, expected):
    assert proxy_for(host, 4317, environ) == expected


@pytest.mark.parametrize(
    ("proxy", "shown"),
    [
        (P, "proxy:3128"),
        ("proxy:3128", "proxy:3128"),
        ("http://proxy", "proxy"),
        ("http://proxy:1/", "proxy:1"),
        ("http://[fd00::1]:3128", "[fd00::1]:3128"),
        ("http://user:secret@proxy:1", "proxy:1"),
        ("http://user:secret@[::1]:1/", "[::1]:1"),
        ("user:secret@proxy:1", "proxy:1"),
        ("http://u:p@secret@proxy", "proxy"),
        ("http://u:p@@secret@@proxy:1", "proxy:1"),
        ("http://u:pa/secret@proxy", "proxy"),
        ("http://u:pa//secret@proxy:1/", "proxy:1"),
        ("http://u:pa?secret@proxy", "proxy"),
        ("http://u:pa#secret@proxy", "proxy"),
        ("http://u:pa://secret@proxy", "proxy"),
        ("http://u:p%40secret@proxy", "proxy"),
        ("http://secret@proxy", "proxy"),
        ("http://u:secret", "(not HOST:PORT)"),
        ("http://u:p%40secret", "(not HOST:PORT)"),
        ("http://u:secret%40proxy:1", "(not HOST:PORT)"),
        ("http://proxy:1/secret", "(not HOST:PORT)"),
        ("http://proxy:1?key=secret", "(not HOST:PORT)"),
        ("http://u:p@proxy:1\nsecret", "(not HOST:PORT)"),
        ("http://u:secret@", "(not HOST:PORT)"),
        ("", "(not HOST:PORT)"),
    ],
)
def test_a_proxy_as_the_log_shows_it(proxy, shown):
    assert without_credentials(proxy) == shown
    assert "secret" not in shown
