"""An independent protobuf writer: the same message in the strangest encodings that the official parser reads as equal.

`encode(message, random, noise)` walks the descriptor of a protobuf object. Each kind of noise can be switched off, so
that a failing example shrinks to the one that matters. Parsing the result gives the message back, unknown fields apart
(`DiscardUnknownFields`).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

VARINT, FIXED64, LEN, SGROUP, EGROUP, FIXED32 = range(6)

WIRE_TYPES = {
    FieldDescriptor.TYPE_DOUBLE: FIXED64,
    FieldDescriptor.TYPE_FIXED64: FIXED64,
    FieldDescriptor.TYPE_FIXED32: FIXED32,
    FieldDescriptor.TYPE_INT32: VARINT,
    FieldDescriptor.TYPE_INT64: VARINT,
    FieldDescriptor.TYPE_UINT32: VARINT,
    FieldDescriptor.TYPE_BOOL: VARINT,
    FieldDescriptor.TYPE_ENUM: VARINT,
    FieldDescriptor.TYPE_STRING: LEN,
    FieldDescriptor.TYPE_BYTES: LEN,
    FieldDescriptor.TYPE_MESSAGE: LEN,
}
NARROW = (FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_ENUM)


@dataclass(frozen=True)
class Noise:
    order: bool = False  # fields in any order (elements of one repeated field keep theirs)
    repeat: bool = (
        False  # scalars more than once with other values before the last; zeros written out; other oneof members first
    )
    keys: bool = True  # and keys of attributes
    split: bool = False  # a sub-message in several parts, to be merged
    unknown: bool = False  # unknown fields of all wire types, and known numbers with another wire type
    overlong: bool = False  # varints longer than need be: tags and lengths up to 5 bytes, values up to 10
    wide: bool = False  # bits above the 32nd in 32-bit varints, any non-zero varint for true


CALM = Noise()
ALL = Noise(order=True, repeat=True, split=True, unknown=True, overlong=True, wide=True)


def varint(value: int, width: int = 0) -> bytes:
    """Encode `value` modulo 2^64 in at least `width` bytes."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F or len(out) < width - 1:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def tag(number: int, wire_type: int, width: int = 0) -> bytes:
    return varint(number << 3 | wire_type, width)


def field(number: int, wire_type: int, payload: bytes) -> bytes:
    """Encode one field in as few bytes as possible; `payload` without its length."""
    return tag(number, wire_type) + (varint(len(payload)) + payload if wire_type == LEN else payload)


class Writer:
    def __init__(self, random: Random, noise: Noise) -> None:
        self.random = random
        self.noise = noise

    def chance(self, switched_on: bool, probability: float) -> bool:
        return switched_on and self.random.random() < probability

    def width(self, longest: int) -> int:
        return self.random.randint(0, longest) if self.chance(self.noise.overlong, 0.1) else 0

    def tag(self, number: int, wire_type: int) -> bytes:
        return tag(number, wire_type, self.width(5))

    def len_field(self, number: int, payload: bytes) -> bytes:
        return self.tag(number, LEN) + varint(len(payload), self.width(5)) + payload

    def message(self, message: Message) -> bytes:
        return b"".join(self.chunks(message))

    def chunks(self, message: Message) -> list[bytes]:
        """Encode the fields of a message, each for itself; cut anywhere, the two halves merge to the message."""
        lanes: list[list[bytes]] = []
        oneofs: dict[str, list[FieldDescriptor]] = {}
        for descriptor in message.DESCRIPTOR.fields:
            if descriptor.name.endswith("strindex"):
                continue  # of profiles; older OTLP classes do not know them
            if descriptor.containing_oneof is not None:
                oneofs.setdefault(descriptor.containing_oneof.name, []).append(descriptor)
            elif descriptor.is_repeated:
                lanes.append([self.single(descriptor, value) for value in getattr(message, descriptor.name)])
            elif descriptor.message_type is not None:
                lanes.append(
                    self.sub_message(descriptor, getattr(message, descriptor.name))
                    if message.HasField(descriptor.name)
                    else []
                )
            else:
                lanes.append(self.scalar(descriptor, getattr(message, descriptor.name)))
        for name, members in oneofs.items():
            lanes.append(self.oneof(message, name, members))
        if self.noise.unknown:
            lanes += [[self.unknown(message)] for _ in range(3) if self.random.random() < 0.1]
        return self.interleaved([lane for lane in lanes if lane])

    def interleaved(self, lanes: list[list[bytes]]) -> list[bytes]:
        if not self.noise.order:
            return [chunk for lane in lanes for chunk in lane]
        picks = [index for index, lane in enumerate(lanes) for _ in lane]
        self.random.shuffle(picks)
        rest = [iter(lane) for lane in lanes]
        return [next(rest[index]) for index in picks]

    def single(self, descriptor: FieldDescriptor, value: Any) -> bytes:
        if descriptor.message_type is not None:
            return self.len_field(descriptor.number, self.message(value))
        return self.scalar_chunk(descriptor, value)

    def sub_message(self, descriptor: FieldDescriptor, value: Message) -> list[bytes]:
        parts = [self.chunks(value)]
        while self.chance(self.noise.split, 0.2) and len(parts) < 4:
            last = parts.pop()
            cut = self.random.randint(0, len(last))
            parts += [last[:cut], last[cut:]]
        return [self.len_field(descriptor.number, b"".join(part)) for part in parts]

    def scalar(self, descriptor: FieldDescriptor, value: Any) -> list[bytes]:
        out = []
        while self.chance(self.noise.repeat and (self.noise.keys or descriptor.name != "key"), 0.1):
            out.append(self.scalar_chunk(descriptor, self.decoy(descriptor)))
        if out or value != descriptor.default_value or self.chance(self.noise.repeat, 0.1):
            out.append(self.scalar_chunk(descriptor, value))
        elif isinstance(value, float) and struct.pack("<d", value) != bytes(8):
            out.append(self.scalar_chunk(descriptor, value))  # -0.0
        return out

    def oneof(self, message: Message, name: str, members: list[FieldDescriptor]) -> list[bytes]:
        chosen = message.WhichOneof(name)
        if chosen is None:
            return []
        last = next(member for member in members if member.name == chosen)
        out = []
        other = last
        while self.chance(self.noise.repeat, 0.1):
            other = self.random.choice(members)
            out.append(self.oneof_decoy(other))
        if out and other is last and last.message_type is not None:
            # Two parts of the same sub-message would merge: a scalar between them discards the first.
            out.append(self.oneof_decoy(next(member for member in members if member.message_type is None)))
        value = getattr(message, chosen)
        if last.message_type is not None:
            return out + self.sub_message(last, value)
        return [*out, self.scalar_chunk(last, value)]

    def oneof_decoy(self, descriptor: FieldDescriptor) -> bytes:
        if descriptor.message_type is None:
            return self.scalar_chunk(descriptor, self.decoy(descriptor))
        return self.len_field(descriptor.number, self.random.choice([b"", field(1, LEN, b"")]))

    def decoy(self, descriptor: FieldDescriptor) -> Any:
        if descriptor.type == FieldDescriptor.TYPE_STRING:
            return self.random.choice(["", "decoy", "\u00e9"])
        if descriptor.type == FieldDescriptor.TYPE_BYTES:
            return self.random.randbytes(self.random.choice([0, 7, 8, 16]))
        if descriptor.type == FieldDescriptor.TYPE_DOUBLE:
            return self.random.choice([0.0, -1.5])
        return self.random.choice([0, 1, 2])

    def scalar_chunk(self, descriptor: FieldDescriptor, value: Any) -> bytes:
        wire_type = WIRE_TYPES[descriptor.type]
        if wire_type == LEN:
            return self.len_field(descriptor.number, value.encode() if isinstance(value, str) else value)
        head = self.tag(descriptor.number, wire_type)
        if descriptor.type == FieldDescriptor.TYPE_DOUBLE:
            return head + struct.pack("<d", value)
        if wire_type == FIXED64:
            return head + struct.pack("<Q", value)
        if wire_type == FIXED32:
            return head + struct.pack("<I", value)
        number = int(value)
        if descriptor.type in NARROW and self.chance(self.noise.wide, 0.2):
            number = number & 0xFFFFFFFF | self.random.getrandbits(32) << 32
        if descriptor.type == FieldDescriptor.TYPE_BOOL and number and self.chance(self.noise.wide, 0.2):
            number = 1 << self.random.randrange(64)
        return head + varint(number, self.width(10))

    def unknown(self, message: Message) -> bytes:
        known = {d.number: WIRE_TYPES[d.type] for d in message.DESCRIPTOR.fields if not d.name.endswith("strindex")}
        number = self.random.choice([20, 100, 18_999, (1 << 29) - 1, *known])
        wire_type = self.random.choice([w for w in (VARINT, FIXED64, LEN, SGROUP, FIXED32) if w != known.get(number)])
        return self.raw_field(number, wire_type, depth=0)

    def raw_field(self, number: int, wire_type: int, depth: int) -> bytes:
        if wire_type == VARINT:
            return self.tag(number, VARINT) + varint(self.random.getrandbits(64), self.width(10))
        if wire_type == FIXED64:
            return self.tag(number, FIXED64) + self.random.randbytes(8)
        if wire_type == FIXED32:
            return self.tag(number, FIXED32) + self.random.randbytes(4)
        if wire_type == LEN:
            return self.len_field(number, self.random.randbytes(self.random.choice([0, 1, 9, 200])))
        kinds = (VARINT, FIXED64, LEN, FIXED32) if depth > 2 else (VARINT, FIXED64, LEN, SGROUP, FIXED32)
        inner = [
            self.raw_field(self.random.choice([1, 5, 99]), self.random.choice(kinds), depth + 1)
            for _ in range(self.random.randint(0, 3))
        ]
        return self.tag(number, SGROUP) + b"".join(inner) + self.tag(number, EGROUP)


def encode(message: Message, random: Random, noise: Noise = ALL) -> bytes:
    return Writer(random, noise).message(message)
