"""Redacts kept spans and their headers, on their bytes. Made and used by a pipeline, under its lock.

Every field that is a string or bytes in `opentelemetry/proto/{trace,resource,common}/v1` is looked at, at any nesting,
attribute keys included. Exempt are trace state, and trace and span ids that have the size of one; times, flags, kinds,
status codes and counts are numbers and stay. Integers, and doubles without a fraction, are looked at in their decimal
form; one that is redacted becomes a string. Fields that we do not know are dropped, whatever they hold, groups too:
they cannot be judged.

What does not change is copied as it stands, in its order; a span in which nothing changes leaves byte for byte.
`dropped_attributes_count` grows by the attributes that were deleted, and moves to the end of its message. Of ids that
stand several times in a span or link the last one is exempt; of several keys in one KeyValue the strictest counts.

What a trace may cost is bounded by a budget. New values, but for those that pass a first look with many others, are
paid for by their tokens: 2^17 units of about a microsecond for a trace, four times that for all traces that are decided
while one request is taken (`value_cache.pxd`: TRACE_BUDGET, REQUEST_BUDGET). What is new after that is masked, counted
as `oversize`, and not cached. A span in which more than 65536 things may change leaves with its ids, trace state,
times, kind, flags, status code and counts, and a mask for a name; such a resource or scope with its count of dropped
attributes. Of a resource whose entity references name more than 1024 keys no attribute is deleted: they are masked.
"""

from typing import final

from sampler_proxy.otlp.fragments import Envelopes
from sampler_proxy.redact.lanes import Label
from sampler_proxy.redact.policy import Observer, Policy

@final
class Redactor:
    """Redacts traces by one policy. Caches what becomes of values: 32768 of them, and 8 MiB, at most (CLOCK eviction).

    Natively: begin_request() or begin_trace() say what may be spent; redact(trace) returns a `Redacted`, whose spans
    and scopes are read in order; release() gives it back.
    """

    def __init__(
        self,
        policy: Policy,
        envelopes: Envelopes,
        counts: dict[Label, int],
        observer: Observer | None = None,
        *,
        seed: int = 0,
    ) -> None:
        """Create a redactor. Redactions are added to `counts`. `seed`: 64 bits that senders cannot know, so that they
        cannot choose values that collide in the cache. Raises MemoryError."""
    @property
    def policy(self) -> Policy: ...
