"""Makes kept spans ready to leave. Stamping is the pipeline's; joining finished traces to a request is the exporters'.

A stamped span is the span that came, with its strings made UTF-8 (what is not becomes U+FFFD, as Python's "replace" has
it), `ot=th` in its tracestate as OpenTelemetry's "TraceState: Probability Sampling" says (`sampling.py`), and behind
its own attributes, where switched on: `sampler_proxy.rule` and `sampler_proxy.reason` (strings),
`sampler_proxy.adjusted_count` (double; not on a span whose own `th` was erased because it contradicts the randomness).
A span that was sampled out, and leaves all the same for a destination that takes such ones, has the attribute
`sampler_proxy.sampled_out` (true) instead of a threshold, and an adjusted count of 0.
All other bytes stay, in their order.
"""

from collections.abc import Iterable

from sampler_proxy.otlp.fragments import KeptTrace

def assemble(traces: Iterable[KeptTrace]) -> bytes:
    """Join an ExportTraceServiceRequest with all spans of these traces, each resource and scope once, none of them
    empty; b"" for no traces. Copies bytes and reads none; the traces stay as they are. All must come from one pipeline.

    Raises MemoryError, and TypeError for what is no KeptTrace.
    """
