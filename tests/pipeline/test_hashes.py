"""Tables stay fast whatever the ids, names and headers in them look like: no two kinds of input may fall into one
place.

Measured as a ratio to random input in the same process, best of three, with much room for noise. Where keys collide it
is hundreds.
"""

from __future__ import annotations

from random import Random
from time import process_time

import pytest

from tests.pipeline.driver import KEEP_NONE, WAIT, Driver
from tests.support.wire import LEN, field


def single_span_requests(ids: list[bytes]) -> list[bytes]:
    spans = [field(2, LEN, field(1, LEN, one) + field(2, LEN, b"\x01" * 8)) for one in ids]
    return [field(1, LEN, field(2, LEN, b"".join(spans[at : at + 500]))) for at in range(0, len(spans), 500)]


def seconds_for(ids: list[bytes]) -> float:
    best = float("inf")
    for _ in range(3):
        driver = Driver(KEEP_NONE, decision_memory_bytes=2 << 20)
        requests = single_span_requests(ids)
        begin = process_time()
        for request in requests:
            driver.send(request)
        driver.tick(WAIT)
        for request in requests:  # late, all of them
            driver.send(request)
        best = min(best, process_time() - begin)
        assert driver.pipeline.decisions.count == len(ids)
    return best


@pytest.mark.parametrize(
    "position", [0, 6, 7, 8, 12, 13], ids=lambda at: f"bytes {at}-{at + 1}" if at < 13 else "the last three bytes"
)
def test_trace_ids_that_differ_in_few_bytes_do_not_collide(position: int) -> None:
    """Ids that somebody counts up, or pads; every table in their way must still spread them."""
    count, random = 20_000, Random(4)
    width = 3 if position == 13 else 2
    fixed = bytearray(random.randbytes(16))
    ids = []
    for number in range(1, count + 1):
        fixed[position : position + width] = number.to_bytes(width)
        ids.append(bytes(fixed))
    assert seconds_for(ids) < 8 * seconds_for([random.randbytes(16) for _ in range(count)]) + 0.02


@pytest.mark.parametrize("length", [24, 30, 31])
def test_envelopes_that_differ_in_their_last_bytes_do_not_collide(length: int) -> None:
    def seconds(suffixes: list[bytes]) -> float:
        best = float("inf")
        for _ in range(3):
            driver = Driver(KEEP_NONE)
            span = field(2, LEN, field(2, LEN, field(1, LEN, b"\x01" * 16) + field(2, LEN, b"\x01" * 8)))
            requests = [
                field(1, LEN, field(3, LEN, b"x" * (length - 2 - len(suffix)) + suffix) + span) for suffix in suffixes
            ]
            begin = process_time()
            for request in requests:
                driver.send(request)
            best = min(best, process_time() - begin)
            assert len(driver.pipeline.envelopes) == 2 * len(suffixes)
        return best

    random = Random(4)
    counted = [bytes([33 + number % 90, 33 + number // 90]) for number in range(8_000)]
    assert seconds(counted) < 8 * seconds([random.randbytes(8).hex().encode() for _ in counted]) + 0.02


def test_regex_values_that_differ_in_their_last_bytes_do_not_collide() -> None:
    def seconds(names: list[bytes]) -> float:
        driver = Driver([("some", '{ name =~ "x.*" }', 0.0), ("rest", None, 0.0)])
        spans = [
            field(2, LEN, field(1, LEN, b"\x01" * 16) + field(2, LEN, b"\x01" * 8) + field(5, LEN, name))
            for name in names
        ]
        request = field(1, LEN, field(2, LEN, b"".join(spans)))
        driver.send(request)
        begin = process_time()
        for _ in range(3):
            driver.send(request)
        return process_time() - begin

    random = Random(4)
    counted = [b"x" * 21 + number.to_bytes(2) for number in range(1, 10_001)]
    assert seconds(counted) < 8 * seconds([random.randbytes(23) for _ in counted]) + 0.02
