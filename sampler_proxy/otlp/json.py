"""Converts requests between protobuf and OTLP/JSON: the Protobuf JSON mapping, save for two things.

Source: OTLP specification, "JSON Protobuf Encoding". Trace and span ids are hexadecimal digits, where the mapping has
base64 for bytes; enumerations are integers. The conversion itself is protobuf's own; only ids are rewritten here.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_IDS = ("traceId", "spanId", "parentSpanId")
_IDS_AS_READ = (*_IDS, "trace_id", "span_id", "parent_span_id")  # a reader has to take the names of the .proto, too

_REFUSED_FIELDS = re.compile(r"(?:Failed to parse (\w+) field: )+")
_FIELD = re.compile(r"Failed to parse (\w+) field: ")


def json_line(request: bytes) -> bytes:
    """Encode a request as one line of OTLP/JSON, with its line break.

    Raises DecodeError for bytes that the official parser refuses.
    """
    document = MessageToDict(ExportTraceServiceRequest.FromString(request), use_integers_for_enums=True)
    for holder in _holders_of_ids(document):
        for key in _IDS:
            if key in holder:
                holder[key] = base64.b64decode(holder[key]).hex()
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def request_of(document: Any) -> ExportTraceServiceRequest:
    """Decode parsed JSON, an ExportTraceServiceRequest or TracesData; its ids are rewritten in place.

    Raises ValueError, which names fields and quotes no value.
    """
    if not isinstance(document, dict) or not ({"resourceSpans", "resource_spans"} & document.keys() or not document):
        raise ValueError("not OTLP: an object with resourceSpans is wanted here")
    for holder in _holders_of_ids(document):
        _ids_to_base64(holder)
    try:
        return ParseDict(document, ExportTraceServiceRequest(), ignore_unknown_fields=True)
    except ParseError as error:
        refused = _REFUSED_FIELDS.match(str(error))  # of the message the names of fields only: the rest quotes values
        field = ".".join(_FIELD.findall(refused[0])) if refused else "a field"
        what = "half of a surrogate pair" if "surrogate" in str(error).partition(" at ")[0] else "what it cannot hold"
        raise ValueError(f"not OTLP: {field} holds {what}") from None
    except SystemError:  # the official parser's, for half of a surrogate pair in a key or in the name of an enumerator
        raise ValueError("not OTLP: a key or a name holds half of a surrogate pair") from None
    except (RecursionError, ValueError):
        raise ValueError("not OTLP") from None


def _ids_to_base64(holder: dict[str, Any]) -> None:
    """Rewrite the ids of a span or link from hexadecimal to Base64, in place. Raises ValueError."""
    for key in _IDS_AS_READ:
        if isinstance(text := holder.get(key), str):
            try:
                holder[key] = base64.b64encode(bytes.fromhex(text)).decode()
            except ValueError:
                raise ValueError(f"a {key} that is not made of hexadecimal digits") from None


def _holders_of_ids(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every span and every link, which hold ids."""
    for resource_spans in _objects(document, "resourceSpans", "resource_spans"):
        for scope_spans in _objects(resource_spans, "scopeSpans", "scope_spans"):
            for span in _objects(scope_spans, "spans"):
                yield span
                yield from _objects(span, "links")


def _objects(holder: dict[str, Any], *keys: str) -> Iterator[dict[str, Any]]:
    for key in keys:
        if isinstance(found := holder.get(key), list):
            yield from (item for item in found if isinstance(item, dict))
