"""Decides who may come in at a port: by a bearer token (RFC 6750), or a user's name and password (RFC 7617).

Of secrets only SHA-256 digests are kept, and compared in constant time, each with all: how long that takes tells
nothing about them. A credential is known by its name from then on, in metrics and in the log.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
from base64 import b64decode
from weakref import WeakSet

import structlog

from sampler_proxy.config.doors import ROLES, Auth, BasicUser, Credential
from sampler_proxy.config.secrets import digest_of
from sampler_proxy.errors import StartError, TooManyInFlight, Unauthenticated
from sampler_proxy.receive.throttle import Throttle

BUSY_NS = 1_000_000_000
"""How long a sender is told to wait that has too many requests in flight."""

log = structlog.get_logger()


class Lease:
    """Stands for a request in flight, for as long as somebody refers to it."""

    __slots__ = ("__weakref__",)


_NO_LEASE = Lease()


class _Known:
    """A credential as it is in use."""

    def __init__(self, config: Credential, digest: bytes) -> None:
        self.config = config
        self.name = config.name
        self.user = hashlib.sha256(config.user.encode()).digest() if isinstance(config, BasicUser) else b""
        self.digest = digest
        self.max_in_flight: int | None = getattr(config, "max_in_flight", None)
        self.role: str = getattr(config, "role", ROLES[0])
        self.problem: str | None = None
        self.failures = 0  # of reading its file, in a row
        self.leases: WeakSet[Lease] = WeakSet()
        self.uses = 0


class Credentials:
    """The credentials of one port, `name`. `look` from one thread, `admit` and `role_of` from one, the rest from
    any."""

    def __init__(self, auth: Auth, name: str) -> None:
        """Read the secrets. Raises StartError."""
        self.name = name
        self.refused = 0
        """Requests without a credential that is known here."""
        self._throttle = Throttle()
        self._bearers: list[_Known] = []
        self._users: list[_Known] = []
        for _, credential in auth.by_path():
            try:
                known = _Known(credential, digest_of(credential))
            except ValueError as error:
                raise StartError(f"{name}.auth: {credential.name}: {credential.file}: {error}") from None
            (self._users if isinstance(credential, BasicUser) else self._bearers).append(known)

    @property
    def challenge(self) -> str:
        """The schemes that are asked for, as WWW-Authenticate has them (RFC 9110, 11.6.1)."""
        bearer = ['Bearer realm="sampler-proxy"'] if self._bearers else []
        return ", ".join((*bearer, *(['Basic realm="sampler-proxy", charset="UTF-8"'] if self._users else [])))

    @property
    def problems(self) -> dict[str, str]:
        """The faults of files of secrets that are not in use as they are now, by the name of the credential."""
        return {each.name: each.problem for each in self._all() if each.problem is not None}

    @property
    def uses(self) -> dict[str, int]:
        """The number of requests that came in by each credential."""
        return {each.name: each.uses for each in self._all()}

    def replace(self, others: Credentials) -> None:
        """Put the credentials of `others` into force. Those of the same name go on with what they have counted, and
        with the requests that are in flight."""
        before = {each.name: each for each in self._all()}
        for each in others._all():
            if (same := before.get(each.name)) is not None:
                each.uses, each.leases = same.uses, same.leases
        self._bearers, self._users = others._bearers, others._users

    def admit(self, authorization: bytes | str | None, peer: str) -> Lease:
        """Let a request in, by the value of its header `authorization`, None where it has none. The lease has to be
        kept until the request has been answered. Raises Unauthenticated, which is logged with `peer`, and
        TooManyInFlight."""
        known = self._enter(authorization, peer)
        if known.max_in_flight is None:
            return _NO_LEASE
        if len(known.leases) >= known.max_in_flight:
            raise TooManyInFlight("too many requests with this credential at once", BUSY_NS)
        lease = Lease()
        known.leases.add(lease)
        return lease

    def role_of(self, authorization: str | None, peer: str) -> str:
        """Return the role of who asks. Raises Unauthenticated."""
        return self._enter(authorization, peer).role

    def look(self) -> None:
        """Read the files of secrets again. What cannot be used is looked at twice before it is called a problem: it may
        be about to be written. Blocking."""
        for each in self._all():
            if each.config.file is None:
                continue
            try:
                digest = digest_of(each.config)
                each.problem, each.failures = None, 0
                if digest != each.digest:
                    each.digest = digest
                    log.info(f"{self.name}: the secret of a credential was read again", credential=each.name)
            except ValueError as error:
                problem, each.failures = f"{each.config.file}: {error}", each.failures + 1
                if problem != each.problem and each.failures > 1:
                    each.problem = problem
                    log.error(
                        f"{self.name}: the former secret of a credential stays in use: {problem}", credential=each.name
                    )

    def _all(self) -> tuple[_Known, ...]:
        return (*self._bearers, *self._users)

    def _enter(self, authorization: bytes | str | None, peer: str) -> _Known:
        known = self._find(_encoded(authorization))
        if known is None:
            self.refused += 1
            what = "missing" if authorization is None else "wrong"
            if (held_back := self._throttle.due()) is not None:
                log.warning(f"{self.name}: credentials are {what}: the request was refused{held_back}", peer=peer)
            raise Unauthenticated(f"credentials are {what}")
        known.uses += 1
        return known

    def _find(self, authorization: bytes) -> _Known | None:
        scheme, _, value = authorization.partition(b" ")
        kind = scheme.lower()
        if kind == b"bearer":
            return self._with_secret(self._bearers, b"", value.strip())
        if kind == b"basic":
            try:
                user, colon, password = b64decode(value.strip(), validate=True).partition(b":")
            except binascii.Error:
                return None
            return self._with_secret(self._users, user, password) if colon else None
        return None

    @staticmethod
    def _with_secret(known: list[_Known], user: bytes, secret: bytes) -> _Known | None:
        name, digest = hashlib.sha256(user).digest() if user else b"", hashlib.sha256(secret).digest()
        found = None
        for each in known:
            if hmac.compare_digest(each.user, name) & hmac.compare_digest(each.digest, digest):
                found = each
        return found


def _encoded(authorization: bytes | str | None) -> bytes:
    if isinstance(authorization, bytes):
        return authorization
    return (authorization or "").encode("utf-8", "surrogateescape")
