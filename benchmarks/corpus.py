"""The spans that every measurement is made with: seeded, so that each run and each target sees the same bytes.

A trace is a *checkout* of a web shop (shop.py): 20 spans of five services, each with four instances. Spans are 440
bytes on the wire on average (within 1 %; tag and length included; 375 to 470 by kind) and have 11 attributes. Values
repeat as they do in practice (routes, statements, versions), except for the user id, the URL path or key, and the pod
of the peer. Traces of N spans are the first N of a checkout; single-span traces are any one of its spans, without a
parent (their user id is longer by what the parent id took).

1 % of the traces have an error (one span with status ERROR), another 1 % take 1.2 to 3 s; all others take 40 to 400
ms. Exactly so: each hundred of traces has one of both, at random places. Trace ids are 16 random bytes, so a fair 1 %
of the rest is kept by W3C/OpenTelemetry consistent sampling; `Corpus.must` and `Corpus.random` name both sets. Trace
and span ids are unique in a corpus. Times lie at a fixed date.

A request comes from one instance of one service, as an SDK sends it: one ResourceSpans with one or two scopes, closed
when it holds `spans_per_request` spans. So a trace is spread over the requests of its services, children before the
root, and leaves within a window: 17 k / 4 k / 1 k spans at 512 / 100 / 8 spans a request, or 0.45 s at most at 40 k
spans/s.

Spans are encoded once per kind by the official classes. What varies has a fixed width and is filled in, at 4 µs a
span.

usage: python -m benchmarks.corpus FILE [--spans N] [--spans-per-trace N] [--spans-per-request N] [--seed N]

FILE: one line of JSON (`Corpus`, with counts for ids); for each request its length and its number of spans, two
little-endian uint32, and its bytes; then the ids of error and slow traces and those kept by randomness, 16 bytes
each.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from benchmarks.shop import OPERATIONS, Operation

EPOCH_NS = 1_760_000_000_000_000_000
INSTANCES = 4  # of each service
# 1 % as OpenTelemetry encodes it: a trace is kept if the low 56 bits of its id are at least this.
ONE_PERCENT = 0xFD70A << 36
SPAN_BYTES = 440
_SCHEMA = "https://opentelemetry.io/schemas/1.34.0"


@dataclasses.dataclass
class Corpus:
    """Facts about a corpus; `must` and `random` are the trace ids a 1 % sampler with error and slow rules keeps."""

    spans: int
    spans_per_trace: int
    spans_per_request: int
    seed: int
    requests: int = 0
    span_bytes: int = 0  # of the spans alone, tags and lengths included
    request_bytes: int = 0
    must: list[bytes] = dataclasses.field(default_factory=list)
    random: list[bytes] = dataclasses.field(default_factory=list)


class Request(NamedTuple):
    message: bytes
    spans: int


def _varint(n: int) -> bytes:
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def _field(number: int, payload: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(payload)) + payload


def _key_values(attributes: dict[str, str | int]) -> list[KeyValue]:
    return [
        KeyValue(key=key, value=AnyValue(int_value=value) if isinstance(value, int) else AnyValue(string_value=value))
        for key, value in attributes.items()
    ]


# What varies in a span, as it stands in the template: each of the width of what replaces it, none occurring by chance.
_TRACE_ID, _SPAN_ID, _PARENT_ID = b"\xf1" * 16, b"\xf2" * 8, b"\xf3" * 8
_START, _END = 0xF4F4F4F4F4F4F4F4, 0xF5F5F5F5F5F5F5F5
_USER, _POD, _KEY = "\x01" * 8, "\x02" * 5, "\x03" * 8


def _template(operation: Operation, root: bool, error: bool) -> bytes:
    """Encode a span (as a field of ScopeSpans) as a format for `bytes % mapping`."""
    user = ("eu-west-2/" if root and operation is not OPERATIONS[0] else "") + "u-" + _USER
    attributes: dict[str, str | int] = {"user.id": user, **operation.attributes}
    attributes["network.peer.name"] = f"{operation.service[:4]}-6f9c7d5b8-{_POD}"
    span = Span(
        trace_id=_TRACE_ID,
        span_id=_SPAN_ID,
        parent_span_id=b"" if root else _PARENT_ID,
        flags=0x101,
        name=operation.name,
        kind=operation.kind,
        start_time_unix_nano=_START,
        end_time_unix_nano=_END,
        attributes=_key_values({k: v.replace("#", _KEY) if isinstance(v, str) else v for k, v in attributes.items()}),
        status=Status(code=Status.STATUS_CODE_ERROR, message="upstream timed out") if error else Status(),
    )
    assert len(span.attributes) == 11, operation.name
    encoded = _field(2, span.SerializeToString()).replace(b"%", b"%%")
    for old, name in (
        (_TRACE_ID, b"trace"),
        (_SPAN_ID, b"span"),
        (_PARENT_ID, b"parent"),
        (struct.pack("<Q", _START), b"start"),
        (struct.pack("<Q", _END), b"end"),
        (_USER.encode(), b"user"),
        (_POD.encode(), b"pod"),
        (_KEY.encode(), b"key"),
    ):
        encoded = encoded.replace(old, b"%(" + name + b")b")
    return encoded


class _Instance:
    """One process of a service: its envelope, and the batch its SDK is filling."""

    def __init__(self, service: str, number: int, rng: random.Random) -> None:
        pod = "".join(rng.choices("bcdfghjklmnpqrstvwxz2456789", k=5))
        self.pod = pod.encode()
        resource = Resource(
            attributes=_key_values(
                {
                    "service.name": service,
                    "service.namespace": "shop",
                    "service.version": "2.14.3",
                    "service.instance.id": f"{service}-{number}",
                    "deployment.environment.name": "production",
                    "k8s.namespace.name": "shop",
                    "k8s.pod.name": f"{service}-6f9c7d5b8-{pod}",
                    "host.name": f"node-{rng.randrange(40)}",
                    "telemetry.sdk.language": "python",
                    "telemetry.sdk.name": "opentelemetry",
                    "telemetry.sdk.version": "1.36.0",
                }
            )
        )
        self._head = _field(1, resource.SerializeToString())
        self._tail = _field(3, _SCHEMA.encode())
        names = ("opentelemetry.instrumentation." + service, service + ".db")
        self._scopes = [
            _field(1, InstrumentationScope(name=name, version="0.57b0").SerializeToString()) for name in names
        ]
        self.batches: list[list[bytes]] = [[] for _ in names]
        self.waiting = 0

    def flush(self) -> Request:
        """Return a request with all spans that wait; none waits afterwards."""
        body = self._head
        for scope, batch in zip(self._scopes, self.batches, strict=True):
            if batch:
                body += _field(2, scope + b"".join(batch))
                batch.clear()
        spans, self.waiting = self.waiting, 0
        return Request(_field(1, body + self._tail), spans)


def generate(corpus: Corpus) -> Iterator[Request]:
    """Yield the requests of a corpus in the order of sending, and fill in the facts of `corpus` on the way."""
    per_trace, limit = corpus.spans_per_trace, corpus.spans_per_request
    assert 1 <= per_trace <= len(OPERATIONS)
    assert corpus.spans % per_trace == 0
    rng = random.Random(corpus.seed)
    services = sorted({operation.service for operation in OPERATIONS})
    instances = {service: [_Instance(service, n, rng) for n in range(INSTANCES)] for service in services}
    templates = [
        [[_template(operation, root, error) for error in (False, True)] for root in (False, True)]
        for operation in OPERATIONS
    ]
    scope_of = [
        int(operation.kind == Span.SPAN_KIND_INTERNAL or "db.system.name" in operation.attributes)
        for operation in OPERATIONS
    ]
    pack = struct.Struct("<Q").pack

    def emit(request: Request) -> Request:
        corpus.requests += 1
        corpus.request_bytes += len(request.message)
        return request

    special: dict[int, str] = {}
    for n in range(corpus.spans // per_trace):
        if n % 100 == 0:
            special = dict(zip(rng.sample(range(n, n + 100), 2), ("error", "slow"), strict=True))
        fate = special.get(n)
        trace_id = rng.randbytes(16)
        if fate:
            corpus.must.append(trace_id)
        elif int.from_bytes(trace_id[9:], "big") >= ONE_PERCENT:
            corpus.random.append(trace_id)
        ids = rng.randbytes(8 * per_trace)
        shape = range(per_trace) if per_trace > 1 else (rng.randrange(len(OPERATIONS)),)
        failing = rng.choice(shape) if fate == "error" else -1
        unit = rng.randrange(1_200_000, 3_000_000) if fate == "slow" else rng.randrange(40_000, 400_000)
        began = EPOCH_NS + n * 100_000
        user = b"%08d" % rng.randrange(10**8)
        picked = {service: members[rng.randrange(INSTANCES)] for service, members in instances.items()}
        for i in reversed(shape):  # a span is sent when it has ended: children before their parents
            operation = OPERATIONS[i]
            root = per_trace == 1 or i == 0
            start = began if per_trace == 1 else began + operation.offset * unit
            position = i if per_trace > 1 else 0
            instance = picked[operation.service]
            span = templates[i][root][i == failing] % {
                b"trace": trace_id,
                b"span": ids[8 * position : 8 * position + 8],
                b"parent": ids[8 * operation.parent : 8 * operation.parent + 8],
                b"start": pack(start),
                b"end": pack(start + (1000 if per_trace == 1 else operation.duration) * unit),
                b"user": user,
                b"pod": instance.pod,
                b"key": b"%08x" % rng.getrandbits(32),
            }
            corpus.span_bytes += len(span)
            instance.batches[scope_of[i]].append(span)
            instance.waiting += 1
            if instance.waiting == limit:
                yield emit(instance.flush())
    for members in instances.values():
        for instance in members:
            if instance.waiting:
                yield emit(instance.flush())


_FRAME = struct.Struct("<II")
HEADER_BYTES = 4096  # the first line is padded to this, since what it says is known only at the end


def write(path: str, corpus: Corpus) -> None:
    """Generate a corpus into a file."""
    with open(path, "wb") as file:
        file.seek(HEADER_BYTES)
        for message, spans in generate(corpus):
            file.write(_FRAME.pack(len(message), spans))
            file.write(message)
        ids = file.tell()
        file.write(b"".join(corpus.must + corpus.random))
        numbers = {**dataclasses.asdict(corpus), "must": len(corpus.must), "random": len(corpus.random), "ids": ids}
        file.seek(0)
        file.write(json.dumps(numbers).encode().ljust(HEADER_BYTES - 1) + b"\n")


def _header(file: BinaryIO) -> tuple[Corpus, int]:
    numbers = json.loads(file.read(HEADER_BYTES))
    ids = numbers.pop("ids")
    file.seek(ids)
    must, picked = ([file.read(16) for _ in range(numbers.pop(key))] for key in ("must", "random"))
    return Corpus(**numbers, must=must, random=picked), ids


def read(path: str) -> Corpus:
    """Read the facts at the head of a corpus file."""
    with open(path, "rb") as file:
        return _header(file)[0]


def requests(path: str) -> Iterator[Request]:
    """Yield the requests of a corpus file."""
    with open(path, "rb") as file:
        corpus, _ = _header(file)
        file.seek(HEADER_BYTES)
        for _ in range(corpus.requests):
            length, spans = _FRAME.unpack(file.read(_FRAME.size))
            yield Request(file.read(length), spans)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="benchmarks.corpus", description="Write a corpus to a file and say what it is like."
    )
    parser.add_argument("file")
    parser.add_argument("--spans", type=int, default=100_000)
    parser.add_argument("--spans-per-trace", type=int, default=20)
    parser.add_argument("--spans-per-request", type=int, default=512)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    corpus = Corpus(arguments.spans, arguments.spans_per_trace, arguments.spans_per_request, arguments.seed)
    write(arguments.file, corpus)
    decoded = ExportTraceServiceRequest.FromString(next(requests(arguments.file)).message)
    print(f"{corpus.requests} requests, {os.path.getsize(arguments.file)} bytes")
    mean, wire = corpus.span_bytes / corpus.spans, corpus.request_bytes / corpus.spans
    print(f"mean span {mean:.1f} bytes, with envelopes {wire:.1f}")
    print(f"traces with an error or slow {len(corpus.must)}, kept by randomness {len(corpus.random)}")
    print(decoded.resource_spans[0].resource, decoded.resource_spans[0].scope_spans[0].spans[0])


if __name__ == "__main__":
    main()
