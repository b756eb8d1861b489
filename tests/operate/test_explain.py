"""`sampler-proxy explain`: what it reads, what it refuses and where, and what it says of each trace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status, TracesData

from sampler_proxy.errors import TraceFileError
from sampler_proxy.operate.explain import Traces, read
from sampler_proxy.traceql.conditions_as_written import conditions
from tests.support import nezha, reference

ROOT = Path(__file__).parents[2]
SECRET = "s3cret-value"
LOW, HIGH = bytes(15) + b"\x01", b"\xaa" * 9 + b"\xff" * 7  # trace ids: of the smallest randomness, and of the largest


def span(trace_id: bytes, number: int, **fields: Any) -> Span:
    made = Span(trace_id=trace_id, span_id=bytes([0, 0, 0, 0, 0, 0, 0, number]), name=f"step {number}", **fields)
    made.start_time_unix_nano, made.end_time_unix_nano = 1_000, 2_000
    return made


def request(*spans: Span, service: str = "shop") -> ExportTraceServiceRequest:
    made = ExportTraceServiceRequest()
    resource_spans = made.resource_spans.add()
    resource_spans.resource.attributes.add(key="service.name").value.string_value = service
    resource_spans.scope_spans.add().spans.extend(spans)
    return made


def tagged(made: Span, **attributes: str | int) -> Span:
    for key, value in attributes.items():
        field = "string_value" if isinstance(value, str) else "int_value"
        setattr(made.attributes.add(key=key).value, field, value)
    return made


def otlp_json(message: ExportTraceServiceRequest) -> dict[str, Any]:
    """As OTLP has it, with ids in hexadecimal digits."""
    data = MessageToDict(message, use_integers_for_enums=True)
    for resource_spans, of_resource in zip(data["resourceSpans"], message.resource_spans, strict=True):
        for scope_spans, of_scope in zip(resource_spans["scopeSpans"], of_resource.scope_spans, strict=True):
            for one, original in zip(scope_spans["spans"], of_scope.spans, strict=True):
                for holder, ids in ((one, original), *zip(one.get("links", ()), original.links, strict=True)):
                    holder["traceId"], holder["spanId"] = ids.trace_id.hex(), ids.span_id.hex()
                if "parentSpanId" in one:
                    one["parentSpanId"] = original.parent_span_id.hex()
    return data


def one_of_each() -> ExportTraceServiceRequest:
    first = tagged(span(LOW, 1, kind=Span.SPAN_KIND_SERVER), route="é\n{", size=2**60)
    first.links.add(trace_id=HIGH, span_id=b"\x07" * 8)
    second = span(HIGH, 2, parent_span_id=b"\x09" * 8)
    second.events.add(name="retry", time_unix_nano=7)
    second.attributes.add(key="raw").value.bytes_value = b"\x00\xff"
    return request(first, second)


def store(folder: Path, data: str | bytes) -> str:
    file = folder / "traces"
    file.write_bytes(data.encode() if isinstance(data, str) else data)
    return str(file)


def contents(traces: Traces) -> list[Any]:
    return [reference.spans_of(ExportTraceServiceRequest.FromString(data)) for data in traces.requests]


# Reading


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


def line(**fields: Any) -> str:
    whole = {"traceId": "ab" * 16, "spanId": "cd" * 8, **fields}
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [whole]}]}]})


GOOD = line(name=SECRET)


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


# Conditions as written


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", ["{}"]),
        ("{ status = error }", ["status = error"]),
        ("{ (.a = 1 && (.b || !(.c && .d))) || .e }", [".a = 1", ".b", "!(.c && .d)", ".e"]),
        ('{ span."x && }" = "a || }" } && { .b }', ['span."x && }" = "a || }"', ".b"]),
        ("{ .a // && .b\n && .c /* } */ }", [".a", ".c"]),
        ("{ (.a = 1) != false && ((.b)) }", ["(.a = 1) != false", ".b"]),
        ("{ (.a + 1) * (.b) > 2 }", ["(.a + 1) * (.b) > 2"]),
        ("({ .a } >> { .b && .a } | count() > 2) || { .c }", [".a", ".b", ".c"]),
        ("{ .a = `}` } | avg(duration) > 1s", [".a = `}`"]),
    ],
)
def test_conditions_of_an_expression(text: str, expected: list[str]) -> None:
    assert [condition.text for condition in conditions(text)] == expected


def test_deep_parentheses() -> None:
    assert [one.text for one in conditions("{ " + "(" * 90 + ".a && .b" + ")" * 90 + " }")] == [".a", ".b"]


# The command


CONFIG = """\
rules:
  - {name: errors, match: '{ status = error && (.route = "/pay" || .size > 3) }', keep: all}
  - {name: noisy, match: '{ name = "step 1" } && { name = "step 2" }', unless: '{ .keep = "yes" }', keep: 10%}
  - {name: none, match: '{ .drop = "yes" }', keep: none}
  - {name: rest, keep: 50%}
"""


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sampler_proxy", "explain", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={**os.environ},
    )


def explained(tmp_path: Path, data: str | bytes, config: str = CONFIG) -> list[dict[str, Any]]:
    file = tmp_path / "rules.yaml"
    file.write_text(config)
    done = command("--config", str(file), "--json", store(tmp_path, data))
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(text) for text in done.stdout.splitlines()]


def span_id(number: int) -> str:
    return f"{number:016x}"


def test_explained_as_json(tmp_path: Path) -> None:
    error = Status(code=Status.STATUS_CODE_ERROR)
    third = bytes(range(16))
    messages = [
        request(span(HIGH, 1), tagged(span(LOW, 1, status=error), route="/pay", size=9), span(third, 9)),
        request(span(HIGH, 2), tagged(span(LOW, 2), size=5), tagged(span(LOW, 1, status=error), route="/pay", size=9)),
        request(tagged(span(b"\x01" * 16, 1), drop="yes")),
    ]
    found = explained(tmp_path, "\n".join(json.dumps(otlp_json(message)) for message in messages))
    assert found == [
        {
            "trace_id": HIGH.hex(),
            "rule": "noisy",
            "keep": True,
            "probability": pytest.approx(0.1, rel=1e-4),
            "threshold": "e666",
            "randomness": "f" * 14,
            "matched": [
                {"condition": 'name = "step 1"', "spans": [span_id(1)]},
                {"condition": 'name = "step 2"', "spans": [span_id(2)]},
            ],
        },
        {
            "trace_id": LOW.hex(),
            "rule": "errors",
            "keep": True,
            "probability": 1.0,
            "threshold": None,
            "randomness": "0" * 13 + "1",
            "matched": [
                {"condition": "status = error", "spans": [span_id(1)]},
                {"condition": '.route = "/pay"', "spans": [span_id(1)]},
                {"condition": ".size > 3", "spans": [span_id(1), span_id(2)]},
            ],
        },
        {
            "trace_id": third.hex(),
            "rule": "rest",
            "keep": False,
            "probability": 0.5,
            "threshold": "8",
            "randomness": third[9:].hex(),
            "matched": [],
        },
        {
            "trace_id": "01" * 16,
            "rule": "none",
            "keep": False,
            "probability": 0.0,
            "threshold": None,
            "randomness": "01" * 7,
            "matched": [{"condition": '.drop = "yes"', "spans": [span_id(1)]}],
        },
    ]
    protobuf = b"".join(message.SerializeToString() for message in messages)
    assert explained(tmp_path, protobuf) == found


def test_only_what_holds_is_listed(tmp_path: Path) -> None:
    config = (
        "rules: [{name: a, match: '{ .x = 1 || .y = 1 } || { traceDuration > 1s }', keep: all}, {name: b, keep: 1%}]"
    )
    message = request(tagged(span(LOW, 1), y=1), span(LOW, 2))
    (found,) = explained(tmp_path, message.SerializeToString(), config)
    assert found["matched"] == [{"condition": ".y = 1", "spans": [span_id(1)]}]


def test_conditions_on_the_trace_and_structure(tmp_path: Path) -> None:
    config = (
        "rules:\n"
        "  - name: deep\n"
        '    match: \'{ rootName = "step 1" && name != "step 1" } >> { kind = client } | count() = 1\'\n'
        "    keep: all\n"
        "  - {name: rest, keep: none}\n"
    )
    spans = [
        span(LOW, 1),
        span(LOW, 2, parent_span_id=bytes(7) + b"\x01"),
        span(LOW, 3, parent_span_id=bytes(7) + b"\x02", kind=Span.SPAN_KIND_CLIENT),
    ]
    (found,) = explained(tmp_path, request(*spans).SerializeToString(), config)
    assert found["rule"] == "deep"
    assert found["matched"] == [
        {"condition": 'rootName = "step 1"', "spans": [span_id(1), span_id(2), span_id(3)]},
        {"condition": 'name != "step 1"', "spans": [span_id(2), span_id(3)]},
        {"condition": "kind = client", "spans": [span_id(3)]},
    ]


def test_explained_as_text_with_the_default_rules(tmp_path: Path) -> None:
    failed = span(LOW, 1, status=Status(code=Status.STATUS_CODE_ERROR))
    text = json.dumps(otlp_json(request(failed, span(HIGH, 2)))) + "\n" + line(traceId="") + "\n"
    path = store(tmp_path, text)
    done = command(path)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        f"trace {LOW.hex()} (1 span): kept by rule errors, which keeps 100% of the traces",
        "  status = error",
        f"    {span_id(1)}  shop step 1",
        f"trace {HIGH.hex()} (1 span): kept by rule baseline, which keeps 1% of the traces",
    ]
    assert done.stderr == f"{path}: 1 span left out: the trace id is not valid\n"


def test_what_a_target_keeps_depends_on_the_traffic(tmp_path: Path) -> None:
    config = (
        "rules: [{name: busy, match: '{ .x = 1 }', keep: {target: 6 spans/min, per: [name]}}, {name: b, keep: all}]"
    )
    data = request(tagged(span(LOW, 1), x=1), span(HIGH, 2)).SerializeToString()
    busy, other = explained(tmp_path, data, config)
    assert (busy["rule"], busy["keep"], busy["probability"], busy["threshold"]) == ("busy", None, None, None)
    assert busy["target"] == "0.1 spans/s"
    assert "target" not in other
    file = tmp_path / "c.yaml"
    file.write_text(config)
    text = command("--config", str(file), store(tmp_path, data)).stdout.splitlines()
    assert text[0] == f"trace {LOW.hex()} (1 span): decided by rule busy, which keeps up to 0.1 spans/s"


def test_recorded_traces_are_decided_as_the_reference_says(tmp_path: Path) -> None:
    requests = nezha.load(nezha.TRAIN_TICKET)
    config = "rules: [{name: slow, match: '{ traceDuration > 1s }', keep: all}, {name: rest, keep: 30%}]"
    found = explained(tmp_path, b"".join(one.SerializeToString() for one in requests), config)
    traces = reference.traces(requests)
    assert [one["trace_id"] for one in found] == [trace_id.hex() for trace_id in traces]
    for one, trace in zip(found, traces.values(), strict=True):
        slow = (reference.trace_duration(trace) or 0) > 10**9
        assert one["rule"] == ("slow" if slow else "rest")
        assert one["keep"] == (slow or reference.randomness(trace) >= reference.threshold_of(0.3))
        if slow:
            assert len(one["matched"][0]["spans"]) == len({seen.span.span_id for seen in trace})


def test_faults_end_with_1_and_without_traceback(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text("rules: [{name: a, match: '{ x', keep: all}, {name: b, keep: 1%}]")
    good = store(tmp_path, GOOD)
    for arguments, start in (
        (("--config", str(file), good), f"{file}:1:"),
        ((str(file),), f"{file}:1:1: not JSON"),
        ((str(tmp_path / "none"),), f"{tmp_path / 'none'}: cannot be read"),
    ):
        done = command(*arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(start)
        assert "Traceback" not in done.stderr
    assert command().returncode == 2
