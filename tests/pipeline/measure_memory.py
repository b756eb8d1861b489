"""Fill a buffer twice and compare the bytes it reports with the growth of the process. Prints one line of JSON.

usage: python -m tests.pipeline.measure_memory SPANS_PER_TRACE SPAN_BYTES SPANS_PER_REQUEST TOTAL_SPANS

A process of its own, so that nobody else's garbage is in the measure. Spans are as large as said on the wire, tag and
length included; a trace of several spans comes from five services, in one request of each, mixed with other traces.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Iterator

from tests.pipeline.driver import KEEP_NONE, WAIT, Driver
from tests.support.wire import FIXED64, LEN, field, tag

SERVICES = 5


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def span(size: int) -> list[bytes]:
    """Encode a span, cut into the bytes before the trace id, between both ids, and behind the span id."""
    ids = field(1, LEN, b"T" * 16) + field(2, LEN, b"S" * 8)
    times = tag(7, FIXED64) + bytes(7) + b"\x01" + tag(8, FIXED64) + bytes(7) + b"\x02"
    for overhead in range(20):
        one = field(2, LEN, ids + times + field(5, LEN, b"n" * (size - len(ids + times) - overhead)))
        if len(one) == size:
            before, rest = one.split(b"T" * 16)
            return [before, *rest.split(b"S" * 8)]
    raise ValueError(size)


def requests(first_trace: int, per_trace: int, size: int, per_request: int, total: int) -> Iterator[bytes]:
    services = min(SERVICES, per_trace)
    each = per_trace // services
    traces_at_once = per_request // each
    before, between, behind = span(size)
    for begin in range(first_trace, first_trace + total // per_trace, traces_at_once):
        for service in range(services):
            name = field(1, LEN, b"service.name") + field(2, LEN, field(1, LEN, b"service %d" % service))
            spans = [
                before + trace.to_bytes(16) + between + (1 + service * each + number).to_bytes(8) + behind
                for trace in range(begin, begin + traces_at_once)
                for number in range(each)
            ]
            scope = field(2, LEN, field(1, LEN, field(1, LEN, b"scope")) + b"".join(spans))
            yield field(1, LEN, field(1, LEN, field(1, LEN, name)) + scope)


def main(per_trace: int, size: int, per_request: int, total: int) -> None:
    driver = Driver(KEEP_NONE, max_bytes=1 << 34)
    for request in requests(1, per_trace, size, per_request, per_request):
        driver.send(request)
    driver.tick(WAIT)
    buffer = driver.pipeline.buffer
    rounds = []
    for number in (1, 2):
        gc.collect()
        reported, resident = buffer.nbytes, resident_bytes()
        wire = 0
        for request in requests(number << 32, per_trace, size, per_request, total):
            driver.send(request, number * WAIT)
            wire += len(request)
        gc.collect()
        rounds.append(
            {
                "wire": wire,
                "spans": buffer.spans,
                "reported": buffer.nbytes - reported,
                "grown": resident_bytes() - resident,
            }
        )
        driver.tick((number + 1) * WAIT)
        rounds[-1]["left"] = buffer.nbytes - reported
    print(json.dumps(rounds))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
