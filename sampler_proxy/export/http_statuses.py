"""Decides what an answer over OTLP/HTTP means: its status, `Retry-After`, a partial success.

Source: OTLP specification, "OTLP/HTTP Response", "Retryable Response Codes", "OTLP/HTTP Throttling"; RFC 9110, 10.2.3.
429, 502, 503 and 504 are tried again, and what no OTLP back end answers: redirects, and the statuses by which
Cloudflare says that it did not reach the server behind it. 401, 403 and 407 wait for better credentials, as they do
over gRPC. Everything else is final.
"""

from __future__ import annotations

import json
from email.utils import parsedate_to_datetime

from sampler_proxy.export.reasons import ANSWERED, HTTP_STATUSES, REDIRECTED
from sampler_proxy.export.retry import MAX_RETRY_AFTER_NS, TOO_LARGE, Failed, Fault
from sampler_proxy.export.signals import rejected_items

_THROTTLED = frozenset({429, 502, 503, 504})
_UNREACHED = range(520, 531)  # Cloudflare's
_CREDENTIALS = frozenset({401, 403, 407})
_ABOUT_THE_BYTES = frozenset({400, 422, 500})  # 500: as INTERNAL over gRPC, which handlers fail with at some bytes
_TOO_LARGE = 413

_REJECTED = ("rejectedSpans", "rejectedLogRecords", "rejectedDataPoints", "rejectedProfiles")


def classify_status(status: int, retry_after: str | None, now_s: float) -> Failed:
    """Classify an answer that is no success. `now_s`: the time of day, which a `Retry-After` may refer to."""
    name, why = f"HTTP {status}", HTTP_STATUSES.get(status, ANSWERED)
    if status in _THROTTLED:
        return Failed(Fault.OVERLOAD, name, why, retry_after_ns(retry_after, now_s))
    if 300 <= status < 400:
        return Failed(Fault.OVERLOAD, name, REDIRECTED)
    if status in _UNREACHED:
        return Failed(Fault.OVERLOAD, name, HTTP_STATUSES[502])
    if status in _CREDENTIALS:
        return Failed(Fault.CREDENTIALS, name, why)
    if status == _TOO_LARGE:
        return Failed(Fault.SIZE, name, TOO_LARGE)
    return Failed(Fault.BYTES if status in _ABOUT_THE_BYTES else Fault.UNWANTED, name, why)


def retry_after_ns(value: str | None, now_s: float) -> int | None:
    """Return the delay that a `Retry-After` asks for, in seconds or until a date, from 0 to MAX_RETRY_AFTER_NS; None
    where none can be read."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return min(int(text[:9]) * 10**9, MAX_RETRY_AFTER_NS)
    try:
        delay_s = parsedate_to_datetime(text).timestamp() - now_s
    except (ValueError, OverflowError):
        return None
    return int(min(max(delay_s, 0), MAX_RETRY_AFTER_NS / 1e9) * 1e9)


def rejected_by(content_type: str, body: bytes) -> int:
    """Return how many items a partial success rejects, in whichever encoding it came; 0 where it cannot be read, since
    the status was a success."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind != "application/json":
        return rejected_items(body) if kind == "application/x-protobuf" else 0
    try:
        partial = json.loads(body)["partialSuccess"]
        return sum(int(partial.get(name, 0)) for name in _REJECTED)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return 0
