"""The whole flow without I/O: requests in, kept traces out, every span counted.

    received = sampled out + buffered + kept

holds at every moment at which the lock is free. Times are `now_ns`, monotonic nanoseconds; one that goes back counts as
the latest seen. Everything may be called from any thread; one lock guards it, and no call holds it for long.
"""

import threading
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from sampler_proxy.metrics import HistogramValue, Metric
from sampler_proxy.otlp.fragments import Envelopes, KeptTrace
from sampler_proxy.pipeline.buffer import Buffer
from sampler_proxy.pipeline.decisions import Decisions
from sampler_proxy.pipeline.id_randomness import Uniformity
from sampler_proxy.pipeline.limit import Limit
from sampler_proxy.redact.policy import Observer, Policy
from sampler_proxy.rules.rule_set import Keep, RuleSet
from sampler_proxy.traceql.compiler import Compiled

Rules = tuple[Sequence[str], Sequence[float | Keep], Compiled]
"""The names of the rules, how much each keeps, and what they ask: as a RuleSet has them."""

REASONS: tuple[str, ...]
"""What triggered a decision: root, wait, size, early, memory, shutdown."""

class Destination(Protocol):
    def offer(self, trace: KeptTrace, /) -> bool:
        """Take it, or answer False: no room. Called with the lock held, so it must be short and must not raise. What
        was refused is offered again, in order, at the next tick or when room is needed."""

class Pipeline:
    def __init__(
        self,
        *,
        rules: Rules,
        destinations: Iterable[Destination],
        max_bytes: int,
        max_trace_bytes: int,
        wait_ns: int,
        wait_after_root_ns: int,
        decision_memory_bytes: int,
        stamp_decision: bool,
        stamp_adjusted_count: bool,
        seed: int,
        limit: tuple[float, str, float] | None = None,
        redact: Policy | None = None,
    ) -> None:
        """Every kept trace goes to every destination. `max_bytes`: of the buffer and of what has been kept and cannot
        leave; while nothing can leave it may be exceeded by a sixteenth, by which finished traces are larger than they
        were. A trace that reaches `max_trace_bytes` is decided at once. `seed`: 64 bits that senders cannot know.
        `limit`: what a `Limit` is made of; what the rules keep then waits, in the buffer, for the end of its window.

        Raises ValueError for rules that do not fit together (`RuleSet`), MemoryError.
        """
    @property
    def lock(self) -> threading.Lock: ...
    @property
    def rules(self) -> RuleSet: ...
    @property
    def envelopes(self) -> Envelopes: ...
    @property
    def buffer(self) -> Buffer: ...
    @property
    def decisions(self) -> Decisions: ...
    @property
    def limit(self) -> Limit | None: ...
    @property
    def uniformity(self) -> Uniformity:
        """Of the ids of decided traces that came without `rv` and without `th`."""
    @property
    def waits(self) -> bool:
        """Nothing is left to decide or to send, save what waits for the end of the limit's window."""
    @property
    def max_bytes(self) -> int: ...
    @property
    def max_trace_bytes(self) -> int: ...
    def replace_rules(self, rules: Rules) -> None:
        """Decide by these from now on, the traces that are buffered included: fragments that were scanned for other
        rules are read again. Counters go on under the rules' names. Raises ValueError, and has then changed nothing."""
    def replace_limit(self, limit: tuple[float, str, float] | None) -> None:
        """What waits for the end of a window is judged by the new limit; without one, it leaves then."""
    def replace_redaction(self, policy: Policy | None, observer: Observer | None = None) -> None:
        """Redact what is kept from now on by this policy; None: not at all. `observer` is told of each redaction, under
        the lock. Raises MemoryError, and has then changed nothing."""
    def find(self, trace_id: bytes, now_ns: int) -> dict[str, Any] | None:
        """What is known of a trace (16 bytes): `state` is "buffered" (with spans, fragments, bytes, age_seconds,
        root_seen, chosen: its rule keeps it, and it waits for the limit) or "decided" (with rule, keep, reason,
        threshold, incomplete, limited: the limit dropped what the rule would have kept, ago_seconds). None: unknown, or
        forgotten."""
    def entrance(self, transport: str) -> Entrance:
        """A way in for one thread. `transport` is a label of metrics: "grpc"."""
    def ledger_id(self, name: str) -> int:
        """The number under which the counters know a rule; the same name has the same number for ever."""
    def count_refused(self, transport: str, reason: str) -> None:
        """A request that was refused before it came here."""
    def tick(self, now_ns: int, slice: int = 256) -> bool:
        """Offer again what destinations refused, then decide what is due, at most `slice` traces. True: there may be
        more to do right now. While what is kept cannot leave and memory is full, what is due waits."""
    def close(self) -> None:
        """Refuse every request from now on (Draining)."""
    def drain(self, now_ns: int, slice: int = 256, *, hurry: bool = False) -> bool:
        """Decide whatever is buffered, by the rules, reason shutdown; at most `slice` traces. True: something is left,
        undecided, refused by a destination, or waiting for the limit; `hurry`: what waits has to compete now."""
    def snapshot(self, now_ns: int) -> dict[Metric, dict[tuple[str, ...], float | HistogramValue]]:
        """All values at one instant; the caller holds the lock and owns the result."""

class Entrance:
    """Requests of one transport, on one thread: it has a scanner of its own, which works outside the lock."""

    def __init__(self, pipeline: Pipeline, transport: str) -> None: ...
    def accept(self, request: bytes, now_ns: int) -> bytes:
        """Take a whole request, and answer with an encoded ExportTraceServiceResponse: b"", or a partial_success where
        spans without valid ids were rejected alone. Returns when the spans are in the buffer, or decided.

        Late spans (their trace has been decided) follow the decision at once, with the same threshold, rule and reason;
        the randomness that an incoming `th` is held against is that of the late spans themselves, since it is not
        remembered. A forgotten trace starts anew.

        Raises, and has then taken nothing and counted the refusal: MalformedRequest; RequestTooLarge where even the
        empty buffer would have no room; Overloaded where the oldest traces were decided early (reason memory, at most
        1024 a request) and still there is no room; Draining after close().
        """
