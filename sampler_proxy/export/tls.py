"""Reads the certificates that a destination is reached with, again when their files change.

Nothing of what a file holds reaches an error.
"""

from __future__ import annotations

import ssl

import grpc

from sampler_proxy.config.authorities import in_der, read_authorities
from sampler_proxy.config.key_pairs import KeyPair, KeyPairError, read_key_pair
from sampler_proxy.config.model import Tls
from sampler_proxy.errors import StartError


class Certificates:
    """The certificates of one destination, as of the last `read`: those that it trusts, and the one that it shows."""

    def __init__(self, config: Tls) -> None:
        self.server_name = config.server_name_override
        """The name that the back end's certificate has to be for; None: that of the endpoint."""
        self._config = config
        self._in_use: tuple[bytes | None, KeyPair | None] = None, None
        self._failures = 0  # in a row

    @property
    def files(self) -> list[str]:
        """Return the files that may change."""
        config = self._config
        return [path for path in (config.ca_file, config.cert_file, config.key_file) if path is not None]

    @property
    def expires_s(self) -> float | None:
        """The end of the certificate that is shown, in seconds since the epoch; None: none is."""
        pair = self._in_use[1]
        return None if pair is None else pair.expires_s

    def open(self, name: str) -> None:
        """Read the files for the first time, for the destination `name`. Blocking. Raises StartError."""
        try:
            roots = _system_roots() if self._config.ca_file is None else None
            self._use(roots)
        except OSError as error:
            raise StartError(f"export {name}: cannot read {error.filename}: {error.strerror}") from error
        except _UnusableError as error:
            raise StartError(f"export {name}: {error.setting} {error}") from error

    def read(self) -> bool:
        """Read the files again, and tell whether they have changed. Blocking. Raises ValueError, which says which file
        cannot be used, and why, where it could not be used the last time either: a certificate may be replaced before
        its key is. All stays as it was then."""
        before = self._in_use
        try:
            self._use(before[0])
        except _UnusableError as error:
            self._failures += 1
            if self._failures == 1:
                return False
            raise ValueError(f"{error.setting} stays as it was: {error}") from None
        self._failures = 0
        return self._in_use != before

    def _use(self, system_roots: bytes | None) -> None:
        """Take what the files hold into use. Raises _UnusableError."""
        config = self._config
        roots, pair = system_roots, None
        try:
            if config.ca_file is not None:
                roots = read_authorities(config.ca_file)
        except ValueError as error:
            raise _UnusableError("tls.ca_file", f"{config.ca_file}: {error}") from None
        try:
            if config.cert_file is not None and config.key_file is not None:
                pair = read_key_pair(config.cert_file, config.key_file)
            if self._in_use == (roots, pair):
                return
            context = ssl.create_default_context(cadata=None if roots is None else in_der(roots))
            context.set_alpn_protocols(["http/1.1"])
            if pair is not None:
                context.load_cert_chain(config.cert_file or "", config.key_file, lambda: "")
        except KeyPairError as error:
            path = config.cert_file if error.setting == "cert_file" else config.key_file
            raise _UnusableError(f"tls.{error.setting}", f"{path}: {error}") from None
        except OSError:  # of OpenSSL, too: the files were right a moment ago
            raise _UnusableError("tls.cert_file", f"{config.cert_file}: is being replaced") from None
        self._in_use, self._context = (roots, pair), context

    def for_grpc(self) -> grpc.ChannelCredentials:
        """Make the credentials of a gRPC channel."""
        roots, pair = self._in_use
        return grpc.ssl_channel_credentials(roots, *((None, None) if pair is None else (pair.key, pair.certificates)))

    def for_http(self) -> ssl.SSLContext:
        """Return the context of HTTP connections."""
        return self._context


class _UnusableError(Exception):
    """A file that cannot be used; `setting` names it, the message has its path and what is wrong."""

    def __init__(self, setting: str, message: str) -> None:
        self.setting = setting
        super().__init__(message)


def _system_roots() -> bytes | None:
    """Read the certificates that the system, or SSL_CERT_FILE, trusts. gRPC's own list, which lacks every company's own
    authority, remains for a system without any (None). Raises OSError."""
    path = ssl.get_default_verify_paths().cafile
    if path is None:
        return None
    with open(path, "rb") as file:
        return file.read()
