"""Redacts messages as the official classes read them: slow, obvious, and independent of the walk over bytes.

What becomes of one text is the policy's; where texts stand, what a key rules over and what is counted is said again
here.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from sampler_proxy.redact import lanes
from sampler_proxy.redact.lanes import LaneKind, Place
from sampler_proxy.redact.policy import View

UINT32 = (1 << 32) - 1
EXEMPT_SIZES = {"trace_id": (0, 16), "span_id": (0, 8), "parent_span_id": (0, 8)}
STORE_KEYS = ("db.system", "db.system.name", "db.type")
Around = tuple[list[KeyValue], ...]
"""The attributes of a message as they came, and those of the messages around it, the innermost first."""


def copies(pairs: Any) -> list[KeyValue]:
    made = []
    for pair in pairs:
        made.append(KeyValue())
        made[-1].CopyFrom(pair)
    return made


class Reference:
    def __init__(self, view: View) -> None:
        self.view = view

    def request(self, request: ExportTraceServiceRequest) -> ExportTraceServiceRequest:
        """A copy, redacted; unknown fields are not looked at."""
        result = ExportTraceServiceRequest.FromString(request.SerializeToString())
        for resource_spans in result.resource_spans:
            self.fields(resource_spans, Place.VALUE)
        return result

    def text(self, lane: int, text: Any) -> Any:
        raw = text if isinstance(text, bytes) else text.encode()
        found = self.view.apply(lane, raw)
        if found is None:
            return text
        return found[0] if isinstance(text, bytes) else found[0].decode("utf-8", "replace")

    def fields(self, message: Message, place: int, around: Around = ()) -> None:
        if "attributes" in message.DESCRIPTOR.fields_by_name:
            around = (copies(message.attributes), *around)  # type: ignore[attr-defined]
        for descriptor, value in message.ListFields():
            name = descriptor.name
            if name == "attributes":
                self.attributes(message, around)
            elif name in ("resource", "scope", "status"):
                self.fields(value, place, around)
            elif name in ("scope_spans", "spans", "events", "links", "entity_refs"):
                for each in value:
                    self.fields(each, place, around)
            elif name in ("id_keys", "description_keys"):
                value[:] = [self.key(Place.RESOURCE, key) for key in value]
            elif name in EXEMPT_SIZES:
                if len(value) not in EXEMPT_SIZES[name]:
                    setattr(message, name, self.text(lanes.TEXT, value))
            elif isinstance(value, str) and name != "trace_state":
                named = message.DESCRIPTOR.name in ("Span", "Event") and name == "name"
                setattr(message, name, self.text(lanes.NAME if named else lanes.TEXT, value))

    def attributes(self, message: Any, around: Around) -> None:
        place = {
            "Span": Place.SPAN,
            "Resource": Place.RESOURCE,
            "InstrumentationScope": Place.SCOPE,
            "Event": Place.EVENT,
            "Link": Place.LINK,
        }[message.DESCRIPTOR.name]
        named = set()
        for reference in getattr(message, "entity_refs", ()):
            named |= {*reference.id_keys, *reference.description_keys}
        kept = self.pairs(message.attributes, place, lanes.TEXT, named, around)
        deleted = len(message.attributes) - len(kept)
        if deleted:
            message.dropped_attributes_count = min(message.dropped_attributes_count + deleted, UINT32)
        del message.attributes[:]
        message.attributes.extend(kept)

    def key(self, place: int, key: str, named: bool = False) -> str:
        exempt = self.view.key_rules.lane_of(place, key.encode(), named) == lanes.EXEMPT
        return key if exempt else str(self.text(lanes.KEY, key))

    def statement_lane(self, around: Around) -> int:
        """The lane for the store that is named nearest: none that is unknown, and not two that differ."""
        rules = self.view.key_rules
        for pairs in around:
            named = [pair.value.string_value for pair in pairs if pair.key in STORE_KEYS]
            found = {rules.statement_lane(name.encode()) for name in named} - {rules.statement}
            if len(found) == 1:
                return found.pop()
        return rules.statement

    def pairs(self, pairs: Any, place: int, outer: int, named: set[str], around: Around) -> list[KeyValue]:
        found = []
        for pair in pairs:
            if outer == lanes.EXEMPT:
                found.append(pair)
                continue
            is_named = place == Place.RESOURCE and pair.key in named
            lane = self.view.key_rules.lane_of(place, pair.key.encode(), is_named)
            if lane == self.view.key_rules.statement:
                lane = self.statement_lane(around)
            kind = self.view.key_rules.lanes[lane].kind
            if kind == LaneKind.DELETED:
                continue
            result = KeyValue(key=pair.key if lane == lanes.EXEMPT else self.key(place, pair.key, is_named))
            if pair.HasField("value"):
                if kind == LaneKind.MASKED:
                    result.value.string_value = "****"
                else:
                    result.value.CopyFrom(self.value(pair.value, outer if lane == lanes.TEXT else lane, around))
            found.append(result)
        return found

    def value(self, value: AnyValue, lane: int, around: Around) -> AnyValue:
        kind = value.WhichOneof("value")
        result = AnyValue()
        result.CopyFrom(value)
        if kind is None or lane == lanes.EXEMPT:
            return result
        leaves = self.view.key_rules.lanes[lane].kind == LaneKind.ANY_TYPE
        if kind == "array_value":
            for element in result.array_value.values:
                element.CopyFrom(self.value(element, lane, around))
            return result
        if kind == "kvlist_value":
            inner = (copies(value.kvlist_value.values), *around)
            kept = self.pairs(value.kvlist_value.values, Place.VALUE, lane, set(), inner)
            del result.kvlist_value.values[:]
            result.kvlist_value.values.extend(kept)
            return result
        raw = getattr(value, kind)
        if isinstance(raw, bool):
            text = ("true" if raw else "false") if leaves else None
        elif isinstance(raw, float):
            whole = raw.is_integer() and abs(raw) < 9.2e18
            text = str(int(raw)) if whole else repr(raw) if leaves else None
        else:
            text = str(raw) if isinstance(raw, int) else raw
        if text is None:
            return result
        if lane == lanes.TEXT and isinstance(raw, bytes):
            lane = lanes.BYTES
        found = self.view.apply(lane, text if isinstance(text, bytes) else text.encode())
        return result if found is None else AnyValue(string_value=found[0].decode("utf-8", "replace"))
