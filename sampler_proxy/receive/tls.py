"""Holds the certificate of one port, and exchanges it when its files change.

Connections that exist go on with the certificate that they began with; each new handshake takes the one in use. Files
that cannot be used leave the former ones in use: one log line says so, /readyz shows it, and they are tried again.
"""

from __future__ import annotations

import ssl
import time
from typing import NamedTuple

import grpc
import structlog

from sampler_proxy.config.authorities import MAX_BYTES, read_authorities
from sampler_proxy.config.doors import ServerTls
from sampler_proxy.config.key_pairs import KeyPair, KeyPairError, read_key_pair
from sampler_proxy.config.named_files import read_named
from sampler_proxy.errors import StartError

SOON_S = 7 * 86400.0
"""How long before its end a certificate is warned of."""

HANDSHAKE_S = 10.0
"""How long a client may take from connecting to the end of the TLS handshake."""

log = structlog.get_logger()


class _Files(NamedTuple):
    """The contents of the files when they were read."""

    pair: KeyPair
    authorities: bytes | None  # None: clients need no certificate


class Tls:
    """The TLS of one port, `name`. `look` from one thread, the rest from any."""

    def __init__(self, config: ServerTls, name: str) -> None:
        """Read the files. Raises StartError."""
        self.name = name
        self.min_version = config.min_version
        self.problem: str | None = None
        """Why the files as they are now are not in use; None: they are."""
        self._config = config
        self._contents: object = None  # of the files in use
        self._failures = 0  # in a row
        self._given_to_grpc: object = None
        self._warned_of: object = None
        try:
            self._use(self._read())
        except ValueError as error:
            raise StartError(f"{name}.tls: {self._named(error)}") from None
        self._warn_of_end()

    @property
    def expires_s(self) -> float:
        """The end of the certificate in use, in seconds since the epoch."""
        return self._files.pair.expires_s

    def look(self) -> None:
        """Read the files again where they have changed, and use them. What cannot be used is looked at twice before it
        is called a problem: of two files one is replaced first. Blocking."""
        contents = self._read_contents()
        try:
            if contents != self._contents:
                files = self._read()
                if files != self._files:
                    self._use(files)
                    log.info(f"{self.name}: certificates read again", cert_file=self._config.cert_file)
                self._contents = contents
            self._failures, self.problem = 0, None
        except ValueError as error:
            self._failures, problem = self._failures + 1, self._named(error)
            if problem != self.problem and self._failures > 1:
                self.problem = problem
                log.error(f"{self.name}: the former certificate stays in use: {problem}")
        self._warn_of_end()

    def _warn_of_end(self) -> None:
        """Log once that the certificate in use has expired, or is about to."""
        left_s = self.expires_s - time.time()
        if left_s < SOON_S and self._warned_of != (warned_of := (self.expires_s, left_s <= 0)):
            self._warned_of = warned_of
            when = "has expired, so that clients refuse it" if left_s <= 0 else f"expires in {left_s / 3600:.0f} hours"
            log.warning(f"{self.name}: the certificate {when}", cert_file=self._config.cert_file)

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """Make the credentials of one gRPC server, which asks for the certificate at each handshake."""
        self._given_to_grpc = self._for_grpc
        return grpc.dynamic_ssl_server_credentials(self._for_grpc, self._changed_for_grpc, self._has_authorities)

    @property
    def _has_authorities(self) -> bool:
        return self._config.client_ca_file is not None

    def _read_contents(self) -> list[object]:
        """Return what the files hold, unchecked."""
        contents: list[object] = []
        for path in (self._config.cert_file, self._config.key_file, self._config.client_ca_file):
            try:
                contents.append(None if path is None else read_named(path, MAX_BYTES))
            except ValueError as error:
                contents.append(str(error))
        return contents

    def _read(self) -> _Files:
        """Read the files. Raises ValueError."""
        config = self._config
        pair = read_key_pair(config.cert_file, config.key_file)
        try:
            authorities = None if config.client_ca_file is None else read_authorities(config.client_ca_file)
        except ValueError as error:
            raise KeyPairError("client_ca_file", str(error)) from None
        return _Files(pair, authorities)

    def _named(self, error: ValueError) -> str:
        """Put the file in front of what is wrong with it."""
        if not isinstance(error, KeyPairError):
            return str(error)
        return f"{error.setting} {getattr(self._config, error.setting)}: {error}"

    def _use(self, files: _Files) -> None:
        """Take files that are sound into use. Raises ValueError."""
        context = self._context(files.authorities)
        pair = files.pair
        for_grpc = grpc.ssl_server_certificate_configuration([(pair.key, pair.certificates)], files.authorities)
        self.context, self._for_grpc, self._files = context, for_grpc, files

    def _context(self, authorities: bytes | None) -> ssl.SSLContext:
        config = self._config
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3 if config.min_version == "1.3" else ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(config.cert_file, config.key_file, lambda: "")
            if authorities is not None:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(cadata=authorities.decode("ascii", "replace"))
        except OSError:  # of OpenSSL, too
            raise KeyPairError("cert_file", "is being replaced") from None
        return context

    def _changed_for_grpc(self) -> object:
        """Return the certificate for the next handshake where core has not got it yet, else None. On threads of
        core."""
        if self._given_to_grpc is self._for_grpc:
            return None
        self._given_to_grpc = self._for_grpc
        return self._given_to_grpc
