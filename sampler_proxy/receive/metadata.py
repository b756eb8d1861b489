"""Reads the metadata that stay with what a request carries, off the request's headers, for every protocol alike."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import TypeVar

from sampler_proxy.errors import MalformedRequest
from sampler_proxy.otlp.metadata import Metadata, encode

REMEMBERED = 1024
"""Encoded metadata that are kept for the next request with the same: those of so many tenants."""

_VISIBLE = re.compile(r"[ -~]*\Z")

Answer = TypeVar("Answer")


class SenderMetadata:
    """The headers of requests that are kept, by `names` in lower case. Several values of one are one, with commas
    between them (RFC 9110, section 5.3)."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._encoded = lru_cache(REMEMBERED)(encode)

    def of(self, headers: Iterable[tuple[str, str | bytes]]) -> bytes:
        """Return what is kept, encoded (otlp/metadata.py); b"" where nothing is. `headers`: names, in any case, and
        values.

        Raises MalformedRequest for a value that gRPC's metadata cannot have: other than visible ASCII and spaces.
        """
        found: dict[str, str] = {}
        for name, value in headers:
            name = name.lower()
            if name in self._names:
                if not isinstance(value, str) or not _VISIBLE.match(value):  # grpcio gives bytes that are no text
                    raise MalformedRequest(f"the header {name} has other characters than visible ASCII and spaces")
                found[name] = f"{found[name]}, {value}" if name in found else value
        if not found:
            return b""
        kept: Metadata = tuple((name, found[name]) for name in self._names if name in found)
        return self._encoded(kept)


def bind(answering: Callable[..., Answer], metadata: bytes) -> Callable[[bytes], Answer]:
    """Return what answers messages that came with these metadata."""
    return lambda message: answering(message, metadata)
