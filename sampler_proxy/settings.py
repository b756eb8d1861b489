"""Defines how settings are written: the types of single values, and the base of the sections that hold them.

Each type parses text (from YAML) or takes the value itself (from code), formats the value as YAML text again, and has a
JSON Schema. A refusal is a `ValueError` that says what to write, never what was written.

Long: one type after the other, each short; they are told apart by what they take, not by who uses them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema, core_schema

from sampler_proxy import units

Schema = dict[str, Any]

_REFERENCE: Schema = {"type": "string", "pattern": r"\$\{env:"}  # an editor does not know the content of a variable
_NAME_LENGTH = 100  # names are metric labels and span attributes


class Section(BaseModel):
    """The base of a section of the configuration: frozen data that refuses unknown keys and shows no value in errors.

    Fields are set by their name in code and by their key in the file; never both ways in one place.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_by_name=True,
        validate_by_alias=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _empty(cls, data: object) -> object:
        """Take a section whose keys are all commented out as empty."""
        return {} if data is None else data


@dataclass(frozen=True, slots=True)
class _Setting:
    """The type of a setting: a marker for `Annotated`."""

    def parse(self, value: object) -> Any:
        """Convert what a file or code has into the value of the setting. Raises ValueError."""
        raise NotImplementedError

    def format(self, value: Any) -> Any:
        """Convert a value into what a file would have."""
        return value

    def schema(self) -> Schema:
        """Return the JSON Schema of what a file may have."""
        raise NotImplementedError

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        back = core_schema.plain_serializer_function_ser_schema(self.format, when_used="json")
        return core_schema.no_info_plain_validator_function(self.parse, serialization=back)

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> Schema:
        return self.schema()


@dataclass(frozen=True, slots=True)
class Duration(_Setting):
    """A duration in nanoseconds. Text needs a unit; an int is nanoseconds already."""

    at_least_ns: int = 0

    def parse(self, value: object) -> int:
        ns = value if type(value) is int else units.parse_duration_ns(value if isinstance(value, str) else "")
        if ns < self.at_least_ns:
            raise ValueError(f"too short: write {units.format_duration(self.at_least_ns)} or more")
        return ns

    def format(self, value: int) -> str:
        return units.format_duration(value)

    def schema(self) -> Schema:
        return {"anyOf": [{"type": "string", "pattern": f"^{units.DURATION_PATTERN}$"}, _REFERENCE]}


@dataclass(frozen=True, slots=True)
class Size(_Setting):
    """A size in bytes."""

    at_least: int = 1
    at_most: int = (1 << 63) - 1

    def parse(self, value: object) -> int:
        size = value if type(value) is int else units.parse_size(value if isinstance(value, str) else "")
        if size < self.at_least:
            raise ValueError(f"too small: write {units.format_size(self.at_least)} or more")
        if size > self.at_most:
            raise ValueError(f"too large: write {units.format_size(self.at_most)} or less")
        return size

    def format(self, value: int) -> str:
        return units.format_size(value)

    def schema(self) -> Schema:
        text = {"type": "string", "pattern": f"^{units.SIZE_PATTERN}$"}
        return {"anyOf": [{"type": "integer", "minimum": self.at_least}, text, _REFERENCE]}


@dataclass(frozen=True, slots=True)
class Probability(_Setting):
    """A probability, from 0.0 (none) to 1.0 (all)."""

    or_target: bool = False
    """A refusal also names the target that may stand in its place."""

    def parse(self, value: object) -> float:
        if isinstance(value, float) and 0 <= value <= 1:
            return value
        text = value if isinstance(value, str) else ""
        if re.fullmatch(rf"{units.RATE_PATTERN}|{units.FREQUENCY_PATTERN}", text):
            raise ValueError("a rate is a target: write {target: 100 traces/s}")
        return units.parse_probability(text, "or a target such as {target: 100 traces/s}" if self.or_target else "")

    def format(self, value: float) -> str:
        return units.format_probability(value)

    def schema(self) -> Schema:
        return {"anyOf": [{"type": "string", "pattern": f"^(?:all|none|{units.PERCENTAGE_PATTERN})$"}, _REFERENCE]}


@dataclass(frozen=True, slots=True)
class TargetRate(_Setting):
    """The target of a rule, as `units.Rate`."""

    def parse(self, value: object) -> units.Rate:
        return value if isinstance(value, units.Rate) else units.parse_rate(value if isinstance(value, str) else "")

    def format(self, value: units.Rate) -> str:
        return str(value)

    def schema(self) -> Schema:
        return {"anyOf": [{"type": "string", "pattern": f"^{units.RATE_PATTERN}$"}, _REFERENCE]}


@dataclass(frozen=True, slots=True)
class Frequency(_Setting):
    """A number per second. Text needs a period; a float is per second already."""

    sizes: bool = False

    def parse(self, value: object) -> float:
        if isinstance(value, float) and value > 0:
            return value
        return units.parse_frequency(value if isinstance(value, str) else "", sizes=self.sizes)

    def format(self, value: float) -> str:
        return units.format_frequency(value)

    def schema(self) -> Schema:
        pattern = units.SIZE_RATE_PATTERN if self.sizes else units.FREQUENCY_PATTERN
        return {"anyOf": [{"type": "string", "pattern": f"^{pattern}$"}, _REFERENCE]}


@dataclass(frozen=True, slots=True)
class Flag(_Setting):
    """True or false."""

    def parse(self, value: object) -> bool:
        flag = {"true": True, "false": False}.get(str(value).lower())
        if flag is None:
            raise ValueError("write true or false")
        return flag

    def schema(self) -> Schema:
        return {"anyOf": [{"type": "boolean"}, _REFERENCE]}


@dataclass(frozen=True, slots=True)
class Count(_Setting):
    """A whole number within bounds."""

    at_least: int
    at_most: int

    def parse(self, value: object) -> int:
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
            value = int(value)
        if type(value) is not int or not self.at_least <= value <= self.at_most:
            raise ValueError(f"write a whole number from {self.at_least} to {self.at_most}")
        return value

    def schema(self) -> Schema:
        return {"anyOf": [{"type": "integer", "minimum": self.at_least, "maximum": self.at_most}, _REFERENCE]}


@dataclass(frozen=True, slots=True)
class Choice(_Setting):
    """One of a few words."""

    words: tuple[str, ...]
    hints: Mapping[str, str] = field(default_factory=dict, hash=False)
    """What to say of other words that somebody may try."""

    def parse(self, value: object) -> str:
        if value not in self.words:
            if isinstance(value, str) and value in self.hints:
                raise ValueError(self.hints[value])
            raise ValueError(f"write {' or '.join(self.words)}")
        return str(value)

    def schema(self) -> Schema:
        return {"anyOf": [{"enum": list(self.words)}, _REFERENCE]}


@dataclass(frozen=True, slots=True)
class Text(_Setting):
    """Text that is not empty."""

    what: ClassVar[str] = "text"

    def parse(self, value: object) -> str:
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"no value: write {self.what}")
        return value

    def schema(self) -> Schema:
        return {"type": "string", "minLength": 1}


@dataclass(frozen=True, slots=True)
class Name(Text):
    """A name that becomes a metric label and a span attribute: short and printable."""

    what: ClassVar[str] = "a name"

    def parse(self, value: object) -> str:
        name = Text.parse(self, value)
        if len(name) > _NAME_LENGTH or not name.isprintable() or name != name.strip():
            raise ValueError(
                f"not usable as a name: write up to {_NAME_LENGTH} printable characters, without spaces around them"
            )
        return name


@dataclass(frozen=True, slots=True)
class Expression(Text):
    """A TraceQL expression, not parsed here."""

    what: ClassVar[str] = "a TraceQL expression in quotes, such as '{ status = error }', or remove the key"

    def parse(self, value: object) -> str:
        if isinstance(value, dict):
            # Braces are a mapping to YAML as well; the most likely slip in this file.
            raise ValueError("YAML reads braces as a mapping: put the expression in quotes, '{ ... }'")
        return Text.parse(self, value)


@dataclass(frozen=True, slots=True)
class HeaderName(_Setting):
    """The name of gRPC metadata, in lower case (header names are case-insensitive)."""

    or_any: bool = False
    """`*` stands for any name."""

    def parse(self, value: object) -> str:
        name = str(value).lower()
        if self.or_any and name == "*":
            return name
        if not re.fullmatch(r"[0-9a-z_.-]+", name):
            raise ValueError("not a header name: write letters, digits, '-', '_' and '.' only")
        if name.startswith("grpc-"):
            raise ValueError("header names that begin with grpc- are reserved: use another")
        if name.endswith("-bin"):
            raise ValueError("binary headers (-bin) are not supported: use another")
        return name

    def schema(self) -> Schema:
        return {"type": "string"}


_OF_REQUESTS = {
    *("accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect"),
    *("host", "keep-alive", "origin", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade"),
    "user-agent",
}


@dataclass(frozen=True, slots=True)
class MetadataName(HeaderName):
    """The name of a header of requests that goes out with what they carry, in lower case."""

    def parse(self, value: object) -> str:
        name = HeaderName.parse(self, value)
        if name in ("authorization", "cookie"):
            raise ValueError(f"{name} is the sender's secret: name headers that say for whom, as x-scope-orgid")
        if name in _OF_REQUESTS:
            raise ValueError(f"{name} says how a request is sent: name headers that say for whom, as x-scope-orgid")
        return name


HEADER_VALUE = r"[ -~]*"


@dataclass(frozen=True, slots=True)
class HeaderFile:
    """The value of a header as the content of a file, behind a prefix."""

    path: str
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class HeaderValue(_Setting):
    """The value of gRPC metadata, or {file: PATH, prefix: TEXT}: characters that gRPC would refuse at each call are
    refused here, once."""

    def parse(self, value: object) -> str | HeaderFile:
        if isinstance(value, HeaderFile):
            return value
        if isinstance(value, dict):
            return self._file(value)
        if not isinstance(value, str):
            raise ValueError("no value: write text, in quotes, or {file: PATH}")
        return self._text(value)

    def _file(self, value: dict[object, object]) -> HeaderFile:
        path, prefix = value.get("file"), value.get("prefix", "")
        known = {"file", "prefix"}.issuperset(value)
        if not known or not isinstance(path, str) or not path.strip() or not isinstance(prefix, str):
            raise ValueError('write {file: PATH}, or {file: PATH, prefix: "Bearer "}')
        return HeaderFile(path, self._text(prefix))

    @staticmethod
    def _text(value: str) -> str:
        if not re.fullmatch(HEADER_VALUE, value):
            raise ValueError("a header value is one line of printable ASCII: remove line breaks and other characters")
        return value

    def format(self, value: str | HeaderFile) -> Any:
        if isinstance(value, HeaderFile):
            return {"file": value.path, **({"prefix": value.prefix} if value.prefix else {})}
        return value

    def schema(self) -> Schema:
        text: Schema = {"type": "string"}
        file = {"type": "object", "properties": {"file": text, "prefix": text}, "required": ["file"]}
        return {"anyOf": [{"type": ["string", "number", "boolean"]}, {**file, "additionalProperties": False}]}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address to listen on. `str` gives `host:port`, an IPv6 address in brackets; port 0 stands for any free one.
    Or, with `path`, a unix socket: `unix:PATH`."""

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def transport(self, protocol: str) -> str:
        """Return the name of what brings requests here, a label of metrics: unix for a unix socket."""
        return "unix" if self.path else protocol

    def at(self, port: int) -> Endpoint:
        """Return this address with the port that was bound for it; a unix socket has none."""
        return self if self.path else replace(self, port=port)


_MAX_SOCKET_PATH = 107
"""Bytes of a unix socket's path (unix(7): sun_path, without its zero)."""


@dataclass(frozen=True, slots=True)
class ListenAddress(_Setting):
    """An address to listen on, as `Endpoint`."""

    or_off: bool = False
    """`off`, as None, stands for no address at all."""
    or_unix: bool = False
    """`unix:PATH` stands for a unix socket."""

    def parse(self, value: object) -> Endpoint | None:
        if isinstance(value, Endpoint):
            return value
        if self.or_off and value in ("off", None, False):
            return None
        text = value if isinstance(value, str) else ""
        if text.startswith("unix:") and self.or_unix:
            return self._unix(text.removeprefix("unix:"))
        if "://" in text:
            raise ValueError("write host:port, without a scheme, for example [::]:4317")
        match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%a-z]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})", text)
        if not match:
            raise ValueError(
                f"write host:port, for example 0.0.0.0:4317; an IPv6 address in brackets: {_in_brackets(text)}"
            )
        if int(match[3]) > 65535:
            raise ValueError("a port is at most 65535")
        return Endpoint(match[1] or match[2], int(match[3]))

    @staticmethod
    def _unix(path: str) -> Endpoint:
        path = path[2:] if path.startswith("///") else path
        if not path.startswith("/") or path.endswith("/") or "\0" in path:
            raise ValueError("write the socket's path from the root, for example unix:/run/sampler-proxy/otlp.sock")
        if len(path.encode()) > _MAX_SOCKET_PATH:
            raise ValueError(f"the path of a unix socket has at most {_MAX_SOCKET_PATH} bytes")
        return Endpoint("", 0, path)

    def format(self, value: Endpoint | None) -> str:
        return "off" if value is None else str(value)

    def schema(self) -> Schema:
        more = ("|^off$" if self.or_off else "") + ("|^unix:/" if self.or_unix else "")
        return {"type": "string", "pattern": rf":[0-9]+$|\$\{{env:{more}"}


def _in_brackets(text: str) -> str:
    """Return what to write instead of an IPv6 address and a port without brackets."""
    host, _, port = text.rpartition(":")
    try:
        address = ipaddress.IPv6Address(host.strip("[]"))
    except ValueError:
        return "[::]:4317"
    return f"[{address}]:{port}" if re.fullmatch("[0-9]{1,5}", port) else "[::]:4317"


@dataclass(frozen=True, slots=True)
class Origin(Text):
    """The origin of web pages, as browsers send it; `*` in it stands for any characters, alone for any origin."""

    what: ClassVar[str] = "an origin such as https://shop.example"

    def parse(self, value: object) -> str:
        origin = Text.parse(self, value)
        if origin != "*" and not re.fullmatch(r"[A-Za-z*][A-Za-z0-9+.*-]*://[^/?#@\s]+", origin):
            raise ValueError("not an origin: write scheme, host and port only, such as https://shop.example")
        return origin


def _split_url(text: str, wanted: str) -> tuple[SplitResult, int | None]:
    """Split the URL of a back end, and read its port. Raises ValueError, which says what is `wanted`."""
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        raise ValueError(f"not a URL: {wanted}") from None
    if url.scheme not in ("http", "https") or not url.hostname or not re.fullmatch(r"[!-~]+", text):
        raise ValueError(wanted)
    if "@" in url.netloc:
        raise ValueError(f"credentials do not belong into a URL: {wanted}, and the credentials into headers")
    return url, port


@dataclass(frozen=True, slots=True)
class Url(_Setting):
    """The URL of a gRPC back end: `http://host:port` or `https://host:port`."""

    def parse(self, value: object) -> str:
        text = (value if isinstance(value, str) else "").removesuffix("/")
        wanted = "write http://host:port, or https://host:port for TLS"
        url, port = _split_url(text, wanted)
        if url.path or url.query or url.fragment:
            raise ValueError(f"gRPC knows no path: {wanted}")
        if not port:
            raise ValueError(f"the port is missing: {wanted}")
        return text

    def schema(self) -> Schema:
        return {"type": "string", "pattern": r"^https?://.+:[0-9]+/?$|\$\{env:"}


@dataclass(frozen=True, slots=True)
class BaseUrl(_Setting):
    """The URL of an HTTP back end, with a path or without. `added`: what is added to it, and does not belong into it;
    without it the URL is used as it stands."""

    added: str = ""

    def parse(self, value: object) -> str:
        text = value if isinstance(value, str) else ""
        wanted = "write http://host:port/path, or https:// for TLS"
        url, port = _split_url(text, wanted)
        if port == 0:
            raise ValueError(wanted)
        if url.fragment:
            raise ValueError(f"a fragment (#) is not sent: {wanted}")
        if self.added and url.query:
            raise ValueError(f"{self.added} is added to this, behind the query (?): write the whole as traces_endpoint")
        if self.added and url.path.rstrip("/").endswith(self.added):
            raise ValueError(f"{self.added} is added to this: remove it here")
        return text.rstrip("/") if self.added else text

    def schema(self) -> Schema:
        return {"type": "string", "pattern": r"^https?://.+|\$\{env:"}
