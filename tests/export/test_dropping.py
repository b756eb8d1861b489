"""A destination that drops what it has no room for says how much, to the last span."""

from __future__ import annotations

import random
import time

from sampler_proxy.config.model import GrpcExport, Queue
from sampler_proxy.export.exporter import Dependencies, Exporter, Persistence
from sampler_proxy.export.retry import Accepted, Failed, Fault
from tests.export.support import Trace, assemble, running

NS = 10**9


class Dead(Exporter):
    def __init__(self, room: int) -> None:
        queue = Queue(max_bytes=room * Trace(1).nbytes, when_full="drop")
        settings = GrpcExport(name="dead", endpoint="http://localhost:1", queue=queue)
        dependencies = Dependencies(assemble, time.monotonic_ns, random.Random(1).random, lambda _seconds: None)
        super().__init__(settings, dependencies, Persistence(NS, NS, NS), concurrency=1, limit_bytes=1 << 22)

    async def _send(self, _request: bytes, _metadata: bytes) -> Accepted | Failed:
        return Failed(Fault.UNREACHABLE, "UNAVAILABLE", "no")


def test_what_is_dropped_is_told_whole(run, caplog):
    """At once, then each minute, and what is left at the stop."""

    def told():
        return [line for line in caplog.messages if "dropped" in line]

    async def scenario():
        async with running(Dead(room=2)) as exporter:
            assert [exporter.queue.offer(Trace(number)) for number in range(1, 6)] == [True] * 5
            exporter.tell_dropped()
            exporter.tell_dropped()
            assert told() == ["export dead: 6 spans dropped: its queue is full (when_full: drop)"]
            for number in range(6, 10):
                exporter.queue.offer(Trace(number))
        assert told()[1:] == ["export dead: 8 spans dropped: its queue is full (when_full: drop)"]
        assert exporter.queue.counters().lost_spans == {"queue_full": 14, "shutdown": 4}

    run(scenario())
