"""Runs the whole flow without I/O: requests in, kept traces out, every span counted.

    received = sampled out + buffered + kept

holds at every moment at which the lock is free. Times are `now_ns`, monotonic nanoseconds; one that goes back counts as
the latest seen. Every method may be called from any thread; each takes the one lock itself, unless it says otherwise,
and holds it for a bounded slice of work. An `Intake` belongs to one thread.

A trace that is decided to be kept is finished (redacted, stamped, offered to the destinations) by `tick`, `finish` or
`drain`, or by `Intake.accept` where room is needed; until then it counts as buffered. The same
holds for one that was sampled out, where a destination takes such ones.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from sampler_proxy.metrics import HistogramValue, Metric
from sampler_proxy.otlp.fragments import Envelopes, KeptTrace
from sampler_proxy.pipeline.buffer import Buffer
from sampler_proxy.pipeline.decisions import Decisions
from sampler_proxy.pipeline.id_randomness import Uniformity
from sampler_proxy.pipeline.limit import Limit
from sampler_proxy.pipeline.turn_lock import TurnLock
from sampler_proxy.redact.policy import Observer, Policy
from sampler_proxy.rules.rule_set import Keep, RuleSet
from sampler_proxy.traceql.compiler import Compiled

Rules = tuple[Sequence[str], Sequence[float | Keep], Compiled]
"""Names of the rules, how much each keeps, and the compiled expressions: the arguments of a RuleSet."""

REASONS: tuple[str, ...]
"""What triggered a decision: root, wait, size, early, memory, shutdown."""

Routes = Mapping[str, Sequence[int]]
"""Of rules, by name: the numbers of the destinations that their kept traces go to."""

class Destination(Protocol):
    """A receiver of kept traces, such as an exporter's queue."""

    def offer(self, trace: KeptTrace, /) -> bool:
        """Take a trace, or answer False where there is no room. Called with the lock held, so it must be short, and
        raise nothing but MemoryError, where it has not taken the trace. A refused trace is offered again, in order, at
        the next tick or when room is needed."""

class Pipeline:
    """Buffers, decides, limits and finishes traces, and hands them to destinations."""

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
        local_roots: bool = True,
        limit: tuple[float, str, float] | None = None,
        redact: Policy | None = None,
        routes: Routes | None = None,
        archives: Sequence[int] = (),
    ) -> None:
        """Create an empty pipeline. `routes`: where the kept traces of some rules go; those of all others go to every
        destination. `archives`: the numbers of the destinations that take traces which were sampled out, too; such
        a trace is finished and delivered as a kept one is, with an attribute that tells them apart.

        `max_bytes` bounds the buffer and the kept traces that cannot leave; it may be exceeded by one finished trace,
        which is larger than it was, and by tables that grow. A trace that reaches `max_trace_bytes` is
        decided at once. `wait_ns`, `wait_after_root_ns`: as `Buffer` has them; `decision_memory_bytes`: as `Decisions`
        has it. `stamp_decision`, `stamp_adjusted_count`: the attributes that `stamp.pyi` names. `seed`: 64 bits that
        senders cannot know. `local_roots`: as `Scanner` has it. `limit`: the arguments of a `Limit`; traces that the
        rules keep then wait, in the buffer, for the end of its window.

        Raises ValueError for rules that do not fit together (`RuleSet`), MemoryError.
        """
    @property
    def lock(self) -> TurnLock:
        """The lock of what is decided. Not reentrant: its holder may only read properties and call `instant` and
        `in_backlog`."""
    @property
    def rules(self) -> RuleSet: ...
    @property
    def envelopes(self) -> Envelopes: ...
    @property
    def buffer(self) -> Buffer: ...
    @property
    def decisions(self) -> Decisions: ...
    @property
    def limit(self) -> Limit | None:
        """The limit; None: no limit is set, and no trace waits for one that was."""
    @property
    def uniformity(self) -> Uniformity:
        """Test of the ids of decided traces that came without `rv` and without `th`."""
    @property
    def only_limit_left(self) -> bool:
        """Tell whether nothing is left to decide or to send, save traces that wait for the end of the limit's
        window."""
    @property
    def nbytes(self) -> int:
        """The bytes that `max_bytes` bounds: the buffer's, those of requests that are being filed, those of kept traces
        that have not left, the limit's."""
    def peak_bytes(self) -> int:
        """Return the most that `nbytes` has been since this was asked last, or would have been with a request for which
        there was no room: it may have been there for a moment only."""
    @property
    def max_bytes(self) -> int:
        """The bound in force: the configured one, or a lower one where the system had no memory for it. Then it is four
        fifths of what was in use, 16 MiB at least, and stays so for the life of the pipeline."""
    @property
    def configured_max_bytes(self) -> int: ...
    @property
    def max_trace_bytes(self) -> int: ...
    def replace_rules(self, rules: Rules, routes: Routes | None = None) -> None:
        """Decide by other rules from now on, and send what they keep by other routes, the traces that are buffered
        included: fragments that were scanned for the old rules are read again. Counters go on under the rules' names.
        Late spans of traces decided before are judged by the new rules before the one with the name of theirs, save
        those that exclude something. The rules are compiled outside the lock.

        Raises ValueError and MemoryError, and has then changed nothing.
        """
    def replace_limit(self, limit: tuple[float, str, float] | None) -> None:
        """Change, set or remove the limit. Traces that wait for the end of a window compete under the new limit then;
        where it was removed, they all leave. Raises ValueError, and has then changed nothing."""
    def replace_redaction(self, policy: Policy | None, observer: Observer | None = None) -> None:
        """Redact kept traces by another policy from now on, but for one that is being finished; None: do not redact.
        `observer` is told of each redaction, on the thread that finishes. Raises MemoryError, and has then changed
        nothing."""
    def find(self, trace_id: bytes, now_ns: int) -> dict[str, Any] | None:
        """Look up a trace by its id (16 bytes; ValueError otherwise).

        `state` is "buffered", with spans, fragments, bytes, age_seconds, root_seen, and chosen (its rule keeps it, and
        it waits for the limit); or "decided", with rule, keep, reason, threshold, incomplete, limited (the limit
        dropped it, though its rule would have kept it), and ago_seconds. None: unknown, or its decision was evicted.
        """
    def in_backlog(self, trace_id: bytes) -> list[bool | None]:
        """Tell of each destination whether a trace waits to be offered to it, the first time or again; None: it is not
        meant for it. The caller holds the lock. Looks at all traces that wait."""
    def intake(self, transport: str, effort: int = 0) -> Intake:
        """Create a way in for one thread. `transport` is a label of metrics: "grpc". `effort`: what the scan of one
        request may cost, in microseconds, about; 0: what its size allows."""
    def ledger_id(self, name: str) -> int:
        """Return the number under which the counters know a rule; a name keeps its number as long as the pipeline
        lives. Raises ValueError beyond 65 536 different names, and MemoryError."""
    def ran_out_of_memory(self) -> None:
        """Lower the bound, since there was no memory for something outside of the lock."""
    def count_refused(self, transport: str, reason: str) -> None:
        """Count a request that was refused before it was read whole. Needs no memory for a reason that is known."""
    def tick(self, now_ns: int, slice: int = 256) -> bool:
        """Offer again what destinations refused, decide what is due, at most `slice` traces, and `finish`. Return
        whether more may be due, or finished, right now. Raises MemoryError; what is left is done the next time."""
    def finish(self) -> bool:
        """Finish kept traces for some 20 ms, or one that takes longer; return whether more may be finished right now.
        While they cannot leave and memory is full, they wait. Raises MemoryError, as `tick` does."""
    def close(self) -> None:
        """Refuse every request from now on (Draining). The second call changes nothing."""
    def drain(self, now_ns: int, slice: int = 256, *, hurry: bool = False) -> bool:
        """Decide whatever is buffered, by the rules, with the reason shutdown; at most `slice` traces. Return whether
        something is left: undecided, refused by a destination, or waiting for the limit. `hurry`: the limit's window
        closes at once."""
    def memory_signs(self, now_ns: int) -> tuple[int, int, float]:
        """Return the number of traces decided early for want of memory, the number of requests refused for it, and the
        age of the oldest undecided trace in seconds; 0 where there is none. Cheap, unlike `instant`."""
    def instant(self, now_ns: int) -> Instant:
        """Copy all counters as they are; the caller holds the lock."""

class Instant:
    """The counters of a pipeline at one instant."""

    def values(self) -> dict[Metric, dict[tuple[str, ...], float | HistogramValue]]:
        """Return all values, by metric and label values; the caller owns them. Without the lock: with thousands of
        rules this takes its time. May be called once."""

class Intake:
    """The requests of one transport, on one thread: its scanner works outside the lock."""

    def __init__(self, pipeline: Pipeline, transport: str, effort: int = 0) -> None: ...
    def accept(self, request: bytes, now_ns: int, metadata: bytes | None = None) -> bytes:
        """Take a whole request, and answer with an encoded ExportTraceServiceResponse: b"", or a partial_success where
        spans without valid ids were rejected alone. Returns when the spans are in the buffer, or decided. `metadata`
        stays with the spans, as encoded by otlp/metadata.py; it takes no part in telling traces apart.

        Late spans (their trace has been decided) follow the decision at once, with the same threshold, rule and reason,
        or change it: a rule that keeps everything, stands before the one that decided, and holds for them and the
        trace's times, has what still comes of the trace kept with threshold 0 and reason late;
        the randomness that an incoming `th` is held against is that of the late spans themselves, since it is not
        remembered. A trace whose decision was evicted starts anew.

        Raises EffortSpent, and has then done nothing, where the scan has cost more than the intake may: another intake
        is to take the request, on a thread that has time.

        Raises, and has then taken nothing and counted the refusal: MalformedRequest; RequestTooCostly; RequestTooLarge
        where even the empty buffer would have no room; Overloaded where the oldest traces were decided early (reason
        memory; for some 20 ms, and 100 ms for each megabyte), what they left was finished, and still there is no room;
        Draining after close(); MemoryError, not counted, where the scan finds no memory. OutOfMemory where filing the
        spans does: those filed by then stay, and are counted as received.
        """
