"""The transcoder of OTLP/JSON: rule by rule, against the official classes, and with damaged texts."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint, NumberDataPoint
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from sampler_proxy.errors import MalformedRequest, RequestTooLarge
from sampler_proxy.otlp.json import json_line
from sampler_proxy.otlp.json_wire import to_wire
from tests.otlp.json_texts import REFUSAL, alike_or_refused
from tests.support import nezha, otlp_json


def read(text: str | bytes, kind: type[Message] = ExportTraceServiceRequest) -> Any:
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return kind.FromString(to_wire(data, kind.DESCRIPTOR.full_name))


def refusal(text: str | bytes, kind: type[Message] = ExportTraceServiceRequest) -> tuple[str, str, int]:
    """The path, what is wrong, and at which byte."""
    with pytest.raises(MalformedRequest) as refused:
        read(text, kind)
    match = REFUSAL.match(str(refused.value))
    assert match is not None, str(refused.value)
    return match[1], match[2], int(match[3])


def messages(kind: type[Message]) -> Iterator[Descriptor]:
    waiting, seen = [kind.DESCRIPTOR], set()
    while waiting:
        here = waiting.pop()
        if here.full_name not in seen:
            seen.add(here.full_name)
            yield here
            waiting += [field.message_type for field in here.fields if field.message_type is not None]


# Any message


seeds = st.integers(0, 2**64 - 1).map(Random)


@pytest.mark.parametrize("kind", otlp_json.REQUESTS, ids=lambda kind: kind.DESCRIPTOR.name)
@given(random=seeds)
@settings(max_examples=500)
def test_any_spelling_of_any_message(kind: type[Message], random: Random) -> None:
    _check(kind, random)


@pytest.mark.heavy
@pytest.mark.parametrize("kind", otlp_json.REQUESTS, ids=lambda kind: kind.DESCRIPTOR.name)
@given(random=seeds)
@settings(max_examples=10_000)
def test_ten_thousand_messages(kind: type[Message], random: Random) -> None:
    _check(kind, random)


def _check(kind: type[Message], random: Random) -> None:
    message = otlp_json.message(kind, random)
    text = otlp_json.write(message, random).encode()
    wire = to_wire(text, kind.DESCRIPTOR.full_name)
    found = kind.FromString(wire)
    assert found.SerializeToString(deterministic=True) == message.SerializeToString(deterministic=True)
    assert len(wire) == message.ByteSize()
    if random.random() < 0.2:
        official = otlp_json.read(text, kind)
        assert found.SerializeToString(deterministic=True) == official.SerializeToString(deterministic=True)


def test_every_field_is_drawn() -> None:
    """What the tests above stand on."""
    random = Random(1)
    for kind in otlp_json.REQUESTS:
        drawn: set[str] = set()
        for _ in range(300):
            waiting = [otlp_json.message(kind, random)]
            while waiting:
                here = waiting.pop()
                for field, value in here.ListFields():
                    drawn.add(field.full_name)
                    if field.message_type is not None:
                        waiting += value if field.is_repeated else [value]
        assert {field.full_name for one in messages(kind) for field in one.fields} - drawn == set()


@pytest.mark.parametrize("kind", otlp_json.REQUESTS, ids=lambda kind: kind.DESCRIPTOR.name)
def test_what_the_official_classes_write(kind: type[Message]) -> None:
    random = Random(2)
    for number in range(30):
        message = otlp_json.message(kind, random)
        text = MessageToJson(message, preserving_proto_field_name=number % 2 == 0, ensure_ascii=number % 3 == 0)
        tree = json.loads(text)
        _hex_ids(tree)
        assert read(json.dumps(tree), kind).SerializeToString() == message.SerializeToString()


def _hex_ids(tree: Any) -> None:
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        if key in ("traceId", "spanId", "parentSpanId", *otlp_json.IDS):
            tree[key] = base64.b64decode(value).hex()
        else:
            _hex_ids(value)


@pytest.mark.parametrize("recording", [nezha.ONLINE_BOUTIQUE, nezha.TRAIN_TICKET])
def test_recorded_traces(recording: str) -> None:
    for request in nezha.load(recording)[:50]:
        assert read(json_line(request.SerializeToString())) == request


# Rules


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('{"intValue": "5"}', AnyValue(int_value=5)),
        ('{"int_value": 5}', AnyValue(int_value=5)),
        ('{"intValue": -0}', AnyValue(int_value=0)),
        ('{"intValue": 1e3}', AnyValue(int_value=1000)),
        ('{"intValue": "1.50E+2"}', AnyValue(int_value=150)),
        ('{"intValue": 90071992547409930e-1}', AnyValue(int_value=9007199254740993)),
        ('{"intValue": 9223372036854775807}', AnyValue(int_value=2**63 - 1)),
        ('{"intValue": "-9223372036854775808"}', AnyValue(int_value=-(2**63))),
        ('{"intValue": 1000000000000000000000000e-20}', AnyValue(int_value=10000)),
        ('{"intValue": 0e999999999999999999999}', AnyValue(int_value=0)),
        ('{"intValue": "\\u0035"}', AnyValue(int_value=5)),
        ('{"doubleValue": 1}', AnyValue(double_value=1)),
        ('{"doubleValue": "0.1"}', AnyValue(double_value=0.1)),
        ('{"doubleValue": 1e-999}', AnyValue(double_value=0)),
        ('{"doubleValue": 2.2250738585072014e-308}', AnyValue(double_value=2.2250738585072014e-308)),
        ('{"doubleValue": 9007199254740993}', AnyValue(double_value=9007199254740993)),
        ('{"doubleValue": "Infinity"}', AnyValue(double_value=float("inf"))),
        ('{"doubleValue": "-Infinity"}', AnyValue(double_value=float("-inf"))),
        ('{"boolValue": false}', AnyValue(bool_value=False)),
        ('{"stringValue": ""}', AnyValue(string_value="")),
        (
            '{"stringValue": "\\ud83d\\ude00\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\u20ac"}',
            AnyValue(string_value='😀"\\/\b\f\n\r\té€'),
        ),
        ('{"bytesValue": "+/+/"}', AnyValue(bytes_value=b"\xfb\xff\xbf")),
        ('{"bytesValue": "-_-_"}', AnyValue(bytes_value=b"\xfb\xff\xbf")),
        ('{"bytesValue": "+\\/-_"}', AnyValue(bytes_value=b"\xfb\xff\xbf")),
        ('{"bytesValue": "AA=="}', AnyValue(bytes_value=b"\0")),
        ('{"bytesValue": "AA="}', AnyValue(bytes_value=b"\0")),
        ('{"bytesValue": "AA"}', AnyValue(bytes_value=b"\0")),
        ('{"bytesValue": "AAA="}', AnyValue(bytes_value=b"\0\0")),
        ('{"bytesValue": ""}', AnyValue(bytes_value=b"")),
        ('{"stringValue": null, "intValue": 1}', AnyValue(int_value=1)),
        ('{"intValue": 1, "stringValue": null, "boolValue": null}', AnyValue(int_value=1)),
        ('{"arrayValue": {"values": null}}', AnyValue(array_value={})),
        ('{"kvlistValue": {"values": [{"key": "", "value": {}}]}}', AnyValue(kvlist_value={"values": [{"value": {}}]})),
        ('{"new": {"a": [1, "\\u00e9", {"b": [[], {}, -1.5e3, true, null]}]}, "intValue": 1}', AnyValue(int_value=1)),
        ('{"new": 1, "new": 2, "": 3}', AnyValue()),
        (" \t\r\n{ \t\r\n} \t\r\n", AnyValue()),
    ],
)
def test_values(value: str, expected: AnyValue) -> None:
    assert read(value, AnyValue) == expected
    assert read(value, AnyValue).WhichOneof("value") == expected.WhichOneof("value")


def test_nan() -> None:
    assert str(read('{"doubleValue": "NaN"}', AnyValue).double_value) == "nan"


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ('{"kind": 3}', Span(kind=3)),
        ('{"kind": "SPAN_KIND_CLIENT"}', Span(kind=3)),
        ('{"kind": "3"}', Span(kind=3)),
        ('{"kind": 3e0}', Span(kind=3)),
        ('{"kind": 77}', Span(kind=77)),  # type: ignore[arg-type]
        ('{"kind": "SPAN_KIND_OF_TOMORROW"}', Span()),
        ('{"kind": ""}', Span()),
        ('{"kind": "02"}', Span()),
        ('{"kind": null}', Span()),
        ('{"traceId": "0aBCdef0"}', Span(trace_id=b"\x0a\xbc\xde\xf0")),
        ('{"traceId": "", "spanId": "00", "parent_span_id": "FF"}', Span(span_id=b"\0", parent_span_id=b"\xff")),
        ('{"traceId": "\\u0030\\u0041"}', Span(trace_id=b"\x0a")),
        ('{"trace\\u0049d": "0a"}', Span(trace_id=b"\x0a")),
        ('{"startTimeUnixNano": "18446744073709551615"}', Span(start_time_unix_nano=2**64 - 1)),
        ('{"startTimeUnixNano": 18446744073709551615}', Span(start_time_unix_nano=2**64 - 1)),
        ('{"start_time_unix_nano": -0}', Span()),
        ('{"flags": 4294967295}', Span(flags=2**32 - 1)),
        ('{"status": {}}', Span(status={})),
        ('{"links": [{"traceId": "ff", "spanId": "ee"}]}', Span(links=[{"trace_id": b"\xff", "span_id": b"\xee"}])),
        ('{"attributes": [{}, {}]}', Span(attributes=[{}, {}])),
        ('{"attributes": [ ]}', Span()),
    ],
)
def test_spans(span: str, expected: Span) -> None:
    assert read(span, Span) == expected


def test_optional_fields_may_be_zero() -> None:
    point = read(
        '{"sum": 0, "min": null, "bucketCounts": ["0", 1, "2"], "explicitBounds": [0, 1.5]}', HistogramDataPoint
    )
    assert point == HistogramDataPoint(sum=0, bucket_counts=[0, 1, 2], explicit_bounds=[0, 1.5])
    assert point.HasField("sum")
    assert not point.HasField("min")
    assert read('{"asInt": "0"}', NumberDataPoint).WhichOneof("value") == "as_int"


WRONG_VALUES = [
    # value, what is wrong, at which byte of the value
    ("", "the text is cut short", 0),
    ('{"intValue": nul', "the text is cut short", 16),
    ('{"intValue": nulL}', "not a JSON value", 13),
    ("null", "not an object", 0),
    ("[]", "not an object", 0),
    ('{"intValue": 1.5}', "not a 64-bit integer", 13),
    ('{"intValue": 9223372036854775808}', "not a 64-bit integer", 13),
    ('{"intValue": -9223372036854775809}', "not a 64-bit integer", 13),
    ('{"intValue": 1e19}', "not a 64-bit integer", 13),
    ('{"intValue": 1e999999999999999999999}', "not a 64-bit integer", 13),
    ('{"intValue": 1e-999999999999999999999}', "not a 64-bit integer", 13),
    ('{"intValue": 100000000000000000000.000000000000001e-20}', "not a 64-bit integer", 13),
    ('{"intValue": true}', "not a 64-bit integer", 13),
    ('{"intValue": "0x10"}', "not a 64-bit integer", 13),
    ('{"intValue": " 1"}', "not a 64-bit integer", 13),
    ('{"intValue": "1 "}', "not a 64-bit integer", 13),
    ('{"intValue": ""}', "not a 64-bit integer", 13),
    ('{"intValue": "1_0"}', "not a 64-bit integer", 13),
    ('{"intValue": +1}', "not a 64-bit integer", 13),
    ('{"intValue": 01}', "not a 64-bit integer", 13),
    ('{"intValue": 1.}', "not a 64-bit integer", 13),
    ('{"intValue": -}', "not a 64-bit integer", 13),
    ('{"intValue": {}}', "not a 64-bit integer", 13),
    ('{"doubleValue": NaN}', "not a number", 16),
    ('{"doubleValue": Infinity}', "not a number", 16),
    ('{"doubleValue": "nan"}', "not a number", 16),
    ('{"doubleValue": "inf"}', "not a number", 16),
    ('{"doubleValue": 1e999}', "a number that is too large", 16),
    ('{"doubleValue": "-1e999"}', "a number that is too large", 16),
    ('{"doubleValue": .5}', "not a number", 16),
    ('{"boolValue": "true"}', "neither true nor false", 14),
    ('{"boolValue": 1}', "neither true nor false", 14),
    ('{"boolValue": truE}', "not a JSON value", 14),
    ('{"stringValue": 1}', "not a string", 16),
    ('{"stringValue": "a\nb"}', "a control character in a string", 18),
    ('{"stringValue": "a\\x"}', "an escape that JSON does not have", 18),
    ('{"stringValue": "\\u12g4"}', "an escape that JSON does not have", 17),
    ('{"stringValue": "a\\ud800"}', "half of a surrogate pair", 18),
    ('{"stringValue": "\\udc00\\ud800"}', "half of a surrogate pair", 17),
    ('{"stringValue": "\\ud800\\ud800"}', "half of a surrogate pair", 17),
    ('{"stringValue": "\\ud800\\n"}', "half of a surrogate pair", 17),
    ('{"stringValue": "\ud800"}', "not UTF-8", 17),
    ('{"new": "\\ud800"}', "half of a surrogate pair", 9),
    ('{"new\\ud800": 1}', "half of a surrogate pair", 5),
    ('{"bytesValue": "A"}', "not Base64", 15),
    ('{"bytesValue": "AAAAA"}', "not Base64", 15),
    ('{"bytesValue": "AA A"}', "not Base64", 15),
    ('{"bytesValue": "AAAA="}', "not Base64", 15),
    ('{"bytesValue": "A==="}', "not Base64", 15),
    ('{"bytesValue": "AAA=="}', "not Base64", 15),
    ('{"bytesValue": "===="}', "not Base64", 15),
    ('{"bytesValue": "é"}', "not Base64", 15),
    ('{"arrayValue": []}', "not an object", 15),
    ('{"arrayValue": {"values": {}}}', "not an array", 26),
    ('{"arrayValue": {"values": [null]}}', "null in an array", 27),
    ('{"arrayValue": {"values": [{},]}}', "not a JSON value", 30),
    ('{"arrayValue": {"values": [{} {}]}}', "a comma or a closing bracket is wanted here", 30),
    ('{"intValue": 1,}', "a key in double quotes is wanted here", 15),
    ("{,}", "a key in double quotes is wanted here", 1),
    ("{'intValue': 1}", "a key in double quotes is wanted here", 1),
    ('{"intValue" 1}', "a colon is wanted here", 12),
    ('{"intValue": 1 "a": 2}', "a comma or a closing bracket is wanted here", 15),
    ('{"intValue": 1]', "a comma or a closing bracket is wanted here", 14),
    ('{"intValue": 1} x', "something behind the end of the document", 16),
    ('{"intValue": 1}\x00', "something behind the end of the document", 15),
    ("\ufeff{}", "not an object", 0),
    ('{"intValue": 1, "intValue": 1}', "given twice", 28),
    ('{"intValue": 1, "int_value": 1}', "given twice", 29),
    ('{"intValue": null, "intValue": null}', "given twice", 31),
    ('{"intValue": 1, "stringValue": "a"}', "given beside a field that excludes it", 31),
    ('{"new": [1,]}', "not a JSON value", 11),
    ('{"new": {"a":}}', "not a JSON value", 13),
    ('{"new": {1: 2}}', "a key in double quotes is wanted here", 9),
    ('{"new": {"a" 2}}', "a colon is wanted here", 13),
    ('{"new": [1}}', "a comma or a closing bracket is wanted here", 10),
    ('{"new": 1e}', "not a number as JSON has them", 8),
    ('{"new": NaN}', "not a JSON value", 8),
    ('{"new": ' + "[" * 513, "nested too deeply", 520),
]


@pytest.mark.parametrize(("value", "what", "at"), WRONG_VALUES)
def test_wrong_values(value: str, what: str, at: int) -> None:
    path, found, position = refusal(value, AnyValue)
    assert (found, position) == (what, at)
    assert re.fullmatch(r"the document|((int|double|bool|string|bytes|array)Value(\.values(\[\d\])?)?)", path)


@pytest.mark.parametrize(
    ("span", "what"),
    [
        ('{"kind": 1.5}', "neither a name nor a 32-bit integer"),
        ('{"kind": true}', "neither a name nor a 32-bit integer"),
        ('{"kind": 2147483648}', "neither a name nor a 32-bit integer"),
        ('{"startTimeUnixNano": -1}', "not an unsigned 64-bit integer"),
        ('{"startTimeUnixNano": "18446744073709551616"}', "not an unsigned 64-bit integer"),
        ('{"flags": 4294967296}', "not an unsigned 32-bit integer"),
        ('{"traceId": "0"}', "not hexadecimal digits, two for each byte"),
        ('{"traceId": "0g"}', "not hexadecimal digits, two for each byte"),
        ('{"traceId": "0 0 "}', "not hexadecimal digits, two for each byte"),
        ('{"traceId": 12}', "not a string"),
        ('{"links": [{}, {"spanId": "xy"}]}', "not hexadecimal digits, two for each byte"),
    ],
)
def test_wrong_spans(span: str, what: str) -> None:
    assert refusal(span, Span)[1] == what


def test_the_path_and_the_byte() -> None:
    text = (
        '{"resourceSpans": [{"scope_spans": [{}, {}, {"spans": [{}, {"unknown \u00e9": "secret 1",'
        ' "attributes": [{"key": "secret 2", "value": {"intValue": "secret 3"}}]}]}]}]}'
    )
    path, what, at = refusal(text)
    assert path == "resourceSpans[0].scopeSpans[2].spans[1].attributes[0].value.intValue"
    assert what == "not a 64-bit integer"
    assert at == text.encode().index(b'"secret 3"')


def test_neither_values_nor_unknown_keys_are_told() -> None:
    for text in (
        '{"secret": }',
        '{"secret": {"secret": "\\x secret"}}',
        '{"resourceSpans": "secret"}',
        '{"resourceSpans": [{"secret": 1, "secret" secret}]}',
        '{"resourceSpans": [{"schemaUrl": "secret\x01secret"}]}',
        "{} secret",
    ):
        assert "secret" not in " ".join(map(str, refusal(text)))


def test_the_manual_has_every_refusal() -> None:
    source = Path(__file__).parents[2].joinpath("sampler_proxy/otlp/json_wire.pyx").read_text()
    manual = Path(__file__).parents[2].joinpath("docs/messages.md").read_text()
    found = re.findall(r'E_\w+: "([^"]+)"', source)
    assert len(found) > 20
    assert [what for what in found if f"`{what}`" not in manual] == []
    assert {what for _, what, _ in WRONG_VALUES} - {*found, "not a 64-bit integer", "the text is cut short"} == set()


def nested(levels: int) -> str:
    return '{"arrayValue":{"values":[' * (levels // 2) + "{}" + "]}}" * (levels // 2)


def test_nesting_is_bounded_as_by_the_official_reader() -> None:
    """An AnyValue and an ArrayValue a turn, and the innermost."""
    assert read(nested(98), AnyValue) == otlp_json.read(nested(98).encode(), AnyValue)
    path, what, _ = refusal(nested(100), AnyValue)
    assert what == "nested too deeply"
    assert path.startswith("arrayValue.values[0].arrayValue.values[0].")
    assert path.endswith(".arrayValue.values[0]")
    assert len(path) < 200
    with pytest.raises(otlp_json.Refused):
        otlp_json.read(nested(100).encode(), AnyValue)
    assert refusal("[" * 1_000_000, AnyValue)[1] == "not an object"
    assert refusal('{"new":' * 1_000_000, AnyValue)[1] == "nested too deeply"
    assert read('{"new": ' + "[" * 512 + "]" * 512 + "}", AnyValue) == AnyValue()


def test_lengths_of_every_size_at_every_depth() -> None:
    for size in (0, 1, 120, 127, 128, 16_370, 16_384, 2_097_140, 2_097_152):
        for levels in (0, 10, 98):
            text = nested(levels).replace("{}", json.dumps({"stringValue": "x" * size}))
            assert read(text, AnyValue) == otlp_json.read(text.encode(), AnyValue)
    texts = [{"stringValue": "x" * size} for size in (0, 200, 3, 20_000, 100, 127, 128, 0)] * 3
    text = json.dumps({"arrayValue": {"values": texts}})
    assert read(text, AnyValue) == otlp_json.read(text.encode(), AnyValue)


def test_the_bound_of_the_result() -> None:
    name = HistogramDataPoint.DESCRIPTOR.full_name
    text = b'{"bucketCounts": [' + b",".join([b"0"] * 100_000) + b"]}"
    wire = to_wire(text, name, 800_004)
    assert len(wire) == 800_004
    with pytest.raises(RequestTooLarge, match=r"^more than 800003 bytes as protobuf$"):
        to_wire(text, name, 800_003)
    with pytest.raises(RequestTooLarge, match=r"^more than 0 bytes as protobuf$"):
        to_wire(text, name, 0)
    assert to_wire(b"{}", name, 0) == b""


def test_threads_take_no_turns() -> None:
    """The GIL is given up, and nothing is shared: all results are right."""
    texts = [json_line(request.SerializeToString()) for request in nezha.load(nezha.TRAIN_TICKET)]
    expected = [read(text).SerializeToString() for text in texts]
    with ThreadPoolExecutor(4) as threads:
        found = [list(threads.map(read, texts)) for _ in range(3)]
    assert all([one.SerializeToString() for one in each] == expected for each in found)


def test_a_message_that_nobody_knows() -> None:
    with pytest.raises(KeyError):
        to_wire(b"{}", "no.such.Message")


# Damaged texts


def small() -> list[tuple[bytes, type[Message]]]:
    random = Random(3)
    found: list[tuple[bytes, type[Message]]] = []
    for kind in otlp_json.REQUESTS:
        while sum(one is kind for _, one in found) < 5:
            text = otlp_json.write(otlp_json.message(kind, random), random).strip()
            if 300 < len(text) < 3000:
                found.append((text.encode(), kind))
    return found


SMALL = small()


def test_every_truncation_is_refused_with_its_place() -> None:
    for text, kind in SMALL:
        for size in range(len(text)):
            _, _, at = refusal(text[:size], kind)
            assert at <= size
            if text[:size].endswith((b"{", b"[", b",", b":")):
                assert at == size


@given(st.sampled_from(SMALL), seeds)
@settings(max_examples=1_500)
def test_mutations_are_read_alike_or_refused(pair: tuple[bytes, type[Message]], random: Random) -> None:
    text, kind = pair
    for _ in range(random.randint(1, 3)):
        at, size = random.randrange(len(text) + 1), random.choice([0, 1, 1, 2, 5])
        bit = random.choice(
            [b"", bytes([random.randrange(256)]), random.choice(b'{}[]:,"\\e-.0').to_bytes(), text[at:][:9]]
        )
        text = text[:at] + bit + text[at + size :]
    alike_or_refused(text, kind)


def test_metrics_are_read_by_their_own_names() -> None:
    text = '{"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": "m", "sum": {}, "gauge": {}}]}]}]}'
    path, what, _ = refusal(text, ExportMetricsServiceRequest)
    assert (path, what) == (
        "resourceMetrics[0].scopeMetrics[0].metrics[0].gauge",
        "given beside a field that excludes it",
    )
