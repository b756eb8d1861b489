"""Queues requests of the signals that are passed on, as bytes: bounded, cut into batches, every request accounted for.

The ledger, for each signal, at every instant seen under the lock:

    received = discarded + routed                                      for each destination
    routed = exported + queued + rejected + unwanted + lost            for each destination

No I/O, no task. Requests are offered from any thread and all else is done on the loop's; one lock guards both, for
microseconds. A request is held once, however many destinations it waits for. Of the memory of a destination the signals
share what is left: each may have as much as is still free beside it (the dynamic threshold of Choudhury and Hahne,
1998), so that one alone has half, and a back end which takes no logs leaves metrics their room. A request that is
larger than that is taken when nothing else is held.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sampler_proxy import metrics
from sampler_proxy.errors import Draining, QueueFull
from sampler_proxy.export.queue import FULL
from sampler_proxy.otlp.signals import PASSED_ON, Signal

RETRY_AFTER_NS = 10**9

SHARE = 16
"""What is passed on may take a sixteenth of the memory that `buffer.max_bytes` gives to traces, beside it."""

REQUEST_COST = 192
"""What a request that is held takes beside its bytes."""


@dataclass(slots=True, eq=False)
class PassBatch:
    """Requests of one signal that are sent as one, until they are settled."""

    requests: Sequence[bytes]
    failures: int = 0  # tries that failed since it was put together, or divided
    tried_ns: int | None = None  # when the last of them began
    alone_since_ns: int | None = None  # since then it has failed though others passed
    not_before_ns: int = 0

    @property
    def nbytes(self) -> int:
        """The size of the request that is sent."""
        return sum(map(len, self.requests))

    @property
    def cost(self) -> int:
        """The memory that it takes."""
        return self.nbytes + REQUEST_COST * len(self.requests)

    def joined(self) -> bytes:
        """Write the requests one behind the other, which makes one of them."""
        return self.requests[0] if len(self.requests) == 1 else b"".join(self.requests)

    def halves(self) -> list[PassBatch]:
        """Divide it in two; just itself where it is one request."""
        middle = len(self.requests) // 2
        if not middle:
            return [self]
        return [
            PassBatch(part, tried_ns=self.tried_ns, alone_since_ns=self.alone_since_ns)
            for part in (self.requests[:middle], self.requests[middle:])
        ]


class _Waiting(NamedTuple):
    request: bytes
    joinable: bool
    since_ns: int


def _nothing() -> None:
    pass


class SignalQueue:
    """The requests of one signal for one destination. A batch is ready when `batch_bytes` are waiting or the oldest
    request has waited `max_wait_ns`. `wake` is called, on any thread, when a wait that `wait_ns` answered has become
    wrong, at most once per answer."""

    def __init__(self, lock: threading.Lock, clock: Callable[[], int], batch_bytes: int, max_wait_ns: int) -> None:
        self.wake: Callable[[], object] = _nothing
        self.batch_bytes = batch_bytes
        self.unwanted_until_ns = 0
        """Until then requests are discarded: the destination does not know the signal."""
        self.routed = self.exported = self.rejected = self.unwanted = 0
        self.lost: Counter[str] = Counter()
        self.queued = 0
        """Requests, with those in flight; `held` is the memory that they take."""
        self.held = 0
        self.exported_bytes = 0
        self.rejected_items = 0
        self._lock = lock
        self._clock = clock
        self._max_wait_ns = max_wait_ns
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._wake_at: int | None = None  # None: nobody waits
        self._flushing = False

    def add(self, request: bytes, joinable: bool, now_ns: int) -> Callable[[], object] | None:
        """Take a request, with the lock held; returns what is to be called once it is not held any more."""
        if now_ns < self.unwanted_until_ns:
            self.routed += 1
            self.unwanted += 1
            return None
        self._waiting.append(_Waiting(request, joinable, now_ns))  # from here on nothing takes memory
        self.routed += 1
        self.queued += 1
        self.held += len(request) + REQUEST_COST
        self._waiting_bytes += len(request)
        if self._wake_at is None or self._waiting_bytes < self._wake_at:
            return None
        self._wake_at = None
        return self.wake

    def drop(self) -> None:
        """Lose a request for want of room, with the lock held."""
        self.lost[FULL] += 1
        self.routed += 1

    def wait_ns(self, now_ns: int) -> int | None:
        """Return how long until a batch is ready if nothing more comes: 0 is now, None is never."""
        with self._lock:
            self._wake_at = self.batch_bytes if self._waiting else 0
            if not self._waiting:
                return None
            ready_ns = self._waiting[0].since_ns + self._max_wait_ns
            if self._waiting_bytes >= self.batch_bytes or self._flushing or ready_ns <= now_ns:
                self._wake_at = None
                return 0
            return ready_ns - now_ns

    def take(self) -> PassBatch | None:
        """Take the oldest requests, as many as one request may be made of, ready or not; None: there are none. Raises
        MemoryError, and has then taken none."""
        with self._lock:
            count = nbytes = 0
            for waiting in self._waiting:
                if count and not (waiting.joinable and nbytes + len(waiting.request) <= self.batch_bytes):
                    break
                count += 1
                nbytes += len(waiting.request)
                if not waiting.joinable:
                    break
            if not count:
                return None
            batch = PassBatch([self._waiting[number].request for number in range(count)])
            for _ in range(count):
                self._waiting.popleft()
            self._waiting_bytes -= nbytes
            return batch

    def settle_exported(self, batch: PassBatch, rejected_items: int) -> None:
        """Settle a batch as taken by the destination, but for some log records, data points or profiles of it (a number
        from outside: any may come)."""
        with self._lock:
            self.exported += len(batch.requests)
            self.exported_bytes += batch.nbytes
            self.rejected_items += max(0, rejected_items)
            self._settle(batch)

    def settle_rejected(self, batch: PassBatch) -> None:
        """Settle a batch as refused for good."""
        with self._lock:
            self.rejected += len(batch.requests)
            self._settle(batch)

    def settle_lost(self, batch: PassBatch, reason: str) -> None:
        """Settle a batch as given up without a final answer."""
        with self._lock:
            self.lost[reason] += len(batch.requests)
            self._settle(batch)

    def discard(self, batches: Iterable[PassBatch], until_ns: int) -> int:
        """Settle batches, and all that waits, as unwanted, and what comes before `until_ns`. Returns how many requests
        that are."""
        with self._lock:
            before = self.unwanted
            for batch in batches:
                self.unwanted += len(batch.requests)
                self._settle(batch)
            self.unwanted += len(self._waiting)
            self.queued -= len(self._waiting)
            self.held -= self._waiting_bytes + REQUEST_COST * len(self._waiting)
            self._forget_waiting()
            self.unwanted_until_ns = until_ns
            return self.unwanted - before

    def flush(self) -> None:
        """Make every request ready from now on."""
        with self._lock:
            self._flushing = True

    def abandon(self, reason: str) -> int:
        """Settle all that is left as lost, in flight or not, and return how many requests that are. Settle nothing
        afterwards."""
        with self._lock:
            lost = self.queued
            if lost:
                self.lost[reason] += lost
            self.queued = self.held = 0
            self._forget_waiting()
            return lost

    def _settle(self, batch: PassBatch) -> None:
        self.queued -= len(batch.requests)
        self.held -= batch.cost

    def _forget_waiting(self) -> None:
        self._waiting.clear()
        self._waiting_bytes = 0


class DestinationQueues:
    """The queues of one destination, by signal. `drop`: what has no room is lost for it, instead of refused."""

    def __init__(
        self,
        name: str,
        lock: threading.Lock,
        clock: Callable[[], int],
        *,
        batch_bytes: int,
        max_wait_ns: int,
        drop: bool,
    ) -> None:
        self.name = name
        self.drop = drop
        self.of: Mapping[Signal, SignalQueue] = {
            signal: SignalQueue(lock, clock, batch_bytes, max_wait_ns) for signal in PASSED_ON
        }

    @property
    def held(self) -> int:
        """The memory that requests for the destination take."""
        return sum(queue.held for queue in self.of.values())

    def has_room(self, signal: Signal, size: int, bound: int, now_ns: int) -> bool:
        """Tell whether a request of `size` may be taken, with the lock held; `bound`: of the bytes of this
        destination."""
        held = self.held
        its = self.of[signal]
        if not held or now_ns < its.unwanted_until_ns:
            return True
        size += REQUEST_COST
        return held + size <= bound and (not its.held or its.held + size <= bound - held)


class PassQueues:
    """The queues of all destinations to which signals are passed on, and the counts of what came. `max_bytes` tells how
    much they may hold, all together; `clock` tells monotonic nanoseconds."""

    def __init__(self, max_bytes: Callable[[], int], clock: Callable[[], int]) -> None:
        self.destinations: list[DestinationQueues] = []
        """Filled before the first request comes."""
        self.lock = threading.Lock()
        self._max_bytes = max_bytes
        self._clock = clock
        self._closed = False
        self._received: dict[tuple[str, str], list[int]] = {}  # requests and bytes, by signal and transport
        self._refused: Counter[tuple[str, str, str]] = Counter()
        self._discarded: dict[str, int] = dict.fromkeys((signal.label for signal in PASSED_ON), 0)

    def add(self, name: str, *, batch_bytes: int, max_wait_ns: int, drop: bool) -> DestinationQueues:
        """Add a destination."""
        queues = DestinationQueues(
            name, self.lock, self._clock, batch_bytes=batch_bytes, max_wait_ns=max_wait_ns, drop=drop
        )
        self.destinations.append(queues)
        return queues

    def take(self, signal: Signal, transport: str, request: bytes, joinable: bool) -> None:
        """Take a request for every destination, or for none. One that is empty, or has no destination, is discarded.
        From any thread.

        Raises QueueFull where a destination that loses nothing has no room for it, and Draining.
        """
        wakes = []
        with self.lock:
            if self._closed:
                raise Draining("the proxy is stopping", retry_after_ns=RETRY_AFTER_NS)
            size = len(request)
            bound = self._bound()
            now_ns = self._clock()
            full = [each for each in self.destinations if not each.has_room(signal, size, bound, now_ns)]
            if any(not each.drop for each in full):
                raise QueueFull(f"the queue of {signal.label} is full", retry_after_ns=RETRY_AFTER_NS)
            if request:
                for each in self.destinations:
                    if each in full:
                        each.of[signal].drop()
                    elif (wake := each.of[signal].add(request, joinable, now_ns)) is not None:
                        wakes.append(wake)
            received = self._received.setdefault((signal.label, transport), [0, 0])
            received[0] += 1
            received[1] += size
            if not self.destinations or not request:
                self._discarded[signal.label] += 1
        for wake in wakes:
            wake()

    def count_refused(self, signal: Signal, transport: str, reason: str) -> None:
        """Count a request that was refused."""
        with self.lock:
            self._refused[signal.label, transport, reason] += 1

    def close(self) -> None:
        """Take nothing from now on."""
        with self.lock:
            self._closed = True

    @property
    def held(self) -> int:
        """The memory that requests take; those count twice that wait for two destinations."""
        return sum(each.held for each in self.destinations)

    def _bound(self) -> int:
        """Return what one destination may hold: each has its share, whatever the others hold."""
        return self._max_bytes() // max(1, len(self.destinations))

    def values(self) -> dict[metrics.Metric, dict[tuple[str, ...], float]]:
        """Read the ledger at one instant."""
        with self.lock:
            found: dict[metrics.Metric, dict[tuple[str, ...], float]] = {
                metrics.PASSTHROUGH_REQUESTS_RECEIVED: {key: counts[0] for key, counts in self._received.items()},
                metrics.PASSTHROUGH_RECEIVED_BYTES: {key: counts[1] for key, counts in self._received.items()},
                metrics.PASSTHROUGH_REQUESTS_REFUSED: dict(self._refused.items()),
                metrics.PASSTHROUGH_REQUESTS_DISCARDED: {(label,): count for label, count in self._discarded.items()},
                metrics.PASSTHROUGH_QUEUE_MAX_BYTES: {(each.name,): self._bound() for each in self.destinations},
            }
            for metric, read in _OF_QUEUES.items():
                found[metric] = {
                    (each.name, signal.label): read(queue)
                    for each in self.destinations
                    for signal, queue in each.of.items()
                }
            found[metrics.PASSTHROUGH_REQUESTS_LOST] = {
                (each.name, signal.label, reason): count
                for each in self.destinations
                for signal, queue in each.of.items()
                for reason, count in queue.lost.items()
            }
            return found


_OF_QUEUES: dict[metrics.Metric, Callable[[SignalQueue], int]] = {
    metrics.PASSTHROUGH_REQUESTS_ROUTED: lambda queue: queue.routed,
    metrics.PASSTHROUGH_REQUESTS_EXPORTED: lambda queue: queue.exported,
    metrics.PASSTHROUGH_QUEUE_REQUESTS: lambda queue: queue.queued,
    metrics.PASSTHROUGH_REQUESTS_REJECTED: lambda queue: queue.rejected,
    metrics.PASSTHROUGH_REQUESTS_UNWANTED: lambda queue: queue.unwanted,
    metrics.PASSTHROUGH_EXPORTED_BYTES: lambda queue: queue.exported_bytes,
    metrics.PASSTHROUGH_QUEUE_BYTES: lambda queue: queue.held,
    metrics.PASSTHROUGH_ITEMS_REJECTED: lambda queue: queue.rejected_items,
}
