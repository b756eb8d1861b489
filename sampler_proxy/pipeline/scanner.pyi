"""Scans an ExportTraceServiceRequest (OTLP 1, protobuf): bytes in, fragments and the answer to the sender out.

Accepted is what the official parser (upb) accepts, byte for byte the same verdict: field order is free, repeated
scalars count as they stand last, split messages merge, nesting reaches to 100. On one point the scan accepts more:
strings need not be UTF-8. Those that leave are repaired by `stamp`, so that a bad one costs neither its sender nor its
neighbours anything.

Unknown fields and unknown groups of spans, resources and scopes are kept where they stand. Those of the request, of a
ResourceSpans and of a ScopeSpans are left out and counted: they may hold what belongs to single spans, and would leave
with every trace that is kept. ResourceSpans's deprecated field 1000, in which senders before OTLP 0.15 put what is now
field 2, is read as field 2 where that has no span, and is an unknown field where it has: then both hold the same spans.
On this point the scan accepts less: a field 1000 that is read must be sound.
"""

from sampler_proxy.otlp.fragments import Scanned
from sampler_proxy.rules.plan import Plan

class Scanner:
    """Scans for one plan, on one thread. Its working memory (about 200 bytes a span of the largest request so far) is
    kept from request to request."""

    def __init__(self, plan: Plan, *, seed: int = 0, local_roots: bool = True) -> None:
        """Create a scanner. `seed`: 64 bits that senders cannot know, so that they cannot choose trace ids that
        collide. `local_roots`: fragments note that a span has a parent in another process (the remote flag of OTLP),
        so that the span may be taken as the root of its trace."""
    @property
    def plan(self) -> Plan: ...
    @property
    def regex_misses(self) -> int:
        """Number of answers of regular expressions that were not in the cache."""
    @property
    def effort(self) -> int:
        """Units of effort, each about a microsecond, that all scans have cost so far."""
    def scan(self, request: bytes, effort: int = 0, metadata: bytes | None = None) -> Scanned:
        """Cut a request into fragments: one for each trace, several for what is longer than 1 MiB, one behind the
        other, with the same trace id. `effort`: units that the scan may cost; 0: the full budget, 50 000 and 100 for
        each kilobyte, and no more than that is ever granted. `metadata`: what the spans stay with, as encoded by
        otlp/metadata.py; b"" is none. The GIL is released, save for regular expressions that meet a value for the first
        time.

        Raises MalformedRequest for what is no ExportTraceServiceRequest and for 2 GiB and more, EffortSpent where
        `effort` did not suffice, but the full budget may, RequestTooCostly where that did not, and MemoryError. Nothing
        is held then, and the next request is scanned as if this one had not been.
        """

def response(invalid_trace_ids: int, invalid_span_ids: int) -> bytes:
    """Return an ExportTraceServiceResponse with a partial_success: how many spans were rejected, and why. A request
    without rejected spans is answered with b"" instead, for OTLP reads a partial_success as a warning."""
