"""Trace files: what is read of them, and what is refused with which position."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from sampler_proxy.errors import TraceFileError
from sampler_proxy.operate.trace_files import Traces, read, read_all
from tests.operate.traces import GOOD, LOW, SECRET, line, one_of_each, otlp_json, request, span, store
from tests.support import reference


def contents(traces: Traces) -> list[Any]:
    return [reference.spans_of(ExportTraceServiceRequest.FromString(data)) for data in traces.requests]


def test_protobuf(tmp_path: Path) -> None:
    message = one_of_each()
    for data in message.SerializeToString(), TracesData(resource_spans=message.resource_spans).SerializeToString():
        traces = read(store(tmp_path, data))
        assert traces.requests == [data]
        assert traces.names[(LOW, bytes(7) + b"\x01")] == "shop step 1"
        assert list(traces.remarks("F")) == []


def test_protobuf_that_only_the_service_reads(tmp_path: Path) -> None:
    data = request(span(LOW, 1)).SerializeToString().replace(b"step 1", b"step \xff")
    traces = read(store(tmp_path, data))
    assert traces.requests == [data]
    assert traces.names == {}


def test_protobuf_that_begins_like_json(tmp_path: Path) -> None:
    message = request(span(LOW, 1))
    size = message.resource_spans[0].ByteSize()
    message.resource_spans[0].schema_url = "x" * (ord("{") - size - 2)
    data = message.SerializeToString()
    assert data.startswith(b"\n{")
    assert read(store(tmp_path, data)).requests == [data]


@pytest.mark.parametrize(
    "write",
    [
        json.dumps,
        lambda data: json.dumps(data, indent=2),
        lambda data: "\ufeff\r\n" + json.dumps(data, ensure_ascii=False) + "\r\n\r\n",
        lambda data: json.dumps(data).replace('"resourceSpans"', '"resource_spans"').replace('"spanId"', '"span_id"'),
        lambda data: json.dumps({**data, "unknown": [{"x": None}]}),
    ],
    ids=["line", "pretty", "bom", "snake", "unknown"],
)
def test_json(tmp_path: Path, write: Any) -> None:
    message = one_of_each()
    for count in 1, 3:
        text = "\n".join([write(otlp_json(message)).lstrip("\ufeff")] * count)
        traces = read(store(tmp_path, text))
        assert contents(traces) == [reference.spans_of(message)] * count
        assert traces.names[(LOW, bytes(7) + b"\x01")] == "shop step 1"


@pytest.mark.parametrize("data", ["", "\n", " \n\t\n", "{}", "{}\n{}\n"])
def test_nothing_in_it(tmp_path: Path, data: str) -> None:
    traces = read(store(tmp_path, data))
    assert not any(traces.requests)


NOT_OTLP = [
    (SECRET, ":1:1: not JSON"),
    (json.dumps(json.loads(GOOD), indent=1).replace(f'"{SECRET}"', SECRET), ":10:16: not JSON"),
    (line(name=5), ":1: not OTLP: resourceSpans.scopeSpans.spans.name "),
    (line(startTimeUnixNano=SECRET), ":1: not OTLP: resourceSpans.scopeSpans.spans.startTimeUnixNano"),
    (line(spanId=SECRET), ":1: a spanId that is not made of hexadecimal digits"),
    (line(links=[{"traceId": "AAA="}]), ":1: a traceId that is not"),
    ('["' + SECRET + '"]', ":1: not OTLP: an object with resourceSpans"),
    ('{"resourceLogs": []}', ":1: not OTLP: an object with resourceSpans"),
    ('{"resourceSpans": {"a": 1}}', ":1: not OTLP: resourceSpans "),
    ("7" * 5000, ":1: JSON that is nested too deeply, or a number that is too long"),
    ("[" * 100_000, ":1: "),
    ('{"resourceSpans":' + "[" * 100_000, ":1: "),
    (b"\xff", ":1: neither"),
    (b'{"resourceSpans": "\xff"}', ":1: neither"),
    (one_of_each().SerializeToString()[:-1], ":"),
    (b"\x00" * 64, ":1:1: not JSON"),
    (line(name="\ud800"), ":1: not OTLP: resourceSpans.scopeSpans.spans.name holds half of a surrogate pair"),
    (line(name="a\ude00b"), ":1: not OTLP: resourceSpans.scopeSpans.spans.name holds half of a surrogate pair"),
    (line(name="\ude00\ud83d"), ":1: not OTLP: resourceSpans.scopeSpans.spans.name holds half of a surrogate pair"),
    (line(attributes=[{"key": "\udfff"}]), ":1: not OTLP: resourceSpans.scopeSpans.spans.attributes.key holds half"),
    (line(kind="\ud800"), ":1: not OTLP: a key or a name holds half of a surrogate pair"),
    (line(**{"\ud800": 1}), ":1: not OTLP: a key or a name holds half of a surrogate pair"),
    (line(traceId="\ud800"), ":1: a traceId that is not"),
]


@pytest.mark.parametrize(("data", "position"), NOT_OTLP)
def test_what_is_not_otlp_is_refused_with_its_position(tmp_path: Path, data: str | bytes, position: str) -> None:
    path = store(tmp_path, data)
    with pytest.raises(TraceFileError) as refused:
        read(path)
    assert str(refused.value).startswith(path + position)
    assert SECRET not in str(refused.value)
    assert refused.value.__cause__ is None
    assert "\n" not in str(refused.value)


def amount(data: bytes, lines: int) -> str:
    return f"{len(data)} byte{'s' * (len(data) != 1)} left out ({lines} line{'s' * (lines != 1)})"


@pytest.mark.parametrize(("data", "position"), [one for one in NOT_OTLP if one[0][:1] not in (b"\x00", b"\n")])
@pytest.mark.parametrize("last", [False, True], ids=["between", "last"])
def test_what_is_not_otlp_is_left_out_between_what_is(
    tmp_path: Path, data: str | bytes, position: str, last: bool
) -> None:
    bad = data if isinstance(data, bytes) else data.encode()
    path = store(tmp_path, b"\n".join([GOOD.encode(), bad, *[GOOD.encode()] * (not last), b""]))
    traces = read(path)
    assert len(traces.requests) == 2 - last
    (remark,) = traces.remarks("F")
    number = int(position.split(":")[1] or 1) + 1
    assert remark.startswith(f"{path}:{number}:")
    assert remark.endswith(f": {amount(bad, bad.count(10) + 1)}")
    assert position.partition(" ")[2].removesuffix(" ") in remark
    assert SECRET not in remark


@pytest.mark.parametrize("size", [1, 17, len(GOOD) // 2, len(GOOD) - 1])
def test_the_last_line_of_a_writer_that_crashed(tmp_path: Path, size: int) -> None:
    torn = (GOOD[:-20] + "é" + GOOD[-20:]).encode()[:size]
    path = store(tmp_path, (GOOD + "\n").encode() * 3 + torn)
    traces = read(path)
    assert len(traces.requests) == 3
    (remark,) = traces.remarks("F")
    assert remark.startswith(f"{path}:4:")
    assert remark.endswith(f": not JSON, since the file ends within it: {amount(torn, 1)}")


def test_a_line_that_ends_within_a_character(tmp_path: Path) -> None:
    torn = GOOD.encode()[:-20] + "€".encode()[:2]
    path = store(tmp_path, GOOD.encode() + b"\n" + torn)
    assert list(read(path).remarks("F")) == [f"{path}:2: neither OTLP protobuf nor JSON in UTF-8: {amount(torn, 1)}"]


def test_a_tail_of_zeros(tmp_path: Path) -> None:
    """As a file system may leave it behind a crash of the machine."""
    path = store(tmp_path, GOOD.encode() + b"\n" + bytes(512))
    assert list(read(path).remarks("F")) == [f"{path}:2:1: not JSON: 512 bytes left out (1 line)"]


def test_a_damaged_document_over_several_lines(tmp_path: Path) -> None:
    pretty = json.dumps(json.loads(GOOD), indent=1)
    bad = pretty.replace('"traceId":', '"traceId"')
    path = store(tmp_path, f"{pretty}\n\n{bad}\n\n{pretty}\n")
    traces = read(path)
    assert len(traces.requests) == 2
    (remark,) = traces.remarks("F")
    at = f"{pretty}\n\n{bad[: bad.index('traceId')]}".count("\n") + 1
    assert remark.startswith(f"{path}:{at}:")
    assert remark.endswith(f": not JSON: {amount(bad.encode(), bad.count(chr(10)) + 1)}")


def test_many_damaged_places_are_summed_up(tmp_path: Path) -> None:
    path = store(tmp_path, f'{GOOD}\n{{"a": 1}}\n' * 25)
    traces = read(path)
    assert len(traces.requests) == 25
    *told, rest = traces.remarks("F")
    assert [one.split(":")[1] for one in told] == [str(2 * number) for number in range(1, 11)]
    assert rest == "F: 15 more places like these: 120 bytes left out (15 lines)"


@pytest.mark.parametrize("escape", ["\\ud83d\\ude00", "\\uD83D\\uDE00", "😀"])
def test_a_character_beyond_sixteen_bits(tmp_path: Path, escape: str) -> None:
    made = span(LOW, 1)
    made.name = "a😀b"
    made.attributes.add(key="a😀b").value.string_value = "a😀b"
    text = json.dumps(otlp_json(request(made)), ensure_ascii=False).replace("😀", escape)
    traces = read(store(tmp_path, text + "\n"))
    assert contents(traces) == [reference.spans_of(request(made))]


def test_several_files_are_read_as_one(tmp_path: Path) -> None:
    one, other = tmp_path / "1", tmp_path / "2"
    one.write_text(f"{GOOD}\n{SECRET}\n")
    other.write_bytes(request(span(LOW, 1)).SerializeToString())
    traces = read_all([str(one), str(other)])
    assert len(traces.requests) == 2
    assert traces.names[(LOW, bytes(7) + b"\x01")] == "shop step 1"
    assert len(traces.names) == 2
    assert [remark.partition(": ")[0] for remark in traces.remarks("F")] == [f"{one}:2:1"]


def test_deep_values(tmp_path: Path) -> None:
    value: Any = {"stringValue": "x"}
    for _ in range(200):
        value = {"arrayValue": {"values": [value]}}
    path = store(tmp_path, line(attributes=[{"key": "deep", "value": value}]))
    with pytest.raises(TraceFileError, match=":1: not OTLP"):
        read(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TraceFileError, match="none: cannot be read: No such file or directory"):
        read(str(tmp_path / "none"))


def test_invalid_ids_are_counted(tmp_path: Path) -> None:
    text = "\n".join([line(), line(traceId="00" * 16), line(traceId=""), line(spanId="ab"), line(spanId="00" * 8)])
    traces = read(store(tmp_path, text))
    assert list(traces.remarks("F")) == [
        "F: 2 spans left out: the trace id is not valid",
        "F: 2 spans left out: the span id is not valid",
    ]
