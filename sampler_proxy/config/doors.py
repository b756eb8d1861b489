"""Defines the settings of who may come in at a port: TLS, and the credentials of those who send or ask.

Names are those of the OpenTelemetry Collector (configtls) as far as it has the setting.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from sampler_proxy.settings import Choice, Count, Name, Schema, Section, Text

MAX_SECRET = 4096
"""Bytes of a token or a password."""

ROLES = ("view", "operate")
"""Roles at the admin port; each may do what those before it may."""


@dataclass(frozen=True, slots=True)
class Token(Text):
    """A bearer token: characters that a header can carry, without spaces (RFC 6750, 2.1, and a little more)."""

    what: ClassVar[str] = "a token, such as `openssl rand -hex 32` gives, as ${env:NAME}"

    def parse(self, value: object) -> str:
        token = Text.parse(self, value)
        if not re.fullmatch(r"[!-~]+", token) or len(token) > MAX_SECRET:
            raise ValueError("not usable as a token: write printable ASCII without spaces, 4096 characters at most")
        return token


@dataclass(frozen=True, slots=True)
class User(Text):
    """The name of a user of basic authentication (RFC 7617, 2)."""

    what: ClassVar[str] = "the name of a user"

    def parse(self, value: object) -> str:
        user = Text.parse(self, value)
        if ":" in user or not user.isprintable():
            raise ValueError("a user's name has no colon and no control characters: write another")
        return user


@dataclass(frozen=True, slots=True)
class Sha256(Text):
    """A SHA-256 as hexadecimal digits; parsed into lower case."""

    what: ClassVar[str] = "64 hexadecimal digits, as `printf %s SECRET | sha256sum` gives"

    def parse(self, value: object) -> str:
        digits = Text.parse(self, value).lower()
        if not re.fullmatch(r"[0-9a-f]{64}", digits):
            raise ValueError(f"not a SHA-256: write {self.what}")
        return digits

    def schema(self) -> Schema:
        return {"type": "string", "pattern": r"^[0-9A-Fa-f]{64}$|\$\{env:"}


def _given(value: object) -> object:
    if value is None:
        raise ValueError("no value: write one, or remove the key")
    return value


GIVEN = BeforeValidator(_given)
"""Refuses a key without a value: taken as absent, it would leave a door open."""


class ServerTls(Section):
    cert_file: Annotated[str, Text()] = Field(examples=["/etc/sampler-proxy/tls.crt"])
    """The certificate of this port and those that vouch for it, in PEM; read again when it changes."""
    key_file: Annotated[str, Text()] = Field(examples=["/etc/sampler-proxy/tls.key"])
    """The certificate's key, in PEM, not encrypted; read again when it changes."""
    client_ca_file: Annotated[Annotated[str, Text()] | None, GIVEN] = None
    """Authorities, in PEM, that have to vouch for a client's certificate (mTLS); absent: clients need none."""
    min_version: Annotated[Literal["1.2", "1.3"], Choice(("1.2", "1.3"))] = "1.2"
    """The oldest version of TLS that is spoken."""


class Credential(Section):
    """A credential, as all of them are. Its secret stands in one of three keys."""

    SECRET: ClassVar[str]
    """The key that has the secret itself."""

    name: Annotated[str, Name()] = Field(examples=["shop"])
    """Unique in its port; metrics and log lines carry it."""
    file: Annotated[str, Text()] | None = None
    """The file that holds the secret, without line breaks at its end; read again when it changes."""
    sha256: Annotated[str, Sha256()] | None = Field(default=None, repr=False)
    """The SHA-256 of the secret, in hexadecimal digits."""

    @model_validator(mode="after")
    def _one_secret(self) -> Credential:
        if sum(value is not None for value in (self.secret, self.file, self.sha256)) != 1:
            raise ValueError(f"write one of {self.SECRET}, file and sha256")
        return self

    @property
    def secret(self) -> str | None:
        """The secret as it is written, None where it is not."""
        written: str | None = getattr(self, self.SECRET)
        return written


class BearerToken(Credential):
    SECRET = "token"
    token: Annotated[str, Token()] | None = Field(default=None, repr=False)
    """The token; write ${env:NAME}."""


class BasicUser(Credential):
    SECRET = "password"
    user: Annotated[str, User()] = Field(examples=["shop"])
    password: Annotated[str, Text()] | None = Field(default=None, repr=False)
    """The password; write ${env:NAME}."""


MaxInFlight = Annotated[int, Count(1, 1_000_000)]


class SenderToken(BearerToken):
    max_in_flight: MaxInFlight | None = None
    """So many requests with this token are taken at once, more are told to come again; absent: any number."""


class SenderUser(BasicUser):
    max_in_flight: MaxInFlight | None = None
    """So many requests of this user are taken at once, more are told to come again; absent: any number."""


Role = Annotated[Literal["view", "operate"], Choice(ROLES)]


class AdminToken(BearerToken):
    role: Role = "view"
    """`view`: may read; `operate`: may change something, too."""


class AdminUser(BasicUser):
    role: Role = "view"
    """`view`: may read; `operate`: may change something, too."""


class Auth(Section):
    """The credentials of a port, as those of all ports are."""

    def by_path(self) -> Iterator[tuple[tuple[str, int], Credential]]:
        """Yield every credential behind its path in this section."""
        for key in ("bearer_tokens", "basic"):
            for index, each in enumerate(getattr(self, key)):
                yield (key, index), each

    @model_validator(mode="after")
    def _sound(self) -> Any:
        names = [each.name for _, each in self.by_path()]
        if not names:
            raise ValueError("lists nobody, so that nobody could come in: write bearer_tokens or basic, or remove auth")
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"the name '{twice}' is written twice: write another for one of them")
        return self


class SenderAuth(Auth):
    bearer_tokens: tuple[SenderToken, ...] = ()
    """Senders with `authorization: Bearer TOKEN` come in, whichever of these it is."""
    basic: tuple[SenderUser, ...] = ()
    """And those with a user's name and password."""


class AdminAuth(Auth):
    bearer_tokens: tuple[AdminToken, ...] = ()
    """Who asks with `Authorization: Bearer TOKEN` gets an answer, whichever of these it is."""
    basic: tuple[AdminUser, ...] = ()
    """And who asks with a user's name and password, as browsers do."""
