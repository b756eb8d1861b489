"""OTLP/JSON by other means: any message of a type, a writer with every spelling allowed, and the official reader.

`message` and `write` go by the descriptors, so that a field that OTLP gets is covered when the library has it.
"""

from __future__ import annotations

import base64
import json
import math
import re
from decimal import Decimal
from random import Random
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.profiles.v1development.profiles_service_pb2 import ExportProfilesServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

REQUESTS: list[type[Message]] = [
    ExportTraceServiceRequest,
    ExportLogsServiceRequest,
    ExportMetricsServiceRequest,
    ExportProfilesServiceRequest,
]
JSON_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
IDS = {"trace_id", "span_id", "parent_span_id"}

STRINGS = ["", "a", "é", "Zürich\n\u2028", 'a"b\\c/', "\x00\x1f", "😀", "\ud7ff\ue000\uffff", "x" * 130, "y" * 17000]
SIGNED = {
    FieldDescriptor.TYPE_INT32: 32,
    FieldDescriptor.TYPE_SINT32: 32,
    FieldDescriptor.TYPE_SFIXED32: 32,
    FieldDescriptor.TYPE_ENUM: 32,
    FieldDescriptor.TYPE_INT64: 64,
    FieldDescriptor.TYPE_SINT64: 64,
    FieldDescriptor.TYPE_SFIXED64: 64,
}
UNSIGNED = {
    FieldDescriptor.TYPE_UINT32: 32,
    FieldDescriptor.TYPE_FIXED32: 32,
    FieldDescriptor.TYPE_UINT64: 64,
    FieldDescriptor.TYPE_FIXED64: 64,
}
INTEGERS = {*SIGNED, *UNSIGNED}
DOUBLES = [0.0, -0.0, 1.0, 0.1, 0.30000000000000004, 1e22, 1e23, 5e-324, 1.7976931348623157e308, 2.0**63, 123456.789]
DOUBLES += [math.inf, -math.inf, math.nan, 9007199254740993.0, 1e-7, -2.5]


# Messages


def message(kind: type[Message], random: Random) -> Message:
    """Make a message with any of its fields, at any depth that a dozen levels allow."""
    made = kind()
    _fill(made, random, 0)
    return made


def _fill(made: Message, random: Random, level: int) -> None:
    share = random.random() * (1.0 if level < 4 else 0.6 if level < 9 else 0.2)
    for field in made.DESCRIPTOR.fields:
        if random.random() > max(share, 0.9 if level < 3 and field.message_type else 0):
            continue
        if field.message_type is not None and level > 12:
            continue
        count = random.choice([1, 1, 2, 3]) if field.is_repeated else 1
        for _ in range(count):
            if field.message_type is not None:
                inner = getattr(made, field.name)
                inner = inner.add() if field.is_repeated else inner
                inner.SetInParent()
                _fill(inner, random, level + 1)
            elif field.is_repeated:
                getattr(made, field.name).append(_scalar(field, random))
            else:
                setattr(made, field.name, _scalar(field, random))


def _scalar(field: FieldDescriptor, random: Random) -> Any:
    if field.type == FieldDescriptor.TYPE_STRING:
        return (
            random.choice(STRINGS) if random.random() < 0.7 else "".join(chr(random.randrange(0xD800)) for _ in "abc")
        )
    if field.type == FieldDescriptor.TYPE_BYTES:
        return random.randbytes(random.choice([0, 1, 2, 3, 8, 16, 100]))
    if field.type == FieldDescriptor.TYPE_BOOL:
        return random.random() < 0.7
    if field.type == FieldDescriptor.TYPE_ENUM and random.random() < 0.7:
        return random.choice(field.enum_type.values).number
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return (
            random.choice(DOUBLES)
            if random.random() < 0.7
            else random.uniform(-1e6, 1e6) * 10 ** random.randint(-20, 20)
        )
    bits, signed = (SIGNED[field.type], True) if field.type in SIGNED else (UNSIGNED[field.type], False)
    least, most = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    return random.choice([0, 1, 127, 128, least, most, most - 1, random.randint(least, most)])


# JSON


def write(of: Message, random: Random) -> str:
    """Write a message as OTLP/JSON in one of its spellings, with keys and values that nobody knows between."""
    return _space(random) + _object(of, random) + _space(random)


def _space(random: Random) -> str:
    return random.choice(["", "", "", " ", "\n\t", "\r\n  "])


def _object(of: Message, random: Random) -> str:
    members = []
    for field in of.DESCRIPTOR.fields:
        value = getattr(of, field.name)
        present = len(value) if field.is_repeated else (of.HasField(field.name) if field.has_presence else True)
        if not present:
            if random.random() < 0.1:
                members.append((_key(field, random), random.choice(["null", "[ ]"]) if field.is_repeated else "null"))
            continue
        if field.is_repeated:
            inside = ",".join(_space(random) + _value(field, one, random) + _space(random) for one in value)
            members.append((_key(field, random), f"[{inside}]"))
        else:
            members.append((_key(field, random), _value(field, value, random)))
    if random.random() < 0.1:
        members.append((_quoted("x" * random.randint(0, 9) + "é", random), _anything(random)))
    random.shuffle(members)
    pairs = (f"{_space(random)}{key}{_space(random)}:{_space(random)}{value}{_space(random)}" for key, value in members)
    return "{" + ",".join(pairs) + "}"


def _key(field: FieldDescriptor, random: Random) -> str:
    return _quoted(field.json_name if random.random() < 0.8 else field.name, random, 0.02)


def _quoted(text: str, random: Random, escaped: float = 0.2) -> str:
    if random.random() >= escaped:
        return json.dumps(text, ensure_ascii=random.random() < 0.5)
    units = text.encode("utf-16-be", "surrogatepass")
    return '"' + "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2)) + '"'


def _anything(random: Random) -> str:
    wild = [None, True, False, -1.5e300, "\u20ac\\", [], {}, [[{"a": [1, {"b": None}]}, "c"]], {"spans": {"spans": 1}}]
    return json.dumps(random.choice(wild))


def _value(field: FieldDescriptor, value: Any, random: Random) -> str:
    if field.message_type is not None:
        return _object(value, random)
    if field.type == FieldDescriptor.TYPE_STRING:
        return _quoted(value, random)
    if field.type == FieldDescriptor.TYPE_BYTES:
        if field.name in IDS:
            return _quoted(random.choice([value.hex(), value.hex().upper()]), random)
        text = random.choice([base64.b64encode, base64.urlsafe_b64encode])(value).decode()
        return _quoted(random.choice([text, text.rstrip("=")]), random)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return json.dumps(value)
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        if not math.isfinite(value):
            return _quoted("NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity", random)
        text = random.choice([repr(value), f"{value:.25E}", repr(value)])
        return random.choice([text, text, _quoted(text, random)])
    if field.type == FieldDescriptor.TYPE_ENUM and random.random() < 0.5 and value in field.enum_type.values_by_number:
        return _quoted(field.enum_type.values_by_number[value].name, random)
    text = random.choice([str(value), str(value), f"{value}.00", f"{value * 10}e-1", f"{value}E+0"])
    return random.choice([text, _quoted(text, random)])


# The official reader


class _Number(str):
    """A number as it is written, so that nothing rounds it before its type is known."""


class Refused(Exception):
    """The official classes refuse the text."""


def read(text: bytes, kind: type[Message]) -> Message:
    """Read OTLP/JSON by the official classes, with exact numbers and ids in hexadecimal digits. Raises Refused."""
    made = kind()
    try:
        tree = json.loads(text.decode(), parse_int=_Number, parse_float=_Number, parse_constant=_refuse)
        ParseDict(_official(tree, kind.DESCRIPTOR), made, ignore_unknown_fields=True)
    except (ParseError, ValueError, TypeError, RecursionError, ArithmeticError, AttributeError, SystemError):
        raise Refused from None
    return made


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _official(tree: Any, descriptor: Descriptor) -> Any:
    """Rewrite what OTLP/JSON has otherwise than the official reader, and numbers that it would round."""
    if not isinstance(tree, dict):
        return tree
    fields = {name: field for field in descriptor.fields for name in (field.json_name, field.name)}
    return {
        key: [_one(item, fields[key]) for item in value] if isinstance(value, list) else _one(value, fields[key])
        for key, value in tree.items()
        if key in fields
    }


def _one(value: Any, field: FieldDescriptor) -> Any:
    if field.message_type is not None:
        return _official(value, field.message_type)
    if field.name in IDS and isinstance(value, str) and not isinstance(value, _Number):
        return base64.b64encode(bytes.fromhex(value)).decode()
    named = field.enum_type is not None and value in field.enum_type.values_by_name
    if field.type in INTEGERS and isinstance(value, str) and not named:
        if not JSON_NUMBER.fullmatch(value):  # the official reader takes what Python's int() takes
            return "NO_SUCH_NAME"
        try:
            number = Decimal(value)
            if abs(number) < 1 << 65 and number == number.to_integral_value():
                return int(number)
        except ArithmeticError:
            return float(value) if isinstance(value, _Number) else value
    return float(value) if isinstance(value, _Number) else value
