"""Decides which web pages may send traces: Cross-Origin Resource Sharing (CORS, of the Fetch standard).

A browser asks before a page of another origin may send OTLP (a preflight: OPTIONS), and shows the page the answer only
where that allows it. Nothing is allowed unless an origin is configured.

Cookies may come along, though nobody here reads them: a beacon (`navigator.sendBeacon`, by which a page sends its last
spans) always has them, and is not sent where that is not allowed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

SAFE_HEADERS = ("accept", "content-type", "content-encoding", "x-requested-with")
"""Headers that a page may always send: those that OTLP needs."""


class Cors:
    """The pages that may send. An origin or a header may be `*` for any; in an origin each `*` stands for any
    characters, as in the Collector."""

    def __init__(self, origins: Sequence[str], headers: Sequence[str], max_age_s: int) -> None:
        patterns = [".*".join(map(re.escape, origin.lower().split("*"))) for origin in origins]
        self._origins = re.compile("|".join(f"(?:{pattern})" for pattern in patterns)) if patterns else None
        self._any_header = "*" in headers
        self._headers = {*SAFE_HEADERS, *(header.lower() for header in headers)}
        self._max_age = str(max_age_s)

    @property
    def on(self) -> bool:
        """Tell whether any page may send."""
        return self._origins is not None

    def headers(self, origin: str | None) -> dict[str, str]:
        """Return the headers of an answer to a page of this origin; none where it may not read it, or is no page."""
        if origin is None or self._origins is None or not self._origins.fullmatch(origin.lower()):
            return {}
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Credentials": "true",
            "Access-Control-Expose-Headers": "Retry-After",
            "Vary": "Origin",
        }

    def preflight(self, origin: str | None, asked: str) -> dict[str, str]:
        """Return the headers of an answer to a preflight, which asks for headers (a list with commas); none where the
        origin may not send."""
        allowed = self.headers(origin)
        if not allowed:
            return {}
        names = [name.strip() for name in asked.split(",")]
        may = [name for name in names if name and (self._any_header or name.lower() in self._headers)]
        del allowed["Access-Control-Expose-Headers"]
        return {
            **allowed,
            "Vary": "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
            "Access-Control-Allow-Methods": "POST",
            "Access-Control-Allow-Headers": ", ".join(may),
            "Access-Control-Max-Age": self._max_age,
        }
