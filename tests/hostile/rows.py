"""The frame of the attacks: a real proxy, a real back end, a neighbour and a prober, each in a process of its own.

    with Scene(configuration) as scene:
        row = scene.measure(attack)

The neighbour is a well-behaved client that sends 8 spans every 20 ms, whatever has become of the requests before, over
gRPC or, where the attack comes over it, HTTP; the prober asks /healthz every 100 ms. Both measure all the time. An
attack prepares its bytes first; it is measured from its first byte until it has ended, and `AFTER_S` longer, in which
what it has sent is decided and leaves.
"""

from __future__ import annotations

import http.client
import math
import multiprocessing
import re
import select
import struct
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import grpc

from tests.hostile.contents import Run, attribute, request, text
from tests.support.processes import Metrics, Proxy, until
from tests.support.sink import serve

MIB = 1 << 20
SECONDS = 3.0  # of sending
AFTER_S = 2.0
RECOVERY_S = 15.0  # after which it is given up
EVERY_S = 0.02
SPANS = 8
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
SPAWN = multiprocessing.get_context("spawn")

BUFFER, QUEUE = 256 * MIB, 64 * MIB
WAITS = {"decision_wait": "500ms", "decision_wait_after_root": "300ms"}
CALLS = 64 * MIB  # what connections and calls without messages may take
RECEIVED = 256 * MIB  # messages in flight, compressed and not
OTHERS = (64 + 16) * MIB  # decisions remembered (buffer.decision_memory), and caches
KEPT = BUFFER + QUEUE + OTHERS  # what spans may take

CONTENT_P99_S, CONNECTION_P99_S = 0.25, 0.1
HEALTH_S, LOCK_S, NORMAL_S, GIVEN_BACK_S = 0.1, 0.02, 2.0, 10.0


@dataclass(frozen=True)
class Attack:
    """`prepare` makes the bytes, in the attacker's process; `arguments` are its own. `bound`: of the bytes that it can
    have the proxy hold. `configuration` is laid over the one of all scenes."""

    name: str
    prepare: Callable[..., Run]
    arguments: tuple[Any, ...]
    p99_s: float
    bound: int
    configuration: Mapping[str, Any] = field(default_factory=dict)
    backend_limit: int = -1  # bytes of the largest request that the back end takes
    seconds: float = SECONDS
    http: bool = False  # it goes to the HTTP port, and the neighbour does, too


@dataclass(frozen=True)
class Row:
    """What came of an attack. `lock_s`: upper bound of the longest time that a lock was held; nan where not told.
    `normal_s`, `given_back_s`: how long after the attack the last slow call of the neighbour ended, and memory was at
    1.3 times what is counted; inf: not in RECOVERY_S."""

    name: str
    rss_before: int
    rss_peak: int
    rss_bound: int
    p99_s: float
    calls: int
    refused: Mapping[str, int]  # of the neighbour's
    lost: int
    lock_s: float
    health_s: float
    normal_s: float
    given_back_s: float
    answers: Mapping[str, int]  # that the attacker got

    TITLE = "{:44} {:>13} {:>7} {:>8} {:>5} {:>7} {:>7} {:>7} {:>7}  {}".format(
        "attack", "RSS MB", "p99", "refused", "lost", "lock", "health", "normal", "RSS", "answers"
    )

    def __str__(self) -> str:
        answers = ", ".join(f"{name}: {count}" for name, count in self.answers.items())
        rss = f"{self.rss_before / 1e6:.0f} -> {self.rss_peak / 1e6:.0f}"
        return (
            f"{self.name:44} {rss:>13} {_ms(self.p99_s)} {sum(self.refused.values()):8} {self.lost:5} "
            f"{_ms(self.lock_s)} {_ms(self.health_s)} {self.normal_s:6.1f}s {self.given_back_s:6.1f}s  {answers[:100]}"
        )

    def faults(self, attack: Attack) -> list[str]:
        """The goals that it misses."""
        goals = {
            f"RSS <= {self.rss_bound / 1e6:.0f} MB": self.rss_peak <= self.rss_bound,
            f"p99 <= {attack.p99_s} s": self.p99_s <= attack.p99_s,
            f"none refused: {dict(self.refused)}": not self.refused,
            "none lost": not self.lost,
            f"lock <= {LOCK_S} s": not self.lock_s > LOCK_S,
            f"/healthz <= {HEALTH_S} s": self.health_s <= HEALTH_S,
            f"normal within {NORMAL_S} s": self.normal_s <= NORMAL_S,
            f"memory given back within {GIVEN_BACK_S} s": self.given_back_s <= GIVEN_BACK_S,
        }
        return [goal for goal, reached in goals.items() if not reached]


def _ms(seconds: float) -> str:
    return f"{'-':>7}" if math.isnan(seconds) else f"{1000 * seconds:5.0f}ms"


class Helper:
    """A process that calls work(connection, *arguments) until it is told to end; `ask` sends it a question."""

    def __init__(self, work: Callable[..., None], *arguments: object) -> None:
        self._ours, theirs = SPAWN.Pipe()
        self._process = SPAWN.Process(target=_work, args=(work, theirs, *arguments), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, question: object = None, seconds: float = 60) -> Any:
        self.tell(question)
        return self.answer(seconds)

    def tell(self, question: object = None) -> None:
        self._ours.send(question)

    def has_answered(self, seconds: float) -> bool:
        """Wait so long for an answer."""
        return self._ours.poll(seconds)

    def answer(self, seconds: float = 60) -> Any:
        assert self._ours.poll(seconds), "a helper says nothing"
        answer = self._ours.recv()
        if isinstance(answer, str):
            raise AssertionError(answer)
        return answer

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self._ours.close()


def _work(work: Callable[..., None], connection: Connection, *arguments: object) -> None:
    try:
        work(connection, *arguments)
    except EOFError:
        pass
    except BaseException:
        connection.send(traceback.format_exc())


@dataclass
class Call:
    """Of the neighbour or the prober."""

    started: float
    took: float | None = None  # None: not yet
    failed: str = ""


def neighbour(connection: Connection, port: int, admin_port: int, over_http: bool) -> None:
    """Send and probe; answer each question by (calls, probes) since the last one, with those that are under way."""
    calls: list[Call] = []
    probes: list[Call] = []
    threading.Thread(target=_probe, args=(admin_port, probes), daemon=True).start()
    sending = threading.Thread(target=_send, args=(port, calls, over_http), daemon=True)
    sending.start()
    while True:
        connection.recv()
        found = [[Call(call.started, call.took, call.failed) for call in list(each)] for each in (calls, probes)]
        connection.send(found)
        for each, seen in zip((calls, probes), found, strict=True):
            each[: len(seen)] = [call for call, copy in zip(each, seen, strict=False) if copy.took is None]


def _send(port: int, calls: list[Call], over_http: bool) -> None:
    resource = attribute(1, "service.name", text("neighbour"))
    with ExitStack() as stack:
        call_later = _over_http(port) if over_http else _over_grpc(port, stack)
        at = time.monotonic()
        for number in range(10**9):
            spans = []
            for n in range(SPANS):
                span_id = struct.pack(">Q", number * SPANS + n + 1)
                ids = b"\x0a\x10" + b"neighbor" + struct.pack(">Q", number + 1) + b"\x12\x08" + span_id
                name = f"neighbour {number * SPANS + n:09}".encode()
                body = ids + b"\x2a" + bytes([len(name)]) + name
                spans.append(b"\x12" + bytes([len(body)]) + body)
            call = Call(time.monotonic())
            calls.append(call)
            call_later(request(spans, resource), call)
            at += EVERY_S
            time.sleep(max(0, at - time.monotonic()))


def _over_grpc(port: int, stack: ExitStack) -> Callable[[bytes, Call], None]:
    export = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{port}")).unary_unary(EXPORT)

    def call_later(message: bytes, call: Call) -> None:
        future = export.future(message, timeout=60)
        future.add_done_callback(lambda future: _done(future, call))

    return call_later


def _over_http(port: int) -> Callable[[bytes, Call], None]:
    """Connections as they are needed, each used again."""
    free: list[http.client.HTTPConnection] = []
    pool = ThreadPoolExecutor(256)

    def work(message: bytes, call: Call) -> None:
        connection = None
        while connection is None and free:
            connection = free.pop()
            if select.select([connection.sock], [], [], 0)[0]:  # closed meanwhile, as every client looks first
                connection.close()
                connection = None
        if connection is None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("POST", "/v1/traces", message, {"Content-Type": "application/x-protobuf"})
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                call.failed = str(answer.status)
        except (OSError, http.client.HTTPException) as error:
            call.failed = type(error).__name__
            connection.close()
        else:
            free.append(connection)
        call.took = time.monotonic() - call.started

    return lambda message, call: pool.submit(work, message, call) and None


def _done(future: grpc.Future, call: Call) -> None:
    error = future.exception()
    if error is not None:
        call.failed = f"{error.code().name} {error.details()}"
    call.took = time.monotonic() - call.started


def _probe(port: int, probes: list[Call]) -> None:
    at = time.monotonic()
    while True:
        probe = Call(time.monotonic())
        probes.append(probe)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request("GET", "/healthz")
            if connection.getresponse().status != 200:
                probe.failed = "not healthy"
        except OSError as error:
            probe.failed = type(error).__name__
        finally:
            connection.close()
        probe.took = time.monotonic() - probe.started
        at = max(at + 0.1, probe.started)
        time.sleep(max(0, at - time.monotonic()))


def backend(connection: Connection, limit: int) -> None:
    """Take what comes; answer each question by the number of the neighbour's spans taken so far."""
    taken: set[bytes] = set()
    pattern = re.compile(rb"neighbour \d{9}")

    def export(data: bytes, _: grpc.ServicerContext) -> bytes:
        taken.update(pattern.findall(data))
        return b""

    _, port = serve(export, max_receive_bytes=limit)
    connection.send(port)
    while True:
        connection.recv()
        connection.send(len(taken))


def attacker(connection: Connection, attack: Attack) -> None:
    """Prepare; then attack the port that is told, once."""
    run = attack.prepare(*attack.arguments)
    connection.send(True)
    port, seconds = connection.recv()
    begun = time.monotonic()
    answers = run(port, begun + seconds)
    connection.send((begun, time.monotonic(), answers))


class Scene:
    """One proxy with all that stands around it. Attacks follow one another."""

    def __init__(
        self, folder: Path, configuration: Mapping[str, Any], backend_limit: int = -1, http: bool = False
    ) -> None:
        self._helpers: list[Helper] = []
        self._proxy: Proxy | None = None
        self._sent = 0  # spans that the neighbour got an OK for
        try:
            self._backend = self._helper(backend, backend_limit)
            self._proxy = Proxy(_configured(configuration, self._backend.answer()), folder)
            self._port = self._proxy.http_port if http else self._proxy.port
            self._neighbour = self._helper(neighbour, self._port, self.proxy.admin_port, http)
            until(lambda: self._calls() and self._sent > 25 * SPANS)
            self._base = self.proxy.rss_bytes()
        except BaseException:
            self.close()
            raise

    @property
    def proxy(self) -> Proxy:
        assert self._proxy is not None
        return self._proxy

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for helper in self._helpers:
            helper.end()
        if self._proxy is not None:
            self._proxy.kill()

    def measure(self, attack: Attack) -> Row:
        """Attack, and wait until all is as before, for RECOVERY_S at most."""
        attacking = self._helper(attacker, attack)
        attacking.answer(120)
        calls, probes = self._calls()
        calls, probes = [c for c in calls if c.took is None], [p for p in probes if p.took is None]
        before = self._metrics()
        rss_before = rss_peak = self.proxy.rss_bytes()
        attacking.tell((self._port, attack.seconds))
        while not attacking.has_answered(0.02):
            rss_peak = max(rss_peak, self.proxy.rss_bytes())
        begun, end, answers = attacking.answer()
        given_back_at, look_at = math.inf, end
        while True:
            rss_peak = max(rss_peak, self.proxy.rss_bytes())
            more = self._calls()  # what has not been answered comes again
            calls = [c for c in calls if c.took is not None] + more[0]
            probes = [p for p in probes if p.took is not None] + more[1]
            now = time.monotonic()
            if now > look_at:
                look_at = now + 0.3
                given_back_at = min(given_back_at, now) if self._memory_is_given_back() else math.inf
            waits = any(c.took is None and now - c.started > attack.p99_s for c in calls)
            if now > end + AFTER_S and ((given_back_at < math.inf and not waits) or now > end + RECOVERY_S):
                break
            time.sleep(0.05)
        slow = [c for c in calls if c.started >= begun and _took(c, now) > attack.p99_s]
        window = [c for c in calls if begun <= c.started <= end + AFTER_S]
        lost = self._lost()
        attacking.end()
        self._helpers.remove(attacking)
        times = sorted(_took(c, now) for c in window)
        return Row(
            attack.name,
            rss_before,
            rss_peak,
            int((self._base + attack.bound) * 1.15),
            times[len(times) * 99 // 100],
            len(times),
            Counter(c.failed for c in calls if c.failed),
            lost,
            _lock_s(before, self._metrics()),
            max((math.inf if p.failed else _took(p, now) for p in probes if p.started >= begun), default=math.inf),
            max([0.0, *(c.started + _took(c, now) - end for c in slow)]),
            given_back_at - end,
            answers,
        )

    def _helper(self, work: Callable[..., None], *arguments: object) -> Helper:
        self._helpers.append(Helper(work, *arguments))
        return self._helpers[-1]

    def _calls(self) -> tuple[list[Call], list[Call]]:
        calls, probes = self._neighbour.ask()
        self._sent += SPANS * sum(c.took is not None and not c.failed for c in calls)
        return calls, probes

    def _metrics(self) -> Metrics:
        """Scrape, for as long as it takes."""

        def scrape() -> Metrics | None:
            with suppress(OSError):
                return self.proxy.metrics()
            return None

        found = until(scrape, 60, "no /metrics")
        assert found is not None
        return found

    def _memory_is_given_back(self) -> bool:
        """By 1.3 times what is counted now, and what the process had at the beginning."""
        allowed = self._base + OTHERS
        if self.proxy.rss_bytes() > 1.3 * allowed:
            with suppress(OSError):
                metrics = self.proxy.metrics()
                allowed += metrics.total("buffer_bytes") + metrics.total("queue_bytes")
        return self.proxy.rss_bytes() <= 1.3 * allowed

    def _lost(self) -> int:
        """The spans of the neighbour that got an OK and do not arrive."""
        sent = self._sent
        end = time.monotonic() + 10
        while (taken := self._backend.ask()) < sent and time.monotonic() < end:
            time.sleep(0.05)
        return max(0, sent - taken)


def _configured(configuration: Mapping[str, Any], backend_port: int) -> dict[str, Any]:
    """Return the configuration of a scene: its rules behind the one that keeps what the neighbour sends."""
    own = [{"name": "neighbour", "match": '{ resource.service.name = "neighbour" }', "keep": "all"}]
    rules = configuration.get("rules", [{"name": "errors", "match": "{ status = error }", "keep": "all"}])
    return {
        "receive": {"grpc": {"endpoint": "127.0.0.1:0"}},
        "admin": {"endpoint": "127.0.0.1:0"},
        "buffer": {"max_bytes": BUFFER, **WAITS},
        "export": [
            {
                "name": "backend",
                "endpoint": f"http://127.0.0.1:{backend_port}",
                "compression": "none",
                "queue": {"max_bytes": QUEUE},
            }
        ],
        **configuration,
        "rules": [*own, *rules, {"name": "rest", "keep": "none"}],
    }


def _took(call: Call, now: float) -> float:
    return call.took if call.took is not None else now - call.started


def _lock_s(before: Metrics, after: Metrics) -> float:
    """The upper bound of the highest bucket of locks held that grew."""

    def counts(metrics: Metrics) -> dict[float, int]:
        return {float(le): count for le, count in metrics.by("lock_held_seconds_bucket", "le").items()}

    old, new = counts(before), counts(after)
    held, last = math.nan, 0
    for le in sorted(new):
        grown = new[le] - old.get(le, 0)
        if grown > last:
            held, last = le, grown
    return held
