"""OTLP/JSON: read as the official classes read it, or refused with a path and a byte; no other error, whatever comes.

The first byte chooses the kind of request; the rest is the text.
"""

from __future__ import annotations

from tests.otlp.json_texts import alike_or_refused
from tests.support.otlp_json import REQUESTS


def one(data: bytes) -> None:
    kind = REQUESTS[data[0] & 3] if data else REQUESTS[0]
    alike_or_refused(data[1:], kind)
