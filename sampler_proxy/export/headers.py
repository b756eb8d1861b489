"""Makes the headers of requests, with values from files that may change: credentials that somebody rotates.

A file is read as a whole, without the line breaks at its end. A Kubernetes secret, swapped by a link, counts as
changed. Values never reach an error or a log.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from sampler_proxy.settings import HEADER_VALUE, HeaderFile

MAX_BYTES = 16 << 10
"""Of a file: servers take 8 to 16 KiB of headers."""


class UnusableError(Exception):
    """A file of a header cannot be used; says which and why, not what it holds."""


class Headers:
    """The headers of a destination: names in lower case, values as of the last `read`."""

    def __init__(self, configured: Mapping[str, str | HeaderFile]) -> None:
        self._values = {name.lower(): value for name, value in configured.items() if isinstance(value, str)}
        self._files = {name.lower(): value for name, value in configured.items() if isinstance(value, HeaderFile)}
        self._states: dict[str, tuple[int, int, int]] = {}  # of each file, by header

    @property
    def from_files(self) -> bool:
        """Tell whether values may change."""
        return bool(self._files)

    def items(self) -> list[tuple[str, str]]:
        return list(self._values.items())

    def read(self) -> None:
        """Read files that have changed. Blocking.

        Raises UnusableError, for all the files that cannot be used; their values are as they were, those of the other
        files are read nevertheless.
        """
        errors = []
        for name, file in self._files.items():
            try:
                self._read(name, file)
            except UnusableError as error:
                errors.append(str(error))
        if errors:
            raise UnusableError("; ".join(errors))

    def changed_since(self, items: list[tuple[str, str]]) -> list[str]:
        """Return the paths of the files whose values differ from `items`, which an earlier call of `items` returned."""
        earlier = dict(items)
        return [file.path for name, file in self._files.items() if self._values.get(name) != earlier.get(name)]

    def _read(self, name: str, file: HeaderFile) -> None:
        try:
            status = os.stat(file.path)
            state = status.st_mtime_ns, status.st_ino, status.st_size
            if self._states.get(name) == state:
                return
            with open(file.path, "rb") as opened:
                content = opened.read(MAX_BYTES + 1)
        except OSError as error:
            raise UnusableError(f"cannot read {file.path}: {error.strerror}") from None
        value = file.prefix + content.rstrip(b"\r\n").decode("latin-1")
        if not content.strip() or len(content) > MAX_BYTES or not re.fullmatch(HEADER_VALUE, value):
            raise UnusableError(f"{file.path} holds no header value: write one line of printable ASCII into it")
        self._states[name] = state
        self._values[name] = value
