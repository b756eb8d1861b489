"""What one trace may cost: shared headers are gone about once, and what is beyond a bound is masked and counted."""

from __future__ import annotations

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support.redacting import Redacting, pairs, plain, request_of
from tests.support.secrets import SECRETS

MAIL = SECRETS["email"].text


def test_a_resource_counts_once_however_many_scopes_are_under_it() -> None:
    request = request_of(Span(), {"owner": MAIL})
    (resource_spans,) = request.resource_spans
    for number in range(200):
        scope_spans = resource_spans.scope_spans.add()
        scope_spans.scope.name = f"scope {number % 100}"
        scope_spans.scope.version = MAIL
        scope_spans.spans.add(trace_id=b"t" * 16, span_id=(number + 1).to_bytes(8))
    del resource_spans.scope_spans[0]
    redacting = Redacting({"preset": "common"})
    out = ExportTraceServiceRequest.FromString(redacting.run([request]))
    assert redacting.counts() == {("email", "mask"): 101}
    (resource_spans,) = out.resource_spans
    assert plain(resource_spans.resource.attributes) == {"owner": "****"}
    assert {scope_spans.scope.version for scope_spans in resource_spans.scope_spans} == {"****"}
