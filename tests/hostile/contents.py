"""Attacks by content: valid OTLP requests that make work. Each function builds them and returns what sends them:
run(port, end) sends each when the one before has been answered, until that time at most, and returns the statuses."""

from __future__ import annotations

import gzip as gz
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from random import Random

import cramjam

from sampler_proxy.receive.http_bodies import zstd
from tests.hostile.http2 import Client
from tests.receive.raw_http2 import message
from tests.support import wire

Run = Callable[[int, float], Counter[str]]
ERROR = b"\x7a\x02\x18\x02"  # Span.status
MIB = 1 << 20


def field(number: int, content: bytes) -> bytes:
    return wire.field(number, wire.LEN, content)


def text(value: str | bytes) -> bytes:
    """An AnyValue."""
    return field(1, value.encode() if isinstance(value, str) else value)


def attribute(number: int, key: str, value: bytes) -> bytes:
    return field(number, field(1, key.encode()) + field(2, value))


def spans(contents: Iterable[bytes], *, one_trace: bool = False, seed: int = 1) -> Iterable[bytes]:
    """ScopeSpans.spans of these contents, each in a trace of its own (or all in one)."""
    random = Random(seed)
    trace_id = random.randbytes(16)
    for content in contents:
        ids = random.randbytes(24)
        body = b"\x0a\x10" + (trace_id if one_trace else ids[:16]) + b"\x12\x08" + ids[16:] + content
        yield field(2, body)


def request(spans: Iterable[bytes], resource: bytes = b"") -> bytes:
    """One ResourceSpans with one ScopeSpans. `resource`: the encoded attributes of the resource."""
    scope_spans = field(2, b"".join(spans))
    return field(1, (field(1, resource) if resource else b"") + scope_spans)


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "gzip": lambda payload: gz.compress(payload, 6),
    "zstd": zstd.compress,
    "snappy": lambda payload: bytes(cramjam.snappy.compress(payload)),
}


def requests(payloads: Sequence[bytes], *, encoding: str = "", every_s: float = 0) -> Run:
    packed = [message(COMPRESS[encoding](payload), bool(encoding)) for payload in payloads]

    def run(port: int, end: float) -> Counter[str]:
        with closing(Client(port)) as client:
            if not every_s:
                client.call(packed, end, encoding=encoding)
                return client.statuses
            at = time.monotonic()
            while at < end and client.open:
                client.start(packed[0], encoding=encoding)
                at += every_s
                client.run(min(at, end))
            client.run(end + 1, until_answered=True)
            return client.statuses

    return run


def shared_header(traces: int, nbytes: int) -> Run:
    """One-span error traces under one large resource."""
    values = (attribute(1, f"key.{n}", text(f"someone{n}@example.com and more of it")) for n in range(nbytes // 60))
    return requests([request(spans([ERROR] * traces), b"".join(values))], encoding="gzip")


def many_headers(traces: int, nbytes: int, requests_: int) -> Run:
    """One-span error traces, each under a large resource of its own."""

    def payload(seed: int) -> bytes:
        filler = text("r" * nbytes)
        return b"".join(
            request([span], attribute(1, f"{seed}.{n}", filler))
            for n, span in enumerate(spans([ERROR] * traces, seed=seed))
        )

    return requests([payload(seed) for seed in range(requests_)], encoding="gzip")


def new_emails(traces: int) -> Run:
    contents = (ERROR + attribute(9, "user", text(f"user{n}@example{n % 977}.com")) for n in range(traces))
    return requests([request(spans(contents))])


def escaped_json(values: int, nbytes: int) -> Run:
    """One trace with attributes of JSON in JSON in JSON."""

    def value(number: int) -> str:
        inner = json.dumps({f"key{n}": f"value {number} {n} user{number}.{n}@example.com" for n in range(nbytes // 81)})
        for _ in range(3):
            inner = json.dumps(inner)
        return inner

    contents = [ERROR + attribute(9, "body", text(value(n))) for n in range(values)]
    return requests([request(spans(contents, one_trace=True))], encoding="gzip")


def small_values(values: int) -> Run:
    """One trace with so many attributes, each with another key and another short text."""
    per_span = 1000
    contents = (
        ERROR + b"".join(attribute(9, f"k{n:x}", text(f"{n:x}")) for n in range(first, first + per_span))
        for first in range(0, values, per_span)
    )
    return requests([request(spans(contents, one_trace=True))])


def one_span_errors(nbytes: int) -> Run:
    size = len(next(iter(spans([ERROR]))))
    return requests([request(spans([ERROR] * (nbytes // size - 1000)))])


def tracestates(count: int, members: int) -> Run:
    state = field(3, ",".join(f"k{n}=v" for n in range(members)).encode())
    per_request = 45 * MIB // len(state)
    return requests(
        [
            request(spans([ERROR + state] * min(per_request, count - first), seed=first))
            for first in range(0, count, per_request)
        ],
        encoding="gzip",
    )


def deep_damage(count: int, depth: int) -> Run:
    """Strings that are no UTF-8 in lists in lists."""
    value = text(b"\xff")
    for _ in range(depth):
        value = field(5, field(1, value))
    return requests([request(spans([ERROR + attribute(9, "k", value)] * count))], encoding="gzip")


def pairs(count: int, each: int) -> Run:
    """Spans with so many events and so many links, all with an attribute that never equals another's."""
    events = b"".join(field(11, attribute(3, "k", text(f"e{n}"))) for n in range(each))
    links = b"".join(
        field(13, b"\x0a\x10" + b"\x01" * 16 + b"\x12\x08" + b"\x02" * 8 + attribute(4, "k", text(f"l{n}")))
        for n in range(each)
    )
    return requests([request(spans([events + links] * count))], encoding="gzip")


def empty_events(nbytes: int) -> Run:
    return requests([request(spans([b"\x5a\x00" * (nbytes // 2 - 100)]))], encoding="gzip")


def distinct_values(count: int) -> Run:
    contents = (attribute(9, "k", text(f"/orders/{n:08}/items/{n * 7919 % 99991}")) for n in range(count))
    return requests([request(spans(contents))])


def tiny_spans(nbytes: int) -> Run:
    """One trace with a root and nothing but ids."""
    size = len(next(iter(spans([b""]))))
    return requests([request(spans([b""] * (nbytes // size), one_trace=True))])


def bombs(encoding: str, nbytes: int, every_s: float) -> Run:
    """An unknown field of zeros, which is not taken but has to be decompressed."""
    return requests([field(1, field(1, attribute(1, "k", text(bytes(nbytes)))))], encoding=encoding, every_s=every_s)
