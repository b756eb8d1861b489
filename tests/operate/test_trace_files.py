"""Trace files: what is read of them, and what is refused with which position."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from sampler_proxy.errors import TraceFileError
from sampler_proxy.operate.trace_files import Traces, read
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
        assert list(traces.remarks()) == []


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


@pytest.mark.parametrize(
    ("data", "position"),
    [
        (SECRET, ":1:1: not JSON"),
        (GOOD + "\n" + GOOD[:-3], ":2:"),
        (GOOD + "\n\n" + SECRET, ":3:1: not JSON"),
        (json.dumps(json.loads(GOOD), indent=1).replace(f'"{SECRET}"', SECRET), ":10:16: not JSON"),
        (GOOD + "\n" + line(name=5), ":2: not OTLP: resourceSpans.scopeSpans.spans.name "),
        (
            GOOD + "\n" + line(startTimeUnixNano=SECRET),
            ":2: not OTLP: resourceSpans.scopeSpans.spans.startTimeUnixNano",
        ),
        (line(name="\ud800"), ":1: not OTLP"),
        (GOOD + "\n" + line(spanId=SECRET), ":2: a spanId that is not made of hexadecimal digits"),
        (line(links=[{"traceId": "AAA="}]), ":1: a traceId that is not"),
        (GOOD + '\n["' + SECRET + '"]', ":2: not OTLP: an object with resourceSpans"),
        ('{"resourceLogs": []}', ":1: not OTLP: an object with resourceSpans"),
        ('{"resourceSpans": {"a": 1}}', ":1: not OTLP: resourceSpans "),
        ("7" * 5000, ":1: "),
        ("[" * 100_000, ":1: "),
        ('{"resourceSpans":' + "[" * 100_000, ":1: "),
        (GOOD.encode() + b"\n\xff", ":2: neither"),
        (one_of_each().SerializeToString()[:-1], ":"),
        (b"\x00" * 64, ":1:1: not JSON"),
    ],
)
def test_what_is_not_otlp_is_refused_with_its_position(tmp_path: Path, data: str | bytes, position: str) -> None:
    path = store(tmp_path, data)
    with pytest.raises(TraceFileError) as refused:
        read(path)
    assert str(refused.value).startswith(path + position)
    assert SECRET not in str(refused.value)
    assert refused.value.__cause__ is None
    assert "\n" not in str(refused.value)


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
    assert list(traces.remarks()) == [
        "2 spans left out: the trace id is not valid",
        "2 spans left out: the span id is not valid",
    ]
