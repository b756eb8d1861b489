"""Turns the outcome of a request into an HTTP answer, in the encoding of the request (OTLP specification, OTLP/HTTP).

A refusal has a google.rpc.Status for a body; one that may be retried has a RetryInfo in it, and Retry-After in whole
seconds. Which status is retried is the protocol's: 429, 502, 503 and 504.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from google.protobuf import any_pb2, duration_pb2, json_format
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from sampler_proxy.errors import RequestError
from sampler_proxy.receive.grpc_status import RETRY_AFTER_MAX_NS
from sampler_proxy.receive.http_bodies import ENCODINGS

PROTOBUF, JSON = "application/x-protobuf", "application/json"
TYPES = (PROTOBUF, JSON)


class Answer(NamedTuple):
    """An answer without what the connection adds. `last`: the connection is of no more use, since the rest of the
    request is not read."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    last: bool = False


_TAKEN = {content_type: {"Content-Type": content_type} for content_type in TYPES}


def taken(response: bytes, content_type: str) -> Answer:
    """Return the answer to a request that was taken; `response` is an encoded ExportTraceServiceResponse."""
    body = response
    if content_type == JSON:
        body = b"{}"
        if response:
            message = ExportTraceServiceResponse.FromString(response)
            body = json_format.MessageToJson(message, indent=None).encode()
    return Answer(200, body, _TAKEN[content_type])


class Refused(NamedTuple):
    """A refusal before it is written in an encoding. `code` is the number of a grpc.StatusCode. `headers`: beside what
    every refusal has, by name and value."""

    status: int
    code: int
    message: str
    retry_after_ns: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    last: bool = False

    def answer(self, content_type: str) -> Answer:
        """Return the answer. Where the request's encoding is none that is known, JSON is what people can read."""
        return _answer(self, content_type if content_type in TYPES else JSON)


@lru_cache(maxsize=256)  # under overload the same few refusals go out thousands of times a second
def _answer(refused: Refused, content_type: str) -> Answer:
    status = status_pb2.Status(code=refused.code, message=refused.message)
    headers = {"Content-Type": content_type, **dict(refused.headers)}
    if refused.retry_after_ns is not None:
        pause_ns = min(refused.retry_after_ns, RETRY_AFTER_MAX_NS)
        seconds, nanos = divmod(pause_ns, 1_000_000_000)
        info = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=seconds, nanos=nanos))
        detail = any_pb2.Any()
        detail.Pack(info)
        status.details.append(detail)
        headers["Retry-After"] = str(max(1, -(-pause_ns // 1_000_000_000)))
    body = status.SerializeToString() if content_type == PROTOBUF else json_format.MessageToJson(status, indent=None)
    return Answer(refused.status, body if isinstance(body, bytes) else body.encode(), headers, refused.last)


def refusal(error: RequestError, last: bool = False) -> Refused:
    """Return the refusal for an error."""
    return Refused(error.http_status, error.grpc_status, str(error), error.retry_after_ns, last=last)


_SECOND = 1_000_000_000
NOT_FOUND = Refused(404, 12, "no such path: traces are taken at /v1/traces")
TRACES_ONLY = Refused(404, 12, "this proxy takes traces only: send metrics, logs and profiles elsewhere")
NOT_ALLOWED = Refused(405, 12, "requests are sent with POST", headers=(("Allow", "POST"),))
UNKNOWN_TYPE = Refused(415, 3, "unknown content type: this proxy reads application/x-protobuf and application/json")
UNKNOWN_ENCODING = Refused(
    415,
    12,
    "unknown content encoding: this proxy reads gzip, deflate and zstd",
    headers=(("Accept-Encoding", ", ".join(ENCODINGS)),),
)
UNKNOWN_EXPECTATION = Refused(417, 3, "unknown expectation: this proxy knows 100-continue")
STALLED = Refused(408, 14, "the request's body did not arrive in time", last=True)
TOO_MANY_BYTES = Refused(503, 14, "too many bytes of unfinished requests at once", _SECOND, last=True)
OUT_OF_MEMORY = Refused(503, 14, "the proxy is out of memory", _SECOND)
STOPPING = Refused(503, 14, "the proxy is stopping", _SECOND, last=True)
INTERNAL = Refused(500, 13, "internal error")
NO_PAGES = Refused(403, 7, "pages of this origin may not send: it is not in receive.http.cors.allowed_origins")

for _prepared in (OUT_OF_MEMORY, TOO_MANY_BYTES):  # made in advance: there is no memory by then
    for _type in TYPES:
        _prepared.answer(_type)


_KINDS = ("metrics", "logs", "profiles")


def not_served(path: str) -> tuple[str, Refused]:
    """Return the kind of a path that nobody handles (a label of metrics, so one of a few), and its refusal."""
    for kind in _KINDS:
        if path in (f"/v1/{kind}", f"/v1development/{kind}"):
            return kind, TRACES_ONLY
    return "other", NOT_FOUND
