"""Requests with a secret planted in them: redaction never raises, what leaves is sound, and the secret is not in it.

Of the input the first two bytes say which secret goes where; the rest is a request. The secret is put into a string of
it (a name, a key, a value, a header, an event, a link, nested as it may be); ids and tracestates are exempt. The same
bytes are also redacted as they are, damaged strings included, for what must hold without a secret.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sampler_proxy.errors import MalformedRequest, RequestTooLarge
from tests.otlp import official
from tests.support.positions import EXEMPT
from tests.support.redacting import Redacting, policy
from tests.support.secrets import CONFIG, OTHERS, SECRETS

STRICT = policy({**CONFIG, "marker": True})
LAYERED = policy(
    {
        "preset": "common",
        "keys": [
            {"match": "drop*", "action": "delete"},
            {"match": "last", "action": {"keep_last": 4}},
            {"match": "/hash(ed)?/", "action": "hash"},
            {"match": "é", "action": "mask"},
        ],
        "values": [
            {"detect": "ipv4", "action": "mask"},
            {"name": "ticket", "pattern": "TICKET-([0-9]+)", "action": "mask"},
            {"detect": "email", "action": "hash", "only": "{ kind = server || span.k != nil }"},
        ],
        "allow_only": {"event": ["a", "drop*", "k"], "resource": ["service.*", "a", "hash"]},
        "hash_key": "0123456789abcdef",
    }
)
PLANTED = [*SECRETS.values(), *OTHERS.values()]


def one(data: bytes) -> None:
    which, where, raw = (data[0], data[1], data[2:]) if len(data) > 1 else (0, 0, b"")
    for settings in (STRICT, LAYERED):
        _redact(settings, raw)
    message = ExportTraceServiceRequest()
    try:
        message.ParseFromString(raw)
    except DecodeError:  # not sound, or not UTF-8: there is no telling where a text stands
        return
    holders = _holders(message)
    secret = PLANTED[which % len(PLANTED)]
    if not holders or secret.part.encode() in message.SerializeToString():
        return
    holder, field, index = holders[where % len(holders)]
    _put(holder, field, index, secret.text)
    out = _redact(STRICT, message.SerializeToString())
    assert out is not None
    assert secret.part.encode() not in out, "a secret left"


def _redact(settings: Any, raw: bytes) -> bytes | None:
    """What leaves; None where the request is refused."""
    redacting = Redacting(settings)
    try:
        out = redacting.run([raw])
    except MalformedRequest:
        assert official.structure(raw) is None
        return None
    except RequestTooLarge:
        return None
    ExportTraceServiceRequest.FromString(out)
    return out


def _holders(message: Message) -> list[tuple[Message, Any, int | None]]:
    """Every place in the message where a text stands that redaction looks at."""
    found: list[tuple[Message, Any, int | None]] = []
    waiting = [message]
    while waiting:
        here = waiting.pop()
        for descriptor, value in here.ListFields():
            if descriptor.message_type is not None:
                waiting += value if descriptor.is_repeated else [value]
            elif descriptor.type in (descriptor.TYPE_STRING, descriptor.TYPE_BYTES) and descriptor.name not in EXEMPT:
                found += [(here, descriptor, i) for i in range(len(value))] if descriptor.is_repeated else []
                found += [] if descriptor.is_repeated else [(here, descriptor, None)]
    return found


def _put(holder: Message, field: Any, index: int | None, text: str) -> None:
    value: Any = text.encode() if field.type == field.TYPE_BYTES else text
    if index is None:
        setattr(holder, field.name, value)
    else:
        getattr(holder, field.name)[index] = value
