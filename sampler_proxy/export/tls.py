"""Reads the certificates that a destination is reached with, again when their files change.

Nothing of what a file holds reaches an error.
"""

from __future__ import annotations

import ssl

import grpc

from sampler_proxy.config.authorities import in_der, read_authorities
from sampler_proxy.config.model import Tls
from sampler_proxy.errors import StartError


class Certificates:
    """The certificates of one destination, as of the last `read`."""

    def __init__(self, config: Tls) -> None:
        self._ca_file = config.ca_file
        self._roots: bytes | None = None  # None: those that the library brings along

    @property
    def files(self) -> list[str]:
        """Return the files that may change."""
        return [] if self._ca_file is None else [self._ca_file]

    def open(self, name: str) -> None:
        """Read the files for the first time, for the destination `name`. Blocking. Raises StartError."""
        try:
            self._roots = _system_roots() if self._ca_file is None else read_authorities(self._ca_file)
        except OSError as error:
            raise StartError(f"export {name}: cannot read {error.filename}: {error.strerror}") from error
        except ValueError as error:
            raise StartError(f"export {name}: tls.ca_file {self._ca_file}: {error}") from error

    def read(self) -> bool:
        """Read the files again, and tell whether they have changed. Blocking. Raises ValueError, which says which file
        cannot be used, and why; all stays as it was then."""
        if self._ca_file is None:
            return False
        try:
            roots = read_authorities(self._ca_file)
        except ValueError as error:
            raise ValueError(f"tls.ca_file stays as it was: {self._ca_file}: {error}") from None
        changed = roots != self._roots
        self._roots = roots
        return changed

    def for_grpc(self) -> grpc.ChannelCredentials:
        """Make the credentials of a gRPC channel."""
        return grpc.ssl_channel_credentials(self._roots)

    def for_http(self) -> ssl.SSLContext:
        """Make the context of HTTP connections."""
        context = ssl.create_default_context(cadata=None if self._roots is None else in_der(self._roots))
        context.set_alpn_protocols(["http/1.1"])
        return context


def _system_roots() -> bytes | None:
    """Read the certificates that the system, or SSL_CERT_FILE, trusts. gRPC's own list, which lacks every company's own
    authority, remains for a system without any (None). Raises OSError."""
    path = ssl.get_default_verify_paths().cafile
    if path is None:
        return None
    with open(path, "rb") as file:
        return file.read()
