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

from sampler_proxy import metrics
from sampler_proxy.errors import Draining, QueueFull
from sampler_proxy.export.queue import FULL
from sampler_proxy.otlp.signals import PASSED_ON, Signal

RETRY_AFTER_NS = 10**9

SHARE = 16
"""What is passed on may take a sixteenth of the memory that `buffer.max_bytes` gives to traces, beside it."""

BOUND_FOR_NS = 10**8
"""How often the bound is asked for: it is lowered where memory runs out."""

LOOK_AHEAD = 256
"""Requests with other metadata among which those of a sender are sought: to delete from among them is dear."""

REQUEST_COST = 192
"""What a request that is held takes beside its bytes."""


Waiting = tuple[bytes, bool, bytes, int]
"""A request, whether it is joinable, its metadata, and since when it waits (nanoseconds)."""


@dataclass(slots=True, eq=False)
class PassBatch:
    """Requests of one signal that are sent as one, until they are settled. All came with the same `metadata`
    (otlp/metadata.py)."""

    requests: Sequence[bytes]
    metadata: bytes = b""
    failures: int = 0  # tries that failed since it was put together, or divided
    tried_ns: int | None = None  # when the last of them began
    alone_since_ns: int | None = None  # since then it has failed though others passed
    not_before_ns: int = 0
    part_of_nbytes: int = 0  # the size of what it is a part of, where that may have been too large

    @property
    def nbytes(self) -> int:
        """The size of the request that is sent."""
        return sum(map(len, self.requests))

    @property
    def cost(self) -> int:
        """The memory that it takes."""
        return self.nbytes + (REQUEST_COST + len(self.metadata)) * len(self.requests)

    def joined(self) -> bytes:
        """Write the requests one behind the other, which makes one of them."""
        return self.requests[0] if len(self.requests) == 1 else b"".join(self.requests)

    def halves(self) -> list[PassBatch]:
        """Divide it in two; just itself where it is one request."""
        middle = len(self.requests) // 2
        if not middle:
            return [self]
        return [
            PassBatch(part, self.metadata, tried_ns=self.tried_ns, alone_since_ns=self.alone_since_ns)
            for part in (self.requests[:middle], self.requests[middle:])
        ]


def cost_of(request: bytes, metadata: bytes) -> int:
    """Return the memory that a request takes while it is held."""
    return len(request) + len(metadata) + REQUEST_COST


def _nothing() -> None:
    pass


class SignalQueue:
    """The requests of one signal for one destination, `owner`. A batch is ready when `batch_bytes` are waiting or the
    oldest request has waited `max_wait_ns`. `wake` is called, on any thread, when a wait that `wait_ns` answered has
    become wrong, at most once per answer."""

    def __init__(self, owner: DestinationQueues, lock: threading.Lock, batch_bytes: int, max_wait_ns: int) -> None:
        self.owner = owner
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
        self.refusals = 0
        """Requests that nobody took since there was no room here."""
        self._lock = lock
        self._max_wait_ns = max_wait_ns
        self._waiting: deque[Waiting] = deque()
        self._waiting_bytes = 0
        self._waiting_cost = 0
        self._wake_at: int | None = None  # None: nobody waits
        self._flushing = False

    def append(self, waiting: Waiting) -> None:
        """Let a request wait, with the lock held; to be counted by `added`, or taken back. Raises MemoryError."""
        self._waiting.append(waiting)

    def take_back(self) -> None:
        """Forget the request that was appended last, with the lock held, and not counted."""
        self._waiting.pop()

    def added(self, size: int, cost: int) -> Callable[[], object] | None:
        """Count the request that was appended, of `size` bytes, which takes `cost`, with the lock held; returns what is
        to be called once it is not held any more."""
        self.routed += 1
        self.queued += 1
        self.held += cost
        self.owner.held += cost
        self._waiting_bytes += size
        self._waiting_cost += cost
        if self._wake_at is None or self._waiting_bytes < self._wake_at:
            return None
        self._wake_at = None
        return self.wake

    def passed_by(self, now_ns: int) -> None:
        """Count a request that is not to be held, with the lock held: it is unwanted, or there is no room for it."""
        self.routed += 1
        if now_ns < self.unwanted_until_ns:
            self.unwanted += 1
        else:
            self.lost[FULL] += 1

    def has_room(self, cost: int, bound: int) -> bool:
        """Tell whether a request that takes `cost` may be held, with the lock held. `bound`: of what the destination
        holds."""
        held = self.owner.held
        if not held:
            return True
        return held + cost <= bound and (not self.held or self.held + cost <= bound - held)

    def wait_ns(self, now_ns: int) -> int | None:
        """Return how long until a batch is ready if nothing more comes: 0 is now, None is never."""
        with self._lock:
            self._wake_at = self.batch_bytes if self._waiting else 0
            if not self._waiting:
                return None
            ready_ns = self._waiting[0][-1] + self._max_wait_ns
            if self._waiting_bytes >= self.batch_bytes or self._flushing or ready_ns <= now_ns:
                self._wake_at = None
                return 0
            return ready_ns - now_ns

    def take(self) -> PassBatch | None:
        """Take the oldest requests, as many as one request may be made of, ready or not; None: there are none. Raises
        MemoryError, and has then taken none."""
        with self._lock:
            if not self._waiting:
                return None
            places = self._joined()
            batch = PassBatch([self._waiting[place][0] for place in places], self._waiting[0][2])
            for place in reversed(places):  # takes no memory
                del self._waiting[place]
            self._waiting_bytes -= batch.nbytes
            self._waiting_cost -= batch.cost
            return batch

    def _joined(self) -> list[int]:
        """Return the places of the oldest request and of those after it that one request may be made of with it."""
        request, joinable, first, _ = self._waiting[0]
        places = [0]
        nbytes = len(request)
        if not joinable:
            return places
        for place, (request, joinable, metadata, _) in enumerate(self._waiting):
            if not place or metadata != first:
                if place - len(places) >= LOOK_AHEAD:
                    break
                continue
            if not joinable or nbytes + len(request) > self.batch_bytes:
                break
            places.append(place)
            nbytes += len(request)
        return places

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
            self._release(self._waiting_cost)
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
            self.queued = 0
            self._release(self.held)
            self._forget_waiting()
            return lost

    def _settle(self, batch: PassBatch) -> None:
        self.queued -= len(batch.requests)
        self._release(batch.cost)

    def _release(self, cost: int) -> None:
        self.held -= cost
        self.owner.held -= cost

    def _forget_waiting(self) -> None:
        self._waiting.clear()
        self._waiting_bytes = self._waiting_cost = 0


class DestinationQueues:
    """The queues of one destination, by signal. `drop`: what has no room is lost for it, instead of refused."""

    def __init__(
        self,
        name: str,
        lock: threading.Lock,
        *,
        batch_bytes: int,
        max_wait_ns: int,
        drop: bool,
    ) -> None:
        self.name = name
        self.drop = drop
        self.held = 0
        """The memory that requests for the destination take."""
        self.of: Mapping[Signal, SignalQueue] = {
            signal: SignalQueue(self, lock, batch_bytes, max_wait_ns) for signal in PASSED_ON
        }


class Way:
    """The way of a signal that comes by one transport to the queues of all destinations."""

    def __init__(self, queues: PassQueues, signal: Signal, transport: str) -> None:
        self.signal = signal
        self.transport = transport
        self.received = self.received_bytes = self.discarded = 0
        self.refused: Counter[str] = Counter()
        self._all = queues
        self._queues = [each.of[signal] for each in queues.destinations]
        self._lock = queues.lock
        self._clock = queues.clock

    def take(self, request: bytes, joinable: bool, metadata: bytes = b"") -> None:
        """Take a request, which came with `metadata`, for every destination, or for none. One that is empty, or has no
        destination, is discarded. From any thread.

        Raises QueueFull where a destination that loses nothing has no room for it, Draining, and MemoryError, and has
        then taken nothing.
        """
        size = len(request)
        cost = cost_of(request, metadata)
        wakes = []
        with self._lock:
            if self._all.closed:
                raise Draining("the proxy is stopping", retry_after_ns=RETRY_AFTER_NS)
            now_ns = self._clock()
            bound = self._all.bound(now_ns)
            holding: list[SignalQueue] = []
            if size:
                for queue in self._queues:
                    if now_ns < queue.unwanted_until_ns:
                        continue
                    if queue.has_room(cost, bound):
                        holding.append(queue)
                    elif not queue.owner.drop:
                        queue.refusals += 1
                        raise QueueFull(f"the queue of {self.signal.label} is full", retry_after_ns=RETRY_AFTER_NS)
                self._append(holding, (request, joinable, metadata, now_ns))
                for queue in self._queues:
                    if queue not in holding:
                        queue.passed_by(now_ns)
                    elif (wake := queue.added(size, cost)) is not None:
                        wakes.append(wake)
            self.received += 1
            self.received_bytes += size
            if not size or not self._queues:
                self.discarded += 1
        for wake in wakes:
            wake()

    @staticmethod
    def _append(queues: Sequence[SignalQueue], waiting: Waiting) -> None:
        """Let a request wait in all queues or, with MemoryError, in none."""
        appended = 0
        try:
            for queue in queues:
                queue.append(waiting)
                appended += 1
        except MemoryError:
            for queue in queues[:appended]:
                queue.take_back()
            raise

    def count_refused(self, reason: str) -> None:
        """Count a request that was refused."""
        with self._lock:
            self.refused[reason] += 1


class PassQueues:
    """The queues of all destinations to which signals are passed on, and the ways to them. `max_bytes` tells how much
    they may hold, all together; `clock` tells monotonic nanoseconds."""

    def __init__(self, max_bytes: Callable[[], int], clock: Callable[[], int]) -> None:
        self.destinations: list[DestinationQueues] = []
        self.lock = threading.Lock()
        self.clock = clock
        self.closed = False
        self._max_bytes = max_bytes
        self._bound = 0
        self._bound_until_ns = -1
        self._ways: list[Way] = []

    def add(self, name: str, *, batch_bytes: int, max_wait_ns: int, drop: bool) -> DestinationQueues:
        """Add a destination. All are there before the first way is."""
        queues = DestinationQueues(name, self.lock, batch_bytes=batch_bytes, max_wait_ns=max_wait_ns, drop=drop)
        self.destinations.append(queues)
        return queues

    def way(self, signal: Signal, transport: str) -> Way:
        """Make a way for requests that come by a transport."""
        way = Way(self, signal, transport)
        self._ways.append(way)
        return way

    def close(self) -> None:
        """Take nothing from now on."""
        with self.lock:
            self.closed = True

    @property
    def held(self) -> int:
        """The memory that requests take; those count twice that wait for two destinations."""
        return sum(each.held for each in self.destinations)

    @property
    def received(self) -> int:
        """The requests that were taken."""
        return sum(way.received for way in self._ways)

    def bound(self, now_ns: int) -> int:
        """Return what one destination may hold, whatever others do; with the lock held."""
        if now_ns >= self._bound_until_ns:
            self._bound = self._max_bytes() // max(1, len(self.destinations))
            self._bound_until_ns = now_ns + BOUND_FOR_NS
        return self._bound

    def values(self) -> dict[metrics.Metric, dict[tuple[str, ...], float]]:
        """Read the ledger at one instant."""
        with self.lock:
            found: dict[metrics.Metric, dict[tuple[str, ...], float]] = {
                metrics.PASSTHROUGH_REQUESTS_RECEIVED: {
                    (way.signal.label, way.transport): way.received for way in self._ways
                },
                metrics.PASSTHROUGH_RECEIVED_BYTES: {
                    (way.signal.label, way.transport): way.received_bytes for way in self._ways
                },
                metrics.PASSTHROUGH_REQUESTS_REFUSED: {
                    (way.signal.label, way.transport, reason): count
                    for way in self._ways
                    for reason, count in way.refused.items()
                },
                metrics.PASSTHROUGH_REQUESTS_DISCARDED: {
                    (signal.label,): sum(way.discarded for way in self._ways if way.signal is signal)
                    for signal in PASSED_ON
                },
                metrics.PASSTHROUGH_QUEUE_MAX_BYTES: {
                    (each.name,): self.bound(self.clock()) for each in self.destinations
                },
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
