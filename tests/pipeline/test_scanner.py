"""The scan against the official parser: the same verdict on the same bytes, and the same spans in them.

On purpose the scan accepts strings that are not UTF-8, and so does `official.structure`; test_utf8.py shows what
becomes of them. Requests of 2 GiB or more are refused by both; that is too much for a test.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from sampler_proxy.errors import MalformedRequest
from sampler_proxy.pipeline.scanner import Scanner
from sampler_proxy.rules.plan import Plan
from sampler_proxy.traceql.program import AND, Condition, Field, Kind, Op
from tests.otlp import official
from tests.support import reference, strategies, wire
from tests.support.wire import EGROUP, FIXED32, FIXED64, LEN, SGROUP, VARINT, field, tag, varint


def _busy() -> Plan:
    """A plan with a condition on every attribute and field of the requests here, so that all reading code runs."""
    conditions = [
        Condition(place, key.encode(), Op.EQ, Kind.STRING, b"x")
        for place in strategies.ATTRIBUTE_FIELDS
        for key in [*strategies.KEYS, "k"]
    ]
    conditions += [Condition(place, b"", Op.EQ, Kind.STRING, b"x") for place in strategies.STRING_FIELDS]
    conditions += [Condition(place, b"", Op.EQ, Kind.INT, 2) for place in (Field.STATUS, Field.KIND, Field.DURATION)]
    return Plan(conditions, [(0, *(token for n in range(1, len(conditions)) for token in (n, AND)))])


# The same scanners for all tests: a request must not feel what came before it.
IDLE, BUSY = Scanner(Plan((), ())), Scanner(_busy())


def check(raw: bytes) -> bool:
    """The verdict, after it has been compared; of what is accepted, the numbers of spans, too."""
    message = official.structure(raw)
    for scanner in (IDLE, BUSY):
        try:
            scanned = scanner.scan(raw)
        except MalformedRequest:
            assert message is None, "refused, but it is sound"
            continue
        assert message is not None, "accepted, but it is damaged"
        reasons = [
            reference.invalid(one)
            for outer in message.resource_spans
            for inner in outer.scope_spans
            for one in inner.spans
        ]
        assert scanned.spans == reasons.count(None)
        assert scanned.invalid_trace_ids == reasons.count("trace_id")
        assert scanned.invalid_span_ids == reasons.count("span_id")
    return message is not None


# Where a field can stand: each wraps encoded fields of one message into a request.


def resource_spans(fields: bytes) -> bytes:
    return field(1, LEN, fields)


def resource(fields: bytes) -> bytes:
    return resource_spans(field(1, LEN, fields))


def scope_spans(fields: bytes) -> bytes:
    return resource_spans(field(2, LEN, fields))


def scope(fields: bytes) -> bytes:
    return scope_spans(field(1, LEN, fields))


def span(fields: bytes) -> bytes:
    return scope_spans(field(2, LEN, fields))


def key_value(fields: bytes) -> bytes:
    return span(field(9, LEN, fields))


PLACES: dict[str, Callable[[bytes], bytes]] = {
    "request": lambda fields: fields,
    "resource_spans": resource_spans,
    "resource": resource,
    "resource.attributes": lambda fields: resource(field(1, LEN, fields)),
    "resource.attributes.value": lambda fields: resource(field(1, LEN, field(2, LEN, fields))),
    "resource.entity_refs": lambda fields: resource(field(3, LEN, fields)),
    "scope_spans": scope_spans,
    "scope": scope,
    "scope.attributes": lambda fields: scope(field(3, LEN, fields)),
    "span": span,
    "span.attributes": key_value,
    "span.attributes.value": lambda fields: key_value(field(2, LEN, fields)),
    "span.attributes.value, key known": lambda fields: key_value(field(1, LEN, b"k") + field(2, LEN, fields)),
    "span.attributes.value.array": lambda fields: key_value(field(2, LEN, field(5, LEN, fields))),
    "span.attributes.value.kvlist": lambda fields: key_value(field(2, LEN, field(6, LEN, fields))),
    "event": lambda fields: span(field(11, LEN, fields)),
    "event.attributes": lambda fields: span(field(11, LEN, field(3, LEN, fields))),
    "link": lambda fields: span(field(13, LEN, fields)),
    "link.attributes": lambda fields: span(field(13, LEN, field(4, LEN, fields))),
    "status": lambda fields: span(field(15, LEN, fields)),
}
places = pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)


def groups(depth: int, inside: bytes = b"") -> bytes:
    return tag(77, SGROUP) * depth + inside + tag(77, EGROUP) * depth


SOUND = {
    "nothing": b"",
    "varint": tag(99, VARINT) + varint(5),
    "varint of 10 bytes": tag(99, VARINT) + varint(2**64 - 1),
    "varint of 10 bytes, bits above the 64th": tag(99, VARINT) + b"\xff" * 9 + b"\x7f",
    "overlong varint": tag(99, VARINT) + varint(0, 10),
    "overlong tag": tag(99, VARINT, 5) + b"\x00",
    "overlong tag of a known field": tag(2, LEN, 5) + b"\x00",
    "overlong length": tag(99, LEN) + varint(1, 5) + b"x",
    "fixed64": tag(99, FIXED64) + bytes(8),
    "fixed32": tag(99, FIXED32) + bytes(4),
    "largest field number": tag((1 << 29) - 1, LEN) + b"\x00",
    "empty group": groups(1),
    "group with everything": groups(
        1,
        b"".join(
            [tag(1, VARINT, 2), b"\x01", tag(2, FIXED64), bytes(8), tag(3, LEN), b"\x01x", tag(4, FIXED32), bytes(4)]
        ),
    ),
    "groups next to each other in a group": groups(1, groups(1) + groups(1)),
    "group in a group of the same number": groups(2),
    "field number 0 in a group": groups(1, b"\x00\x00"),
}
DAMAGED = {
    "lone tag": tag(99, VARINT),
    "tag cut off": tag(99, VARINT)[:1],
    "field number 0, varint": b"\x00\x00",
    "field number 0, length": b"\x02\x00",
    "field number 0, overlong": b"\x82\x80\x00\x00",
    "field number 0 in 33 bits": varint(1 << 32 | LEN) + b"\x00",
    "field number beyond 29 bits": varint(1 << 32 | 99 << 3 | LEN) + b"\x00",
    "tag of 6 bytes": tag(99, VARINT, 6) + b"\x00",
    "tag of 10 bytes": tag(99, VARINT, 10) + b"\x00",
    "tag without end": b"\xff" * 12,
    "wire type 6": tag(99, 6) + b"\x00",
    "wire type 7": tag(99, 7) + b"\x00",
    "wire type 6 of a known field": tag(1, 6) + b"\x00",
    "varint of 11 bytes": tag(99, VARINT) + b"\x80" * 10 + b"\x00",
    "varint cut off": tag(99, VARINT) + b"\x80\x80",
    "fixed64 cut off": tag(99, FIXED64) + bytes(7),
    "fixed32 cut off": tag(99, FIXED32) + bytes(3),
    "length beyond the end": tag(99, LEN) + varint(4) + bytes(3),
    "length of 2^32 + 3": tag(99, LEN) + varint((1 << 32) + 3) + bytes(3),
    "length of 2^31": tag(99, LEN) + varint(1 << 31) + bytes(3),
    "length of 2^63": tag(99, LEN) + varint(1 << 63) + bytes(3),
    "length of -1": tag(99, LEN) + varint(-1) + bytes(3),
    "length of 6 bytes": tag(99, LEN) + varint(3, 6) + bytes(3),
    "length missing": tag(99, LEN),
    "group not closed": tag(77, SGROUP),
    "group closed by another number": tag(77, SGROUP) + tag(78, EGROUP),
    "inner group closed by the outer number": tag(77, SGROUP) + tag(78, SGROUP) + tag(77, EGROUP) + tag(78, EGROUP),
    "inner group not closed": tag(77, SGROUP) * 2 + tag(77, EGROUP),
    "end of a group that is not open": tag(77, EGROUP),
    "end of a group too many": groups(1) + tag(77, EGROUP),
    "damage in a group": groups(1, tag(99, FIXED64) + bytes(7)),
    "length in a group beyond the end": groups(1, tag(99, LEN) + varint(40)),
    "varint in a group without end": groups(1, tag(99, VARINT) + b"\x80" * 10 + b"\x00"),
}


@places
def test_every_kind_of_field(place: Callable[[bytes], bytes]) -> None:
    for name, raw in SOUND.items():
        assert check(place(raw)), name
        assert check(place(raw + tag(99, LEN) + b"\x00")), name
        assert not check(place(raw) + b"\x0a"), name
    for name, raw in DAMAGED.items():
        assert not check(place(raw)), name


@places
def test_lengths_are_bounded_by_their_own_message(place: Callable[[bytes], bytes]) -> None:
    """What follows the message would be enough for the length, but does not belong to it."""
    behind = bytes(300)
    for inner in (
        tag(99, LEN) + varint(4),
        tag(99, FIXED64),
        tag(99, VARINT) + b"\x80",
        tag(99, VARINT, 2)[:2],
        tag(77, SGROUP),
    ):
        assert not check(place(inner) + field(99, LEN, behind))


@places
def test_known_fields_with_another_wire_type(place: Callable[[bytes], bytes]) -> None:
    """They are unknown fields: skipped, and kept."""
    for number in range(1, 17):
        for wire_type, payload in ((VARINT, varint(3)), (FIXED64, bytes(8)), (FIXED32, b"\xff" * 4)):
            assert check(place(tag(number, wire_type) + payload))
            assert not check(place(tag(number, wire_type) + payload[:-1]))
        assert check(place(tag(number, SGROUP) + tag(number, EGROUP)))
        assert not check(place(tag(number, SGROUP) + tag(number + 1, EGROUP)))
        check(place(field(number, LEN, b"\xff" * 3)))  # a text, bytes or a message, as it happens
        check(place(field(number, LEN, b"")))


@places
def test_groups_to_the_limit_of_nesting(place: Callable[[bytes], bytes]) -> None:
    verdicts = [check(place(groups(depth))) for depth in range(1, 104)]
    limit = verdicts.index(False)
    assert 90 < limit <= 100
    assert verdicts == [True] * limit + [False] * (103 - limit)


@pytest.mark.parametrize("wrap", ["arrays", "kvlists", "mixed"])
@pytest.mark.parametrize(
    "place", [name for name in PLACES if name.endswith(("attributes", "attributes.value, key known"))]
)
def test_values_to_the_limit_of_nesting(place: str, wrap: str) -> None:
    def value(depth: int, leaf: bytes) -> bytes:
        for level in range(depth):
            array = wrap == "arrays" or (wrap == "mixed" and level % 2)
            leaf = field(5, LEN, field(1, LEN, leaf)) if array else field(6, LEN, field(1, LEN, field(2, LEN, leaf)))
        return leaf if place.endswith("known") else field(1, LEN, b"k") + field(2, LEN, leaf)

    for leaf in (b"", field(1, LEN, b"x"), field(5, LEN, b""), field(6, LEN, field(1, LEN, b"")), groups(1), groups(3)):
        verdicts = [check(PLACES[place](value(depth, leaf))) for depth in range(25, 52)]
        limit = verdicts.index(False)
        assert limit > 0
        assert verdicts == [True] * limit + [False] * (len(verdicts) - limit)


# Whole requests


def rich_request() -> ExportTraceServiceRequest:
    """Every field of every message once at least."""
    message = ExportTraceServiceRequest()
    for number in range(2):
        outer = message.resource_spans.add(schema_url=f"https://s/{number}")
        outer.resource.attributes.add(key="service.name").value.string_value = "shop"
        outer.resource.dropped_attributes_count = 300
        outer.resource.entity_refs.add(schema_url="u", type="service", id_keys=["service.name"], description_keys=["k"])
        for version in ("1", "2"):
            inner = outer.scope_spans.add(schema_url="https://s/s")
            inner.scope.name, inner.scope.version = "é", version
            inner.scope.attributes.add(key="a").value.bool_value = True
            inner.scope.dropped_attributes_count = 1
            one = inner.spans.add(
                trace_id=strategies.TRACE_IDS[number],
                span_id=strategies.SPAN_IDS[1],
                parent_span_id=strategies.SPAN_IDS[2] if number else b"",
                trace_state="ot=th:8;rv:ffffffffffffff,x=y",
                name="GET /é",
                kind=Span.SPAN_KIND_SERVER,
                flags=0x101,
                start_time_unix_nano=10**18,
                end_time_unix_nano=10**18 + 10**9,
                dropped_attributes_count=1,
                dropped_events_count=2,
                dropped_links_count=3,
            )
            value = one.attributes.add(key="a").value.array_value.values
            value.add().string_value = "x"
            value.add().int_value = -1
            value.add().double_value = 1.5
            value.add().bytes_value = b"\xff\x00"
            value.add().kvlist_value.values.add(key="k").value.int_value = 1 << 40
            one.attributes.add(key="http.status_code").value.int_value = 500
            event = one.events.add(time_unix_nano=10**18, name="boom", dropped_attributes_count=4)
            event.attributes.add(key="k").value.string_value = "v"
            link = one.links.add(
                trace_id=strategies.TRACE_IDS[2], span_id=strategies.SPAN_IDS[0], trace_state="a=b", flags=1
            )
            link.attributes.add(key="k").value.string_value = "v"
            one.status.code, one.status.message = Status.STATUS_CODE_ERROR, "broken"
    return message


SMALL = {
    "one span": span(field(1, LEN, b"\x01" * 16) + field(2, LEN, b"\x02" * 8)),
    "empty envelopes": resource_spans(b"") + scope_spans(b"") + resource(b"") + scope(b"") + span(b""),
    "attribute": key_value(field(1, LEN, b"k") + field(2, LEN, field(1, LEN, b"x"))),
    "numbers": key_value(
        field(2, LEN, tag(3, VARINT) + varint(-1) + tag(4, FIXED64) + bytes(8) + tag(2, VARINT) + varint(1, 10))
        + field(1, LEN, b"k")
    ),
    "array": key_value(
        field(2, LEN, field(5, LEN, field(1, LEN, field(1, LEN, b"x")) + field(1, LEN, b""))) + field(1, LEN, b"k")
    ),
    "groups": span(groups(3, tag(1, LEN) + b"\x02xx") + field(9, LEN, groups(2))),
    "status": span(field(15, LEN, tag(3, VARINT) + varint(-1) + field(2, LEN, b"why"))),
    "event and link": span(field(11, LEN, field(3, LEN, field(1, LEN, b"k"))) + field(13, LEN, field(4, LEN, b""))),
}


@pytest.mark.parametrize("raw", SMALL.values(), ids=SMALL)
def test_every_truncation_and_every_byte_of_small_requests(raw: bytes) -> None:
    assert check(raw)
    for at in range(len(raw)):
        check(raw[:at])
        check(raw[at:])
        for byte in range(256):
            check(raw[:at] + bytes([byte]) + raw[at + 1 :])


@pytest.mark.parametrize("noise", [wire.CALM, wire.ALL], ids=["calm", "noisy"])
def test_every_truncation_of_a_rich_request(noise: wire.Noise) -> None:
    raw = wire.encode(rich_request(), Random(7), noise)
    assert check(raw)
    accepted = [at for at in range(len(raw)) if check(raw[:at])]
    assert accepted[0] == 0
    assert len(accepted) < 20  # between the fields of the outermost message only


@given(strategies.wire_requests())
@settings(max_examples=100)
def test_sound_requests(pair: tuple[ExportTraceServiceRequest, bytes]) -> None:
    assert check(pair[1])


@given(strategies.damaged_requests)
@settings(max_examples=200)
def test_damaged_requests(raw: bytes) -> None:
    check(raw)


@given(st.binary(max_size=64))
@settings(max_examples=100)
def test_random_bytes(raw: bytes) -> None:
    check(raw)
    check(span(raw))
    check(key_value(raw))
    check(key_value(field(1, LEN, b"k") + field(2, LEN, raw)))


# What a scan leaves behind: nothing


@pytest.mark.parametrize("scanner", [IDLE, BUSY], ids=["idle", "busy"])
def test_a_damaged_request_does_not_harm_the_next(scanner: Scanner) -> None:
    good = wire.encode(rich_request(), Random(7), wire.CALM)
    expected = scanner.scan(good)
    for at in range(1, len(good), 7):
        with pytest.raises(MalformedRequest):
            scanner.scan(good[:at] + b"\xff")
        scanned = scanner.scan(good)
        assert (scanned.spans, scanned.cost) == (expected.spans, expected.cost)


def test_every_size_of_request_after_every_other() -> None:
    """The table of traces grows with the largest request, and is emptied in two ways."""
    scanner, random = Scanner(Plan((), ())), Random(3)
    for _ in range(300):
        count = random.choice([0, 1, 2, 3, 20, 200, 2000] if random.random() < 0.1 else [0, 1, 2, 3, 20])
        kinds = random.choice([1, 10, 100_000])
        ids = [random.randrange(1, 1 + kinds) for _ in range(count)]
        spans = (field(2, LEN, field(1, LEN, n.to_bytes(16)) + field(2, LEN, b"\x02" * 8)) for n in ids)
        raw = scope_spans(b"".join(spans))
        if random.random() < 0.2:
            with pytest.raises(MalformedRequest):
                scanner.scan(raw + b"\x07")
        else:
            scanned, alone = scanner.scan(raw), Scanner(Plan((), ())).scan(raw)
            assert (scanned.spans, scanned.cost) == (count, alone.cost)


def test_many_empty_messages_cost_little_memory() -> None:
    """A span that could be valid has 28 bytes; what holds nothing gets no room."""
    scanner = Scanner(Plan((), ()))
    for raw in (b"\x12\x00" * 1_000_000, b"\x0a\x00" * 1_000_000, b"\x0a\x04\x0a\x00\x12\x00" * 300_000):
        scanner.scan(raw)
        scanner.scan(scope_spans(raw))


def test_the_serial_numbers_of_plans_differ() -> None:
    assert len({Plan((), ()).serial for _ in range(10)}) == 10


@pytest.mark.parametrize(
    ("conditions", "filters"),
    [
        ([Condition(Field.TRACE_DURATION, b"", Op.GT, Kind.INT, 1)], []),
        ([], [(0,)]),
        ([], [()]),
        ([], [(AND,)]),
        ([Condition(Field.STATUS, b"", Op.EQ, Kind.INT, 2)], [(0, 0)]),
        ([Condition(Field.STATUS, b"", Op.EQ, Kind.INT, 2)], [(0, 1)]),
        ([Condition(Field.STATUS, b"", Op.EQ, Kind.INT, 2)], [(-6,)]),
        ([Condition(Field.STATUS, b"", Op.EQ, Kind.INT, 2)], [(0,) * 600 + (AND,) * 599]),
    ],
)
def test_plans_that_make_no_sense(conditions: list[Condition], filters: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Plan(conditions, filters)
