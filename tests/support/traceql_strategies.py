"""Hypothesis strategies for TraceQL, as text, and for traces that it is about.

Expressions are made of what the parser knows to fit together; the few that it refuses (constants that divide by zero,
say) are left out. Keys and values of both sides come from the pools of `strategies`, and few of them, so that
expressions hold now and then.
"""

from __future__ import annotations

from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from sampler_proxy.errors import TraceQLError
from sampler_proxy.traceql.parse import parse
from tests.support.reference import Seen
from tests.support.strategies import KEYS, TRACE_IDS

Text = st.SearchStrategy[str]

KEY_POOL = [key for key in KEYS if key]  # an empty key cannot be written
STRING_POOL = ["", "a", "b", "é", "500", "a\nb"]
INT_POOL = [0, 1, 2, 3, -1, 500, 2**53 + 1, 2**63 - 1, -(2**63)]
FLOAT_POOL = [0.0, 0.5, 1.0, 1.5, 500.0, 2.0**53]
NUMBERS = ["0", "1", "2", "3", "-1", "500", "0.5", "1.5", "1e3", "maxInt", "minInt", "9007199254740993", "1ns", "1s"]
DURATIONS = ["0s", "1ns", "1s", "2s", "1500ms", "-1s", "1", "0.5", "maxInt"]
SECOND = 10**9
LINKED_IDS = [bytes(7) + bytes([n]) for n in (1, 2, 9)]


# Traces


def _array(elements: list[AnyValue]) -> AnyValue:
    return AnyValue(array_value=ArrayValue(values=elements))


_scalars = st.one_of(
    st.sampled_from(STRING_POOL).map(lambda v: AnyValue(string_value=v)),
    st.sampled_from(INT_POOL).map(lambda v: AnyValue(int_value=v)),
    st.sampled_from([*FLOAT_POOL, -0.0, float("nan"), float("inf"), float("-inf")]).map(
        lambda v: AnyValue(double_value=v)
    ),
    st.booleans().map(lambda v: AnyValue(bool_value=v)),
)
_values = st.one_of(
    _scalars,
    _scalars,
    _scalars,
    st.lists(_scalars, max_size=3).map(_array),
    st.sampled_from([AnyValue(), AnyValue(bytes_value=b"a"), _array([_array([AnyValue(string_value="a")])])]),
)
_attributes = st.lists(
    st.builds(lambda key, value: KeyValue(key=key, value=value), st.sampled_from(KEYS), _values), max_size=4
)
_names = st.sampled_from(STRING_POOL)
_moments = st.sampled_from([0, 1, 2, SECOND, SECOND + 1, 2 * SECOND, 3 * SECOND])
_events = st.builds(Span.Event, time_unix_nano=_moments, name=_names, attributes=_attributes)
_links = st.builds(
    Span.Link, trace_id=st.sampled_from(TRACE_IDS), span_id=st.sampled_from(LINKED_IDS), attributes=_attributes
)
_spans = st.builds(
    Span,
    name=_names,
    kind=st.integers(0, 5),
    start_time_unix_nano=_moments,
    end_time_unix_nano=_moments,
    attributes=_attributes,
    events=st.lists(_events, max_size=3),
    links=st.lists(_links, max_size=2),
    status=st.none() | st.builds(Status, message=_names, code=st.integers(0, 2)),
)
_resources = st.builds(Resource, attributes=_attributes)
_scopes = st.builds(InstrumentationScope, name=_names, version=_names, attributes=_attributes)


@st.composite
def traces(draw: st.DrawFn, *, conflicting: bool = False) -> list[Seen]:
    """One to seven spans of one trace, in order of arrival: trees, mostly, but roots, parents that never come and
    cycles as well; some arrive twice. `conflicting`: as another span of the same id."""
    trace_id = draw(st.sampled_from(TRACE_IDS))
    envelopes = draw(st.lists(st.tuples(_resources, _scopes), min_size=1, max_size=2))
    ids = [bytes(7) + bytes([n]) for n in range(1, draw(st.integers(1, 7)) + 1)]
    found = []
    for n, span_id in enumerate(ids):
        span = draw(_spans)
        earlier = ids[:n] * 4 or [b""]
        span.parent_span_id = draw(st.sampled_from([*earlier, *earlier, b"", bytes(8), bytes(7) + b"\xff", *ids]))
        span.trace_id, span.span_id = trace_id, span_id
        found.append(Seen(*draw(st.sampled_from(envelopes)), span))
    for again in draw(st.lists(st.sampled_from(found), max_size=2)):
        span = Span()
        span.CopyFrom(draw(_spans) if conflicting else again.span)
        span.trace_id, span.span_id = trace_id, again.span.span_id
        found.append(again._replace(span=span))
    return draw(st.permutations(found))


# Expressions


def quoted(text: str) -> str:
    """As a constant."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _joined(*parts: Text) -> Text:
    return st.tuples(*parts).map(" ".join)


_SCOPES = ["span.", ".", "span.", ".", "resource.", "event.", "link.", "instrumentation."]
_attribute_names = st.tuples(st.sampled_from(_SCOPES), st.sampled_from(KEY_POOL)).map("".join)
_strings = st.sampled_from(STRING_POOL).map(quoted)
_patterns = st.sampled_from(["a", "a|b", ".*", "[0-9]+", "", "a.b", "é", "(?i)A.*"]).map(quoted)
_orders = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])
_equalities = st.sampled_from(["=", "!="])
_matches = st.sampled_from(["=~", "!~"])
_numbers = st.sampled_from(NUMBERS)
_string_intrinsics = st.sampled_from(
    [
        *("name", "statusMessage", "rootName", "rootServiceName", "event:name", "instrumentation:name"),
        *("instrumentation:version", "span:name", "trace:rootName"),
    ]
)
_duration_intrinsics = st.sampled_from(["duration", "traceDuration", "event:timeSinceStart"])
_id_conditions = st.one_of(
    _joined(
        st.sampled_from(["span:id", "span:parentID", "link:spanID"]),
        _orders,
        st.sampled_from(["", "0000000000000001", "0000000000000002", "00000000000000FF"]).map(quoted),
    ),
    _joined(
        st.sampled_from(["trace:id", "link:traceID"]),
        _equalities,
        st.sampled_from([trace_id.hex() for trace_id in TRACE_IDS] + ["1"]).map(quoted),
    ),
)


def _arithmetic(inner: Text) -> Text:
    return st.one_of(
        st.tuples(inner, st.sampled_from("+-*/%^"), inner).map("({0[0]} {0[1]} {0[2]})".format),
        inner.map("-({})".format),
    )


_number_fields = st.recursive(
    st.one_of(_attribute_names, _attribute_names, _duration_intrinsics, _numbers), _arithmetic, max_leaves=4
)
# Comparisons with which type on which side is decided by the parser; here are those that it takes.
_conditions = st.one_of(
    _joined(_attribute_names, _orders, _strings | _numbers),
    _joined(_attribute_names, _orders, _strings | _numbers),
    _joined(_strings | _numbers, _orders, _attribute_names),
    _joined(_attribute_names, _equalities, st.sampled_from(["true", "false", "nil"])),
    _joined(_attribute_names, _matches, _patterns),
    _joined(_attribute_names, _orders, _attribute_names),
    _joined(_attribute_names, _orders, _string_intrinsics | _duration_intrinsics),
    _joined(_string_intrinsics, _orders, _strings | _string_intrinsics),
    _joined(_string_intrinsics, _matches, _patterns),
    _joined(_duration_intrinsics, _orders, st.sampled_from(DURATIONS)),
    _joined(_number_fields, _orders, _number_fields),
    _joined(_number_fields, _orders, _number_fields),
    _joined(st.just("status"), _equalities, st.sampled_from(["ok", "error", "unset"])),
    _joined(st.just("kind"), _equalities, st.sampled_from(["server", "client", "internal", "unspecified"])),
    _joined(st.sampled_from(["event:name", "link:spanID", "rootName", "traceDuration", "name"]), st.just("!= nil")),
    _id_conditions,
    _attribute_names,
    _attribute_names.map("!{}".format),
    st.sampled_from(["true", "false"]),
)


def _combined(inner: Text) -> Text:
    return st.one_of(
        inner.map("!({})".format),
        st.tuples(inner, st.sampled_from(["&&", "||"]), inner).map("({0[0]}) {0[1]} ({0[2]})".format),
        st.tuples(inner, st.sampled_from(["&&", "||"]), inner).map("({0[0]}) {0[1]} ({0[2]})".format),
        st.tuples(inner, _equalities, inner | _attribute_names).map("({0[0]}) {0[1]} ({0[2]})".format),
        st.tuples(inner, inner, inner, st.permutations(["&&", "||"])).map(
            "({0[0]}) {0[3][0]} ({0[1]}) {0[3][1]} ({0[2]})".format
        ),
    )


conditions = st.recursive(_conditions, _combined, max_leaves=4)
_braces = (
    conditions.map("{{ {} }}".format) | conditions.map("{{ {} }}".format) | st.sampled_from(["{}", "{ name != `b` }"])
)
_aggregates = st.one_of(
    _joined(st.just("count()"), _orders, st.sampled_from(["0", "1", "2", "3", "1.5", "1ns"])),
    _joined(
        st.tuples(st.sampled_from(["min", "max", "avg", "sum"]), _number_fields).map("{0[0]}({0[1]})".format),
        _orders,
        _numbers,
    ),
)


def _spansets(inner: Text) -> Text:
    operators = st.sampled_from(["&&", "||", ">", ">>", "<", "<<", "~", "!>", "!>>", "!<", "!<<", "!~"])
    return st.one_of(
        st.tuples(inner, operators, inner).map("({0[0]}) {0[1]} ({0[2]})".format),
        st.tuples(inner, operators, inner).map("({0[0]}) {0[1]} ({0[2]})".format),
        st.lists(inner.map("({})".format) | _aggregates, min_size=2, max_size=3).map(" | ".join),
    )


def _parses(text: str) -> bool:
    try:
        parse(text)
    except TraceQLError:
        return False
    return True


expressions: Text = st.recursive(_braces, _spansets, max_leaves=4).filter(_parses)
