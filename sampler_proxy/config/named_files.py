"""Reads the files that a configuration names, such as those of keys and certificates."""

from __future__ import annotations


def read_named(path: str, size: int) -> bytes:
    """Return the first `size` bytes of a file, fewer where it has no more. Raises ValueError, with the system's reason
    and without the path, where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(size)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
