"""Certificates for tests, in files: an authority, what it vouches for, and how such files are replaced."""

from __future__ import annotations

import os
import ssl
from datetime import datetime
from pathlib import Path

import trustme


class Authority:
    """A certificate authority, whose certificates lie in a folder."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._ca = trustme.CA()
        self.path = folder / f"{name}.pem"
        write(self.path, self.pem)

    @property
    def pem(self) -> bytes:
        return self._ca.cert_pem.bytes()

    def issue(self, name: str, *hosts: str, not_after: datetime | None = None) -> Pair:
        """Make a certificate for hosts (by default those of loopback), in files of this name; replaces former ones."""
        leaf = self._ca.issue_cert(*(hosts or ("localhost", "127.0.0.1", "::1")), not_after=not_after)
        pair = Pair(self._folder / f"{name}.crt", self._folder / f"{name}.key", self)
        write(pair.key, leaf.private_key_pem.bytes())
        write(pair.cert, b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        return pair


class Pair:
    """A certificate and its key in files."""

    def __init__(self, cert: Path, key: Path, authority: Authority) -> None:
        self.cert, self.key, self.authority = cert, key, authority

    def section(self, **more: object) -> dict[str, object]:
        """The section `tls` of a port."""
        return {"cert_file": str(self.cert), "key_file": str(self.key), **more}


def write(path: Path, content: bytes) -> None:
    """Replace a file as tools for certificates do: readers see the old or the new one."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_bytes(content)
    os.replace(beside, path)


def client_context(authority: Authority, pair: Pair | None = None) -> ssl.SSLContext:
    """A client that trusts an authority, and shows a certificate."""
    context = ssl.create_default_context(cafile=str(authority.path))
    if pair is not None:
        context.load_cert_chain(pair.cert, pair.key)
    return context
