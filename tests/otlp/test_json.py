"""OTLP/JSON: the encoding against protobuf's own mapping. Refusals: tests/operate/test_trace_files.py."""

from __future__ import annotations

import base64
import json

from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from sampler_proxy.otlp.json import json_line, request_of


def any_request():
    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add(schema_url="https://example/1")
    resource_spans.resource.attributes.add(key="service.name").value.string_value = "Zürich\n\u2028"
    scope_spans = resource_spans.scope_spans.add()
    scope_spans.scope.name = "lib"
    span = scope_spans.spans.add(
        trace_id=bytes(range(16)),
        span_id=bytes(range(0xF8, 0x100)),
        parent_span_id=b"\x01" * 8,
        start_time_unix_nano=1_700_000_000_123_456_789,
        kind=Span.SPAN_KIND_SERVER,
        flags=0x101,
        status=Status(code=Status.STATUS_CODE_ERROR),
    )
    span.attributes.add(key="n").value.int_value = -(1 << 62)
    span.attributes.add(key="blob").value.bytes_value = b"\x00\xff"
    span.attributes.add(key="nan").value.double_value = float("inf")
    span.attributes.add(key="traceId").value.string_value = "AAAA"
    span.links.add(trace_id=b"\xab" * 16, span_id=b"\xcd" * 8)
    scope_spans.spans.add(trace_id=bytes(15) + b"\x01", span_id=bytes(7) + b"\x01")
    return request


def test_the_encoding_is_that_of_otlp_json():
    line = json_line(any_request().SerializeToString())
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    tree = json.loads(line)
    (resource_spans,) = tree["resourceSpans"]
    assert resource_spans["schemaUrl"] == "https://example/1"
    span, other = resource_spans["scopeSpans"][0]["spans"]
    assert span["traceId"] == "000102030405060708090a0b0c0d0e0f"
    assert span["spanId"] == "f8f9fafbfcfdfeff"
    assert span["parentSpanId"] == "01" * 8
    assert span["links"] == [{"traceId": "ab" * 16, "spanId": "cd" * 8}]
    assert span["startTimeUnixNano"] == "1700000000123456789"
    assert span["kind"] == 2
    assert span["status"] == {"code": 2}
    assert span["flags"] == 0x101
    values = {a["key"]: a["value"] for a in span["attributes"]}
    assert values == {
        "n": {"intValue": str(-(1 << 62))},
        "blob": {"bytesValue": "AP8="},
        "nan": {"doubleValue": "Infinity"},
        "traceId": {"stringValue": "AAAA"},
    }
    assert "parentSpanId" not in other


def test_the_encoding_loses_nothing():
    def base64_ids(tree):
        if isinstance(tree, list):
            return [base64_ids(item) for item in tree]
        if not isinstance(tree, dict):
            return tree
        return {
            key: base64.b64encode(bytes.fromhex(value)).decode()
            if key in ("traceId", "spanId", "parentSpanId")
            else base64_ids(value)
            for key, value in tree.items()
        }

    request = any_request()
    tree = json.loads(json_line(request.SerializeToString()))
    assert ParseDict(base64_ids(tree), ExportTraceServiceRequest()) == request


def test_decoding_undoes_the_encoding():
    request = any_request()
    assert request_of(json.loads(json_line(request.SerializeToString()))) == request
