"""Redacts kept spans and their headers, on their bytes. Made and used by a pipeline: one trace at a time, under one
lock for all that finish traces, and with the GIL.

Every field that is a string or bytes in `opentelemetry/proto/{trace,resource,common}/v1` is looked at, at any nesting,
attribute keys included. Exempt are trace state, and trace and span ids that have the size of one; times, flags, kinds,
status codes and counts are numbers and stay. Integers, and doubles without a fraction, are looked at in their decimal
form; one that is redacted becomes a string. Fields that we do not know are dropped, whatever they hold, groups too:
they cannot be judged.

What does not change is copied as it stands, in its order; a span in which nothing changes leaves byte for byte.
`dropped_attributes_count` grows by the attributes that were deleted, and moves to the end of its message. Of ids that
stand several times in a span or link the last one is exempt; of several keys in one KeyValue the strictest counts.

A header is redacted once for all traces under it: its envelope remembers what it becomes under this redactor and in a
view (8 of them), as long as the header or the redactor lives. Each trace counts the redactions of its headers, though
they are done once; where there is an observer they are done for each.

All that a trace takes is measured, in units of about a microsecond (`effort.pxd`). New values, but for those that pass
a first look with many others, are paid for by their tokens: 2^17 units for a trace (TRACE_BUDGET). Walking, looking up,
matching filters and copying are counted too: with these it is 2^19 (TOTAL_BUDGET). What is new beyond either is masked,
counted as `oversize`, and not cached; what is left to do then takes at most about 15 ns a byte. Values of a header are
masked so, too; that is remembered only where the header itself has taken half of the budget. A span in which more than
65536 things may change leaves with its ids, trace state, times, kind, flags, status code and counts, and a mask for a
name; such a resource or scope with its count of dropped attributes. Of a resource whose entity references name more
than 1024 keys no attribute is deleted: they are masked.

Threads: the GIL is given way about every millisecond. Meanwhile others may intern and release envelopes, and read
`counts`; the trace, and its references to envelopes, must stay until release().
"""

from typing import final

from sampler_proxy.otlp.fragments import Envelopes
from sampler_proxy.redact.lanes import Label
from sampler_proxy.redact.policy import Observer, Policy

@final
class Redactor:
    """Redacts traces by one policy. Caches what becomes of values: 32768 of them, and 8 MiB, at most (CLOCK eviction).

    Natively: redact(trace) returns a `Redacted`, whose spans and scopes are read in order; release() gives it back.
    spent() is the effort of the last trace.
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
    @property
    def nbytes(self) -> int:
        """Bytes of memory that are held between traces: the cache, 9 MiB at most, and buffers of 4 MiB at most each.
        What headers have become is in the account of their envelopes."""
