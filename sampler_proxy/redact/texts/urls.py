"""Rewrites URLs without what identifies somebody: queries, credentials, ids in paths."""

from __future__ import annotations

import re

from sampler_proxy.redact.regexes import regex

# RFC 3986. The braces of a template (`/users/{id}`) belong to it.
_URL = regex(r"""[A-Za-z][A-Za-z0-9+.-]*://[^\s"'<>]*""")
# A text that is nothing but one: a URL, or the target of a request (RFC 9112, 3.2), maybe with its method and version.
_ALONE = regex(r"(?:[A-Za-z][A-Za-z0-9+.-]*:/|(?:[A-Z]{3,10} )?)/\S*(?: HTTP/[0-9.]+)?")
_BEFORE_PATH = regex(r"\A(?:[A-Z]{3,10} )?(?:(?:[A-Za-z][A-Za-z0-9+.-]*:)?//[^/?#\s]*)?")
_QUERY = regex(r"[?#]\S*")
_CREDENTIALS = regex(r"""((?:\A|[A-Za-z0-9+.-]:)//)[^/?#\s"'<>]*@""")
_ID = re.compile(
    rb"/(?:[0-9]++|[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}|[0-9A-Fa-f]{16,}+)"
    rb"(?=(?:\.[A-Za-z]{1,5})?(?:[/?#;: \t\r\n\f]|\Z))"
)
_PUNCTUATION = b".,;:!)]}"

ID = b"{id}"
"""Replaces an id. Not `?`, which a second look would take for the start of a query."""


def rewrite(text: bytes, *, strip_query: bool, strip_credentials: bool, strip_ids: bool) -> bytes:
    """Rewrite every full URL in a text, and the text itself where it is the target of a request (`/users/123?x=1`,
    `GET /users/123`).

    - strip_query: everything from the `?` (and a fragment, which may hold tokens too) goes, the mark included.
    - strip_credentials: `user:password@` goes, the `@` included.
    - strip_ids: path segments that are numbers, UUIDs or hexadecimal of 16 digits or more become `ID`, an extension
      (`123.json`) stays.

    Idempotent. A text in which nothing changes is returned itself, the same object. Raises nothing.
    """
    alone = _ALONE.fullmatch(text) is not None
    if not alone and b"://" not in text:
        return text
    result = text
    if strip_credentials:
        result = _CREDENTIALS.sub(rb"\1", result)
    if strip_query or strip_ids:
        if alone:
            result = _without(result, strip_query, strip_ids)
        else:
            parts: list[bytes] = []
            end = 0
            for match in _URL.finditer(result):
                url = match.group()
                bare = url.rstrip(_PUNCTUATION)
                parts += (result[end : match.start()], _without(bare, strip_query, strip_ids), url[len(bare) :])
                end = match.end()
            result = b"".join((*parts, result[end:]))
    return text if result == text else result


def _without(url: bytes, query: bool, ids: bool) -> bytes:
    """Strip one URL of its query, or of the ids in its path."""
    before = _BEFORE_PATH.search(url)
    path = before.end() if before else 0
    found = _QUERY.search(url, path)
    end = found.start() if found else len(url)
    rest = url[end:]
    if found and query:
        rest = url[found.end() :]  # the version of the protocol
    middle = url[path:end]
    return url[:path] + (_without_ids(middle) if ids else middle) + rest


def _without_ids(path: bytes) -> bytes:
    return _ID.sub(b"/" + ID, path)
