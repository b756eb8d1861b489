"""Hypothesis strategies for OTLP traces, their encodings, and rules over them.

Ids, keys and values come from small pools, so that spans share traces, attributes collide and conditions hold now and
then. Everything that is drawn is valid protobuf; `damage` breaks bytes. What is drawn with `wire_requests` is equal,
field by field, to the message beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random
from typing import Any

from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, EntityRef, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from sampler_proxy.traceql.program import AND, FALSE, NOT, OR, TRUE, Condition, Field, Kind, Op
from tests.support import reference, wire

TRACE_IDS = [bytes([n]) * 8 + bytes([n, 0, n, 255, 0, 1, 2, n]) for n in (1, 2, 128, 255)] + [bytes(15) + b"\x01"]
BAD_TRACE_IDS = [b"", bytes(16), b"\x01" * 15, b"\x01" * 17]
SPAN_IDS = [n.to_bytes(8) for n in (1, 2, 3, 1 << 56, (1 << 64) - 1)]
BAD_SPAN_IDS = [b"", bytes(8), b"\x01" * 7, b"\x01" * 9]
PARENT_IDS = [b"", b"", bytes(8), *SPAN_IDS, b"\x00\x01", bytes(3)]

KEYS = ["http.status_code", "service.name", "a", "é", "", "n-1"]
STRINGS = ["", "a", "b", "ab", "é", "500", "GET /x", "a\nb", "x" * 200]
INTS = [0, 1, -1, 2, 500, 2**53, 2**53 + 1, 2**63 - 1, -(2**63)]
FLOATS = [0.0, -0.0, 1.0, 1.5, 500.0, 2.0**53, 2.0**63, 5e-324, float("inf"), float("-inf"), float("nan")]
TIMES = [0, 1, 10**9, 10**9 + 1, 2 * 10**9, 10**18, 2**63 - 1, 2**63, 2**64 - 1]
CODES = [0, 1, 2, 3, -1, 2**31 - 1, -(2**31)]

strings = st.sampled_from(STRINGS) | st.text(max_size=6)
ints = st.sampled_from(INTS) | st.integers(-(2**63), 2**63 - 1)
floats = st.sampled_from(FLOATS) | st.floats()
times = st.sampled_from(TIMES) | st.integers(0, 2**64 - 1)
uint32s = st.sampled_from([0, 0, 0, 1, 257, 2**32 - 1])


# Messages


def _array(elements: list[AnyValue]) -> AnyValue:
    value = AnyValue()
    value.array_value.values.extend(elements)
    if not elements:
        value.array_value.SetInParent()
    return value


def _kvlist(pairs: list[KeyValue]) -> AnyValue:
    value = AnyValue()
    value.kvlist_value.values.extend(pairs)
    if not pairs:
        value.kvlist_value.SetInParent()
    return value


def _key_value(key: str, value: AnyValue | None) -> KeyValue:
    return KeyValue(key=key, value=value) if value is not None else KeyValue(key=key)


keys = st.sampled_from(KEYS)
any_values: st.SearchStrategy[AnyValue] = st.recursive(
    st.one_of(
        strings.map(lambda v: AnyValue(string_value=v)),
        ints.map(lambda v: AnyValue(int_value=v)),
        floats.map(lambda v: AnyValue(double_value=v)),
        st.booleans().map(lambda v: AnyValue(bool_value=v)),
        st.binary(max_size=4).map(lambda v: AnyValue(bytes_value=v)),
        st.just(AnyValue()),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(_array),
        st.lists(st.builds(_key_value, keys, inner), max_size=2).map(_kvlist),
    ),
    max_leaves=4,
)
attributes = st.lists(st.builds(_key_value, keys, st.none() | any_values), max_size=4)

hex_digits = st.text("0123456789abcdef", min_size=1, max_size=14)
ot_values = st.lists(
    st.one_of(
        hex_digits.map("th:{}".format),
        st.sampled_from(["th:8", "th:0", "th:fd70a", "th:ffffffffffffff", "th:00000000000001"]),
        st.text("0123456789abcdef", min_size=14, max_size=14).map("rv:{}".format),
        st.sampled_from(["rv:ffffffffffffff", "rv:00000000000000", "rv:80000000000000", "rv:7fffffffffffff"]),
        st.sampled_from(
            ["th:", "th:FD70A", "th:123456789abcdef", "rv:1", "rv:", "p:8", "k1:x.Y_-z", "", "bad", " th:8", "th"]
        ),
        st.integers(200, 256).map(lambda n: "z:" + "v" * n),
    ),
    max_size=4,
).map(";".join)
tracestates = st.one_of(
    st.just(""),
    ot_values.map("ot={}".format),
    st.lists(
        st.one_of(
            ot_values.map("ot={}".format),
            st.sampled_from(
                ["rojo=1", "congo=t61r;x:y", "t@v=1", "0k=a b", "", " ", "bad", "=", "k=", "UP=1", "é=1", "k=é"]
            ),
            st.tuples(st.sampled_from(["", " ", "\t "]), st.just("v=1"), st.sampled_from(["", " \t"])).map("".join),
        ),
        max_size=5,
    ).map(",".join),
    st.integers(28, 34).map(lambda n: ",".join(f"m{i}=1" for i in range(n))),
    st.text(max_size=10),
)

events = st.builds(
    Span.Event, time_unix_nano=times, name=strings, attributes=attributes, dropped_attributes_count=uint32s
)
links = st.builds(
    Span.Link,
    trace_id=st.sampled_from(TRACE_IDS + BAD_TRACE_IDS),
    span_id=st.sampled_from(SPAN_IDS + BAD_SPAN_IDS),
    trace_state=tracestates,
    attributes=attributes,
    dropped_attributes_count=uint32s,
    flags=uint32s,
)
statuses = st.builds(Status, message=strings, code=st.sampled_from(CODES))


def spans(*, damaged_ids: bool = True) -> st.SearchStrategy[Span]:
    """Draw spans, some without a valid id unless told otherwise."""
    bad = damaged_ids
    return st.builds(
        Span,
        trace_id=st.sampled_from(TRACE_IDS * 5 + (BAD_TRACE_IDS if bad else [])),
        span_id=st.sampled_from(SPAN_IDS * 5 + (BAD_SPAN_IDS if bad else [])),
        trace_state=tracestates,
        parent_span_id=st.sampled_from(PARENT_IDS),
        flags=st.sampled_from([0, 0x100, 0x300, 0x301]) | uint32s,
        name=strings,
        kind=st.sampled_from(CODES),
        start_time_unix_nano=times,
        end_time_unix_nano=times,
        attributes=attributes,
        dropped_attributes_count=uint32s,
        events=st.lists(events, max_size=1),
        dropped_events_count=uint32s,
        links=st.lists(links, max_size=1),
        dropped_links_count=uint32s,
        status=st.none() | statuses,
    )


entity_refs = st.builds(
    EntityRef,
    schema_url=st.sampled_from(["", "https://s/1"]),
    type=strings,
    id_keys=st.lists(keys, max_size=2),
    description_keys=st.lists(keys, max_size=1),
)
resources = st.builds(
    Resource, attributes=attributes, dropped_attributes_count=uint32s, entity_refs=st.lists(entity_refs, max_size=1)
)
scopes = st.builds(
    InstrumentationScope, name=strings, version=strings, attributes=attributes, dropped_attributes_count=uint32s
)
schema_urls = st.sampled_from(["", "https://s/1", "https://s/2"])


def requests(*, damaged_ids: bool = True) -> st.SearchStrategy[ExportTraceServiceRequest]:
    scope_spans = st.builds(
        ScopeSpans,
        scope=st.none() | scopes,
        spans=st.lists(spans(damaged_ids=damaged_ids), max_size=4),
        schema_url=schema_urls,
    )
    resource_spans = st.builds(
        ResourceSpans,
        resource=st.none() | resources,
        scope_spans=st.lists(scope_spans, max_size=2),
        schema_url=schema_urls,
    )
    return st.builds(ExportTraceServiceRequest, resource_spans=st.lists(resource_spans, max_size=3))


def seen_traces() -> st.SearchStrategy[list[reference.Seen]]:
    """Draw at least one span, all of one trace."""

    def build(trace_id: bytes, parts: list[tuple[Resource, InstrumentationScope, Span]]) -> list[reference.Seen]:
        for _, _, span in parts:
            span.trace_id = trace_id
        return [reference.Seen(*part) for part in parts]

    parts = st.lists(st.tuples(resources, scopes, spans(damaged_ids=False)), min_size=1, max_size=4)
    return st.builds(build, st.sampled_from(TRACE_IDS), parts)


# Bytes

noises = st.builds(
    wire.Noise,
    order=st.booleans(),
    repeat=st.booleans(),
    split=st.booleans(),
    unknown=st.booleans(),
    overlong=st.booleans(),
    wide=st.booleans(),
)
seeds = st.integers(0, 2**32 - 1).map(Random)


def wire_requests(
    source: st.SearchStrategy[ExportTraceServiceRequest] | None = None,
) -> st.SearchStrategy[tuple[ExportTraceServiceRequest, bytes]]:
    """Draw a request and an encoding of it (unknown fields may have been added)."""
    return st.builds(
        lambda request, random, noise: (request, wire.encode(request, random, noise)),
        source if source is not None else requests(),
        seeds,
        noises,
    )


def damage(raw: bytes, random: Random) -> bytes:
    """Cut off, flip, overwrite, remove, insert or repeat something, one to three times. It may still be valid."""
    for _ in range(random.randint(1, 3)):
        at = random.randint(0, len(raw))
        end = min(len(raw), at + random.choice([1, 1, 2, 5, 20]))
        action = random.randrange(6)
        if action == 0:
            raw = raw[:at]
        elif action == 1 and raw:
            at = min(at, len(raw) - 1)
            raw = raw[:at] + bytes([raw[at] ^ 1 << random.randrange(8)]) + raw[at + 1 :]
        elif action == 2:
            raw = raw[:at] + random.choice([b"\x00", b"\xff", b"\x80", b"\x7f"]) * (end - at) + raw[end:]
        elif action == 3:
            raw = raw[:at] + raw[end:]
        elif action == 4:
            raw = raw[:at] + random.randbytes(random.randint(1, 5)) + raw[at:]
        else:
            raw = raw[:end] + raw[at:]
    return raw


damaged_requests: st.SearchStrategy[bytes] = st.builds(
    lambda pair, random: damage(pair[1], random), wire_requests(), seeds
)


# Rules

STRING_FIELDS = [
    Field.NAME,
    Field.STATUS_MESSAGE,
    Field.SPAN_ID,
    Field.PARENT_ID,
    Field.SCOPE_NAME,
    Field.SCOPE_VERSION,
]
STRING_TRACE_FIELDS = [Field.ROOT_NAME, Field.ROOT_SERVICE, Field.TRACE_ID]
ATTRIBUTE_FIELDS = [Field.SPAN_ATTRIBUTE, Field.RESOURCE_ATTRIBUTE, Field.SCOPE_ATTRIBUTE, Field.ANY_ATTRIBUTE]
ORDERS = [Op.EQ, Op.NE, Op.LT, Op.LE, Op.GT, Op.GE]


def anchored(pattern: str) -> Callable[[bytes], bool]:
    """Compile the value of a REGEX condition: anchored at both ends, the dot matches line breaks."""
    compiled = re.compile(pattern.encode(), re.DOTALL)
    return lambda value: compiled.fullmatch(value) is not None


def _texts(pool: list[bytes]) -> st.SearchStrategy[tuple[Op, Kind, Any]]:
    regexes = st.sampled_from(["a.*", ".*", "a|b", "[0-9]+", "", "a.b", "é.*"]).map(anchored)
    return st.one_of(
        st.tuples(st.sampled_from(ORDERS), st.just(Kind.STRING), st.sampled_from(pool)),
        st.tuples(st.sampled_from([Op.MATCH, Op.NOT_MATCH]), st.just(Kind.REGEX), regexes),
    )


def _ints(pool: list[int]) -> st.SearchStrategy[tuple[Op, Kind, Any]]:
    return st.tuples(st.sampled_from(ORDERS), st.just(Kind.INT), st.sampled_from(pool))


_string_pool = [s.encode() for s in STRINGS]
_id_pool = [b"", *(i.hex().encode() for i in SPAN_IDS + TRACE_IDS)]
_numbers = st.one_of(_ints(INTS), st.tuples(st.sampled_from(ORDERS), st.just(Kind.FLOAT), st.sampled_from(FLOATS[:-1])))
_durations = st.one_of(
    _ints([0, 1, 10**9, 2**63 - 1, -1]),
    st.tuples(st.sampled_from(ORDERS), st.just(Kind.FLOAT), st.sampled_from([0.5, 1e9, 2.0**63])),
)
_anything = st.one_of(
    _texts(_string_pool),
    _numbers,
    st.tuples(st.sampled_from([Op.EQ, Op.NE]), st.just(Kind.BOOL), st.booleans()),
    st.tuples(st.sampled_from([Op.IS_NIL, Op.NOT_NIL]), st.just(Kind.NONE), st.none()),
)


def _condition(fields: list[Field], rest: st.SearchStrategy[tuple[Op, Kind, Any]]) -> st.SearchStrategy[Condition]:
    return st.builds(lambda field, r: Condition(field, b"", *r), st.sampled_from(fields), rest)


span_conditions: st.SearchStrategy[Condition] = st.one_of(
    st.builds(
        lambda field, key, r: Condition(field, key.encode(), *r), st.sampled_from(ATTRIBUTE_FIELDS), keys, _anything
    ),
    _condition(STRING_FIELDS, _texts(_string_pool + _id_pool)),
    _condition([Field.STATUS, Field.KIND], _ints([0, 1, 2, 3, -1])),
    _condition([Field.DURATION], _durations),
)
trace_conditions: st.SearchStrategy[Condition] = st.one_of(
    _condition(STRING_TRACE_FIELDS, _texts(_string_pool + _id_pool)),
    _condition([Field.TRACE_DURATION, Field.ROOT_DURATION], _durations),
)


def programs(operands: int) -> st.SearchStrategy[tuple[int, ...]]:
    """Draw postfix programs over `operands` operands; TRUE and FALSE occur."""
    leaves = st.sampled_from([*range(operands)] * 3 + [TRUE, FALSE]).map(lambda step: (step,))
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            inner.map(lambda p: (*p, NOT)),
            st.tuples(inner, inner, st.sampled_from([AND, OR])).map(lambda t: (*t[0], *t[1], t[2])),
        ),
        max_leaves=5,
    )


def filters(conditions: st.SearchStrategy[Condition] = span_conditions) -> st.SearchStrategy[reference.Filter]:
    return st.lists(conditions, max_size=4).flatmap(
        lambda found: programs(len(found)).map(lambda program: reference.Filter(tuple(found), program))
    )


def selections() -> st.SearchStrategy[reference.Selection]:
    source = st.lists(filters(span_conditions | trace_conditions), min_size=1, max_size=3)
    return source.flatmap(
        lambda found: programs(len(found)).map(lambda program: reference.Selection(tuple(found), program))
    )


probabilities = st.sampled_from([0.0, 1.0, 0.5, 0.01, 0.0001, 1 / 3]) | st.floats(0, 1)


def rule_lists() -> st.SearchStrategy[list[reference.Rule]]:
    """Draw one to four rules; the last one has neither `match` nor `unless`."""
    some = st.lists(st.tuples(probabilities, st.none() | selections(), st.none() | selections()), max_size=3)
    return st.builds(
        lambda first, last: [
            *(reference.Rule(f"r{i}", *parts) for i, parts in enumerate(first)),
            reference.Rule(f"r{len(first)}", last),
        ],
        some,
        probabilities,
    )
