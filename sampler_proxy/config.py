"""The configuration: what may be set, every default, what a setting refuses. `config_file` makes one of a file.

A `Config` is frozen data: durations are nanoseconds (`_ns`), sizes bytes, probabilities floats; in the file they carry
units (`30s`, `1GiB`, `1%`), and a field with an alias is called by that. TraceQL stays text here: `check` compiles it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator

from sampler_proxy.config_redact import Redact
from sampler_proxy.config_section import Section
from sampler_proxy.config_types import (
    Choice,
    Count,
    Duration,
    Endpoint,
    Expression,
    Flag,
    HeaderName,
    HeaderValue,
    ListenAddress,
    Name,
    Probability,
    Size,
    Text,
    Url,
)
from sampler_proxy.units import GIB, KIB, MIB, MILLISECOND, SECOND

_MAX_GRPC_MESSAGE = (1 << 31) - 1  # gRPC's limits are signed 32-bit integers

Address = Annotated[Endpoint, ListenAddress()]


class GrpcReceiver(Section):
    endpoint: Address = Endpoint("0.0.0.0", 4317)
    """Where OTLP/gRPC is received; port 0 binds a free one."""


class Receive(Section):
    grpc: GrpcReceiver = Field(default_factory=GrpcReceiver)
    max_request_bytes: Annotated[int, Size(at_least=KIB, at_most=_MAX_GRPC_MESSAGE)] = 64 * MIB
    """Of one request, after decompression; a larger one is refused."""


class Buffer(Section):
    decision_wait_ns: Annotated[int, Duration()] = Field(default=30 * SECOND, alias="decision_wait")
    """How long a trace waits for its spans, after the first one."""
    decision_wait_after_root_ns: Annotated[int, Duration()] = Field(
        default=5 * SECOND, alias="decision_wait_after_root"
    )
    """How long a trace waits after its root span, if that is sooner."""
    max_bytes: Annotated[int, Size(at_least=MIB)] = GIB
    """Memory for undecided traces; when it is full, the oldest are decided early."""
    max_trace_bytes: Annotated[int, Size()] = 32 * MIB
    """A trace that grows beyond this is decided at once."""
    decision_memory_bytes: Annotated[int, Size(at_least=4 * KIB)] = Field(default=64 * MIB, alias="decision_memory")
    """Memory for past decisions, which late spans follow."""

    @field_validator("max_trace_bytes")
    @classmethod
    def _trace_fits(cls, value: int, info: ValidationInfo) -> int:
        if value > info.data.get("max_bytes", value):
            raise ValueError("max_trace_bytes is larger than max_bytes: write max_bytes or less")
        return value


class Rule(Section):
    name: Annotated[str, Name()] = Field(examples=["errors"])
    match: Annotated[str, Expression()] | None = Field(default=None, examples=["{ status = error }"])
    """TraceQL; absent, the rule matches every trace."""
    unless: Annotated[str, Expression()] | None = Field(default=None, examples=['{ name = "GET /healthz" }'])
    """TraceQL; the rule applies where `match` holds and this does not."""
    keep: Annotated[float, Probability()] = Field(examples=["1%"])
    """`all`, `none` or a percentage of the traces."""


class Stamp(Section):
    decision: Annotated[bool, Flag()] = True
    """Kept spans get the attributes sampler_proxy.rule, sampler_proxy.reason and, where so,
    sampler_proxy.incomplete."""
    adjusted_count: Annotated[bool, Flag()] = False
    """Kept spans get the attribute sampler_proxy.adjusted_count, for back ends that do not read `ot=th`."""


class Batch(Section):
    max_bytes: Annotated[int, Size(at_most=_MAX_GRPC_MESSAGE)] = MIB
    """A batch is sent when it holds this much (a larger trace is sent alone)."""
    max_wait_ns: Annotated[int, Duration()] = Field(default=200 * MILLISECOND, alias="max_wait")
    """A batch is sent when its first trace has waited this long."""


class Queue(Section):
    max_bytes: Annotated[int, Size()] = 64 * MIB
    """Memory for kept traces that wait to be sent."""


class Retry(Section):
    initial_ns: Annotated[int, Duration(at_least_ns=MILLISECOND)] = Field(default=SECOND, alias="initial")
    """Pause after the first failure; it doubles with each further one."""
    max_ns: Annotated[int, Duration(at_least_ns=MILLISECOND)] = Field(
        default=30 * SECOND, alias="max", validate_default=True
    )
    """The longest pause."""

    @field_validator("max_ns")
    @classmethod
    def _not_below_initial(cls, value: int, info: ValidationInfo) -> int:
        if value < info.data.get("initial_ns", value):
            raise ValueError("max (30s if not set) is shorter than initial: write initial or more")
        return value


class Destination(Section):
    name: Annotated[str, Name()] = Field(examples=["tempo"])
    """Unique; the metrics carry it."""
    batch: Batch = Field(default_factory=Batch)
    queue: Queue = Field(default_factory=Queue)


class GrpcExport(Destination):
    protocol: Literal["grpc"] = "grpc"
    endpoint: Annotated[str, Url()] = Field(examples=["http://localhost:14317"])
    """http://host:port, or https://host:port for TLS with the system's root certificates."""
    headers: Mapping[Annotated[str, HeaderName()], Annotated[str, HeaderValue()]] = Field(
        default_factory=dict, repr=False
    )
    """Sent with every request."""

    @field_validator("headers", mode="before")
    @classmethod
    def _names_differ(cls, value: object) -> object:
        if isinstance(value, Mapping) and len({str(name).lower() for name in value}) < len(value):
            raise ValueError("a header is written twice, in upper and lower case: remove one")
        return value

    compression: Annotated[Literal["gzip", "none"], Choice(("gzip", "none"))] = "gzip"
    timeout_ns: Annotated[int, Duration(at_least_ns=MILLISECOND)] = Field(default=10 * SECOND, alias="timeout")
    """Of one request."""
    concurrency: Annotated[int, Count(1, 1000)] = 4
    """Requests in flight."""
    retry: Retry = Field(default_factory=Retry)


class FileExport(Destination):
    protocol: Literal["file"] = Field(examples=["file"])
    path: Annotated[str, Text()] = Field(examples=["traces.jsonl"])
    """OTLP JSON lines."""
    max_bytes: Annotated[int, Size()] = 64 * MIB
    """Bound of the file."""


class Admin(Section):
    endpoint: Address = Endpoint("127.0.0.1", 8888)
    """Where /metrics, /healthz, /readyz, /rules and /traces are served; port 0 binds a free one."""


def _protocol(entry: object) -> object:
    protocol = entry.get("protocol", "grpc") if isinstance(entry, dict) else getattr(entry, "protocol", "grpc")
    return protocol if isinstance(protocol, str) else ""


Export = Annotated[
    Annotated[GrpcExport, Tag("grpc")] | Annotated[FileExport, Tag("file")],
    Discriminator(_protocol),
]


class Config(Section):
    DEFAULT_RULES: ClassVar = (
        Rule(name="errors", match="{ status = error }", keep=1.0),
        Rule(name="slow", match="{ traceDuration > 1s }", keep=1.0),
        Rule(name="baseline", keep=0.01),
    )
    DEFAULT_EXPORT: ClassVar = (FileExport(name="local", protocol="file", path="sampler-proxy-traces.jsonl"),)

    receive: Receive = Field(default_factory=Receive)
    buffer: Buffer = Field(default_factory=Buffer)
    rules: tuple[Rule, ...] = Field(default=DEFAULT_RULES, json_schema_extra={"minItems": 1})
    """Read from the top; the first that matches decides. The last one matches everything."""
    redact: Redact = Field(default_factory=Redact)
    """What of kept spans must not leave. Without any key in it nothing is touched."""
    stamp: Stamp = Field(default_factory=Stamp)
    export: tuple[Export, ...] = Field(default=DEFAULT_EXPORT, json_schema_extra={"minItems": 1})
    """Where kept traces go: each destination gets all of them."""
    admin: Admin = Field(default_factory=Admin)
    shutdown_timeout_ns: Annotated[int, Duration()] = Field(default=30 * SECOND, alias="shutdown_timeout")
    """How long a stop may take to send what is kept."""


def json_schema() -> dict[str, Any]:
    """JSON Schema of the file, for editors."""
    schema = Config.model_json_schema(by_alias=True, mode="serialization")
    schema.pop("description", None)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "sampler-proxy configuration"}


def sections() -> Iterator[tuple[tuple[str, ...], type[Section]]]:
    """Every section of the file: its path, without list indices and with an export's protocol, and its model."""
    return _walk((), Config)


def key_of(model: type[Section], field: str) -> str:
    """What a field is called in the file."""
    return model.model_fields[field].alias or field


def _walk(path: tuple[str, ...], model: type[Section]) -> Iterator[tuple[tuple[str, ...], type[Section]]]:
    yield path, model
    for name, field in model.model_fields.items():
        for inner in _models_in(field.annotation):
            tag = get_args(inner.model_fields["protocol"].annotation) if issubclass(inner, Destination) else ()
            yield from _walk((*path, key_of(model, name), *tag), inner)


def _models_in(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
