"""URLs without what identifies somebody: queries, credentials, ids in paths."""

from __future__ import annotations


def rewrite(text: bytes, *, strip_query: bool, strip_credentials: bool, strip_ids: bool) -> bytes:
    """Rewrites every full URL in a text, and the text itself where it is a bare path (`/users/123?x=1`).

    - strip_query: everything from the `?` (and a fragment, which may hold tokens too) goes, the mark included.
    - strip_credentials: `user:password@` goes, the `@` included.
    - strip_ids: path segments that are numbers, UUIDs or hexadecimal of 16 digits or more become `?`.

    Idempotent. A text in which nothing changes is returned itself, the same object. Raises nothing.
    """
    raise NotImplementedError
