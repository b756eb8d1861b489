"""Checks the files of certificates, keys and secrets that settings name, and who may come in."""

from __future__ import annotations

from collections.abc import Iterator

from sampler_proxy.config.addresses import is_loopback
from sampler_proxy.config.authorities import read_authorities
from sampler_proxy.config.doors import Auth, ServerTls
from sampler_proxy.config.file import ParsedFile
from sampler_proxy.config.key_pairs import KeyPairError, read_key_pair
from sampler_proxy.config.model import Config, OtlpExport
from sampler_proxy.config.secrets import digest_of
from sampler_proxy.config.yaml_positions import Path
from sampler_proxy.errors import Fault


def doors(config: Config) -> Iterator[tuple[Path, ServerTls | None, Auth | None]]:
    """Yield the ports: the path of each, and what it asks of those who come."""
    yield ("receive", "grpc"), config.receive.grpc.tls, config.receive.grpc.auth
    yield ("receive", "http"), config.receive.http.tls, config.receive.http.auth
    yield ("admin",), config.admin.tls, config.admin.auth


def faults_of_doors(file: ParsedFile, config: Config) -> Iterator[Fault]:
    """Find the files that cannot be read or used, secrets that two have in common, and an admin port that is open to
    other machines."""
    for path, tls, auth in doors(config):
        if tls is not None:
            yield from _faults_of_tls(file, (*path, "tls"), tls)
        if auth is not None:
            yield from _faults_of_auth(file, (*path, "auth"), auth)
    admin = config.admin
    guarded = admin.auth is not None or (admin.tls is not None and admin.tls.client_ca_file is not None)
    if not guarded and not admin.insecure and not is_loopback(admin.endpoint.host):
        yield file.fault(
            file.positions.value(("admin", "endpoint")),
            "other machines could ask here without credentials: write admin.auth, or admin.insecure: true to allow "
            "that, or 127.0.0.1 as the host",
        )


def faults_of_destinations(file: ParsedFile, config: Config) -> Iterator[Fault]:
    """Find the files of certificates and keys of destinations that cannot be read or used."""
    for index, export in enumerate(config.export):
        if isinstance(export, OtlpExport):
            path: Path = ("export", index, "tls")
            tls = export.tls
            if tls.cert_file is not None and tls.key_file is not None:
                yield from _faults_of_key_pair(file, path, tls.cert_file, tls.key_file)
            if tls.ca_file is not None:
                yield from _faults_of_authorities(file, (*path, "ca_file"), tls.ca_file)


def _faults_of_tls(file: ParsedFile, path: Path, tls: ServerTls) -> Iterator[Fault]:
    yield from _faults_of_key_pair(file, path, tls.cert_file, tls.key_file)
    if tls.client_ca_file is not None:
        yield from _faults_of_authorities(file, (*path, "client_ca_file"), tls.client_ca_file)


def _faults_of_key_pair(file: ParsedFile, path: Path, cert_file: str, key_file: str) -> Iterator[Fault]:
    try:
        read_key_pair(cert_file, key_file)
    except KeyPairError as error:
        yield file.fault(file.positions.value((*path, error.setting)), str(error))


def _faults_of_authorities(file: ParsedFile, path: Path, ca_file: str) -> Iterator[Fault]:
    try:
        read_authorities(ca_file)
    except ValueError as error:
        yield file.fault(file.positions.value(path), str(error))


def _faults_of_auth(file: ParsedFile, path: Path, auth: Auth) -> Iterator[Fault]:
    found: dict[tuple[str, str, bytes], str] = {}
    for at, credential in auth.by_path():
        key = (
            "file" if credential.file is not None else "sha256" if credential.sha256 is not None else credential.SECRET
        )
        position = file.positions.value((*path, *at, key))
        try:
            secret = at[0], getattr(credential, "user", ""), digest_of(credential)
        except ValueError as error:
            yield file.fault(position, str(error))
            continue
        if secret in found:
            yield file.fault(position, f"the same secret as that of '{found[secret]}': write another, or remove one")
        found.setdefault(secret, credential.name)


def warnings_of_doors(file: ParsedFile, config: Config) -> Iterator[Fault]:
    """Warn of `insecure` where there are credentials."""
    if config.admin.insecure and config.admin.auth is not None:
        yield file.fault(
            file.positions.value(("admin", "insecure")),
            "warning: not needed, since admin.auth asks for credentials: remove it",
        )
