"""What must hold of any text that the transcoder of OTLP/JSON is given: for its tests and its fuzz target."""

from __future__ import annotations

import re

from google.protobuf.message import Message

from sampler_proxy.errors import MalformedRequest
from sampler_proxy.otlp.json_wire import to_wire
from tests.support import otlp_json

REFUSAL = re.compile(r"^(.*): ([^:]+) \(byte (\d+)\)$", re.DOTALL)
"""The path, what is wrong, and at which byte."""


def alike_or_refused(text: bytes, kind: type[Message]) -> None:
    """What is accepted is what the official classes read; what is refused says where."""
    try:
        wire = to_wire(text, kind.DESCRIPTOR.full_name)
    except MalformedRequest as error:
        match = REFUSAL.match(str(error))
        assert match is not None
        assert int(match[3]) <= len(text)
        return
    official = otlp_json.read(text, kind)
    found = kind.FromString(wire)
    assert found.SerializeToString(deterministic=True) == official.SerializeToString(deterministic=True)
