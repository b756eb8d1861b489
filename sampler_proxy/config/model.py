"""Defines the configuration: every setting, its default, the values that it refuses. `file` parses a file into it.

A `Config` is frozen data: durations are nanoseconds (`_ns`), sizes bytes, probabilities floats; in the file they carry
units (`30s`, `1GiB`, `1%`), and a field with an alias goes by that name. TraceQL stays text here: `check` compiles it.

The docstrings of fields are descriptions in the JSON Schema, which editors show.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from sampler_proxy.config.doors import GIVEN, AdminAuth, SenderAuth, ServerTls
from sampler_proxy.redact.section import Redact
from sampler_proxy.settings import (
    BaseUrl,
    Choice,
    Count,
    Duration,
    Endpoint,
    Expression,
    Flag,
    Frequency,
    HeaderFile,
    HeaderName,
    HeaderValue,
    ListenAddress,
    MetadataName,
    Name,
    Origin,
    Probability,
    Section,
    Size,
    TargetRate,
    Text,
    Url,
)
from sampler_proxy.units import GIB, KIB, MIB, MILLISECOND, SECOND, Rate

MAX_KEY_FIELDS = 8

_MAX_GRPC_MESSAGE = (1 << 31) - 1  # gRPC's limits are signed 32-bit integers

Address = Annotated[Endpoint, ListenAddress()]


_ConnectionTime = Annotated[int, Duration(at_least_ns=SECOND)]


class Keepalive(Section):
    time_ns: _ConnectionTime = Field(default=7200 * SECOND, alias="time")
    """A connection of which nothing has come for so long is asked whether it is there."""
    timeout_ns: _ConnectionTime = Field(default=20 * SECOND, alias="timeout")
    """It is closed if nothing comes for so long then."""
    max_connection_idle_ns: _ConnectionTime | None = Field(default=None, alias="max_connection_idle")
    """A client that has had no call for so long is asked to connect anew."""
    max_connection_age_ns: _ConnectionTime | None = Field(default=None, alias="max_connection_age")
    """So is one that has been connected for so long, a tenth more or less, so that load balancers can spread them."""
    max_connection_age_grace_ns: _ConnectionTime | None = Field(default=None, alias="max_connection_age_grace")
    """How long its calls may take to end before the connection is closed; absent: as long as they like."""


class GrpcReceiver(Section):
    endpoint: Annotated[Endpoint, ListenAddress(or_unix=True)] = Endpoint("::", 4317)
    """Where OTLP/gRPC is received: host:port, or unix:PATH; port 0 binds a free one."""
    tls: Annotated[ServerTls | None, GIVEN] = None
    """Senders have to speak TLS; absent: plaintext."""
    auth: Annotated[SenderAuth | None, GIVEN] = None
    """Senders have to show one of these credentials; absent: none."""
    keepalive: Keepalive = Field(default_factory=Keepalive)


class Cors(Section):
    allowed_origins: tuple[Annotated[str, Origin()], ...] = ()
    """Web pages of these origins may send; `*` stands for any characters, alone for every page."""
    allowed_headers: tuple[Annotated[str, HeaderName(or_any=True)], ...] = ()
    """Headers that they may send beside those that OTLP needs; `*` for any."""
    max_age_ns: Annotated[int, Duration()] = Field(default=600 * SECOND, alias="max_age")
    """How long a browser may remember that it was allowed."""


class HttpReceiver(Section):
    endpoint: Annotated[Endpoint | None, ListenAddress(or_off=True, or_unix=True)] = Endpoint("::", 4318)
    """Where OTLP/HTTP is received: host:port, or unix:PATH; port 0 binds a free one, off none."""
    tls: Annotated[ServerTls | None, GIVEN] = None
    """Senders have to speak TLS; absent: plaintext."""
    auth: Annotated[SenderAuth | None, GIVEN] = None
    """Senders have to show one of these credentials; absent: none."""
    cors: Cors = Field(default_factory=Cors)


class Receive(Section):
    grpc: GrpcReceiver = Field(default_factory=GrpcReceiver)
    http: HttpReceiver = Field(default_factory=HttpReceiver)
    max_request_bytes: Annotated[int, Size(at_least=KIB, at_most=_MAX_GRPC_MESSAGE)] = 64 * MIB
    """The largest request, after decompression; a larger one is refused."""
    metadata: tuple[Annotated[str, MetadataName()], ...] = ()
    """Headers of requests that stay with their spans (and with what is passed on): rules may name them, as
    metadata.NAME, and they go out as headers of the requests that carry the spans."""

    @field_validator("metadata")
    @classmethod
    def _once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("a header is named twice: write each once")
        return value


class Buffer(Section):
    decision_wait_ns: Annotated[int, Duration()] = Field(default=30 * SECOND, alias="decision_wait")
    """How long a trace waits for its spans, after the first one."""
    decision_wait_after_root_ns: Annotated[int, Duration()] = Field(
        default=5 * SECOND, alias="decision_wait_after_root"
    )
    """How long a trace waits after its root span, if that is sooner."""
    root: Annotated[Literal["local", "parentless"], Choice(("local", "parentless"))] = "local"
    """What counts as root: a span without a parent, and, with local, one whose parent is in another process and does
    not arrive here, as senders say by the remote flag of OTLP."""
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


class Adaptive(Section):
    target: Annotated[Rate, TargetRate()] = Field(examples=["100 traces/s"])
    """How much the rule keeps, on average; if there is less, all of it."""
    per: tuple[Annotated[str, Text()], ...] = ()
    """Fields of the root span, such as resource.service.name or rootName. The target is shared among the traces with
    different values: rare values keep all their traces, frequent ones split the rest of the target equally."""
    at_least: Annotated[float, Probability()] = 0.0
    """No trace is kept with a smaller probability, whatever the target."""
    at_most: Annotated[float, Probability()] = Field(default=1.0, validate_default=True)
    """Nor with a larger one."""
    minimum: Annotated[float, Frequency()] | None = None
    """So many traces of each combination of values are kept, even where its part of the target is smaller."""

    @field_validator("per")
    @classmethod
    def _not_too_many(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(value) > MAX_KEY_FIELDS:
            raise ValueError(f"more than {MAX_KEY_FIELDS} fields: name those in which the traces differ most")
        return value

    @field_validator("at_most")
    @classmethod
    def _not_below_least(cls, value: float, info: ValidationInfo) -> float:
        if value == 0:
            raise ValueError("nothing would be kept: write a percentage above 0%, or `keep: none`")
        if value < info.data.get("at_least", value):
            raise ValueError("at_most (100% if not set) is below at_least: write at_least or more")
        return value


def _kind_of_keep(value: object) -> str:
    return "adaptive" if isinstance(value, dict | Adaptive) else "ratio"


Keep = Annotated[
    Annotated[float, Probability(or_target=True), Tag("ratio")] | Annotated[Adaptive, Tag("adaptive")],
    Discriminator(_kind_of_keep),
]


class Rule(Section):
    name: Annotated[str, Name()] = Field(examples=["errors"])
    match: Annotated[str, Expression()] | None = Field(default=None, examples=["{ status = error }"])
    """TraceQL; absent, the rule matches every trace."""
    unless: Annotated[str, Expression()] | None = Field(default=None, examples=['{ name = "GET /healthz" }'])
    """TraceQL; the rule applies where `match` holds and this does not."""
    keep: Keep = Field(examples=["1%"])
    """`all`, `none`, a percentage of the traces, or a target that the percentage follows."""
    to: tuple[Annotated[str, Name()], ...] | None = Field(default=None, examples=[["sentry"]])
    """Names of the destinations that the kept traces go to; absent, all of them."""


class Limit(Section):
    traces: Annotated[float, Frequency()] | None = None
    """At most so many traces leave, on average over a few seconds."""
    spans: Annotated[float, Frequency()] | None = None
    """Or so many spans."""
    bytes: Annotated[float, Frequency(sizes=True)] | None = None
    """Or so many bytes of spans, as they were received."""
    floor: Annotated[float, Probability()] = 0.2
    """The part of the limit that is shared among all rules that keep something. The rest goes to the first rule, the
    remainder to the second, and so on."""

    @model_validator(mode="after")
    def _one_unit(self) -> Limit:
        if sum(rate is not None for rate in (self.traces, self.spans, self.bytes)) > 1:
            raise ValueError("a limit counts either traces, spans or bytes: write one of them")
        return self

    @property
    def rate(self) -> Rate | None:
        """The limit with its unit; None: there is no limit."""
        for unit in ("traces", "spans", "bytes"):
            if (per_second := getattr(self, unit)) is not None:
                return Rate(per_second, unit)
        return None


class Storage(Section):
    path: Annotated[str, Text()] | None = Field(default=None, examples=["/var/lib/sampler-proxy"])
    """A folder of this process alone, created if missing, in which learned rates survive a restart."""


class Stamp(Section):
    decision: Annotated[bool, Flag()] = True
    """Kept spans get the attributes sampler_proxy.rule, sampler_proxy.reason and, of an incomplete trace,
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
    when_full: Annotated[Literal["wait", "drop"], Choice(("wait", "drop"))] = "wait"
    """`wait`: kept traces stay in the buffer, and in the end senders are refused. `drop`: they are lost for this
    destination, and hold up nobody."""


class Retry(Section):
    initial_ns: Annotated[int, Duration(at_least_ns=MILLISECOND)] = Field(default=SECOND, alias="initial")
    """Pause after the first failure; it doubles with each further one."""
    max_ns: Annotated[int, Duration(at_least_ns=MILLISECOND)] = Field(
        default=30 * SECOND, alias="max", validate_default=True
    )
    """The longest pause."""
    give_up_ns: Annotated[int, Duration(at_least_ns=MILLISECOND)] = Field(default=300 * SECOND, alias="give_up")
    """A trace that fails for so long, though others pass, is rejected; never while nothing passes."""

    @field_validator("max_ns")
    @classmethod
    def _not_below_initial(cls, value: int, info: ValidationInfo) -> int:
        if value < info.data.get("initial_ns", value):
            raise ValueError("max (30s if not set) is shorter than initial: write initial or more")
        return value


class Destination(Section):
    name: Annotated[str, Name()] = Field(examples=["tempo"])
    """Unique; the metrics carry it."""
    dropped: Annotated[bool, Flag()] = False
    """It takes what was sampled out, too, with the attribute sampler_proxy.sampled_out."""
    batch: Batch = Field(default_factory=Batch)
    queue: Queue = Field(default_factory=Queue)


class Tls(Section):
    ca_file: Annotated[str, Text()] | None = Field(default=None, examples=["/etc/ssl/company-ca.pem"])
    """Certificates in PEM, of the authorities that may vouch for the back end; absent: those of the system. Read again
    when it changes."""
    cert_file: Annotated[str, Text()] | None = None
    """The certificate that is shown to the back end, and those that vouch for it, in PEM (mTLS); absent: none. Read
    again when it changes."""
    key_file: Annotated[str, Text()] | None = None
    """The certificate's key, in PEM, not encrypted; read again when it changes."""
    server_name_override: Annotated[str, Text()] | None = None
    """The name that the back end's certificate has to be for, instead of the host in `endpoint`."""

    @model_validator(mode="after")
    def _both(self) -> Tls:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("a certificate needs its key: write both cert_file and key_file")
        return self


class OtlpExport(Destination):
    """A back end that speaks OTLP, over whatever transport."""

    endpoint: str | None
    tls: Tls = Field(default_factory=Tls)

    @field_validator("tls")
    @classmethod
    def _is_used(cls, value: Tls, info: ValidationInfo) -> Tls:
        if value != Tls() and not (info.data.get("endpoint") or "https:").startswith("https:"):
            raise ValueError("this endpoint is reached without TLS: write https://host:port there, or remove tls")
        return value

    headers: Mapping[Annotated[str, HeaderName()], Annotated[str | HeaderFile, HeaderValue()]] = Field(
        default_factory=dict, repr=False
    )
    """Sent with every request. A value is text or {file: PATH, prefix: TEXT}; a file is read again when it changes."""

    @field_validator("headers", mode="before")
    @classmethod
    def _names_differ(cls, value: object) -> object:
        if isinstance(value, Mapping) and len({str(name).lower() for name in value}) < len(value):
            raise ValueError("a header is written twice, in upper and lower case: remove one")
        return value

    compression: str
    timeout_ns: Annotated[int, Duration(at_least_ns=MILLISECOND)] = Field(default=10 * SECOND, alias="timeout")
    """How long one request may take."""
    concurrency: Annotated[int, Count(1, 1000)] = 4
    """Requests in flight."""
    retry: Retry = Field(default_factory=Retry)

    @property
    def url(self) -> str:
        """Return where it is reached."""
        return self.endpoint or ""


class GrpcExport(OtlpExport):
    protocol: Literal["grpc"] = "grpc"
    endpoint: Annotated[str, Url()] = Field(examples=["http://localhost:14317"])
    """http://host:port, or https://host:port for TLS."""
    compression: Annotated[
        Literal["gzip", "none"],
        Choice(("gzip", "none"), {"zstd": "gRPC has no zstd here: write gzip, or protocol: http/protobuf"}),
    ] = "gzip"


class HttpExport(OtlpExport):
    protocol: Literal["http/protobuf"] = Field(examples=["http/protobuf"])
    endpoint: Annotated[str | None, BaseUrl("/v1/traces")] = Field(default=None, examples=["https://otlp.example.com"])
    """http://host:port/path, or https:// for TLS; /v1/traces is added, and for other signals what belongs to them."""
    traces_endpoint: Annotated[str | None, BaseUrl()] = Field(default=None, examples=["https://example.com/traces"])
    """Instead of endpoint: the whole URL for traces, to which nothing is added. Other signals do not go there."""
    compression: Annotated[Literal["gzip", "zstd", "none"], Choice(("gzip", "zstd", "none"))] = "gzip"

    @model_validator(mode="after")
    def _one_endpoint(self) -> HttpExport:
        if (self.endpoint is None) == (self.traces_endpoint is None):
            raise ValueError(
                "'endpoint' is missing: write for example `endpoint: https://otlp.example.com`"
                if self.endpoint is None
                else "write either endpoint or traces_endpoint, not both"
            )
        return self

    @property
    def url(self) -> str:
        return (self.endpoint or self.traces_endpoint or "").partition("?")[0]  # a query may hold a key


class FileExport(Destination):
    protocol: Literal["file"] = Field(examples=["file"])
    path: Annotated[str, Text()] = Field(examples=["traces.jsonl"])
    """OTLP JSON lines."""
    max_bytes: Annotated[int, Size()] = 64 * MIB
    """Bound of the file."""
    max_age_ns: Annotated[int, Duration(at_least_ns=SECOND)] | None = Field(
        default=None, alias="max_age", examples=["168h"]
    )
    """What was written longer ago is removed; absent, nothing is for its age."""


class ConsoleExport(Destination):
    protocol: Literal["console"] = Field(examples=["console"])


class Admin(Section):
    endpoint: Address = Endpoint("127.0.0.1", 8888)
    """Where /metrics, /healthz, /readyz, /rules and /traces are served; port 0 binds a free one."""
    insecure: Annotated[bool, Flag()] = False
    """Other machines may ask, though neither credentials nor client certificates are wanted."""
    tls: Annotated[ServerTls | None, GIVEN] = None
    """Who asks has to speak TLS; absent: plain HTTP."""
    auth: Annotated[AdminAuth | None, GIVEN] = None
    """Who asks has to show one of these credentials, but for /healthz and /readyz; absent: none."""


def _protocol(entry: object) -> object:
    protocol = entry.get("protocol", "grpc") if isinstance(entry, dict) else getattr(entry, "protocol", "grpc")
    return protocol if isinstance(protocol, str) else ""


Export = Annotated[
    Annotated[GrpcExport, Tag("grpc")]
    | Annotated[HttpExport, Tag("http/protobuf")]
    | Annotated[FileExport, Tag("file")]
    | Annotated[ConsoleExport, Tag("console")],
    Discriminator(_protocol),
]


class Config(Section):
    DEFAULT_RULES: ClassVar = (
        Rule(name="errors", match="{ status = error }", keep=1.0),
        Rule(name="slow", match="{ rootDuration > 1s }", keep=1.0),
        Rule(name="baseline", keep=0.01),
    )
    DEFAULT_EXPORT: ClassVar = (FileExport(name="local", protocol="file", path="sampler-proxy-traces.jsonl"),)

    receive: Receive = Field(default_factory=Receive)
    passthrough: Annotated[Literal["all", "off", "discard"], Choice(("all", "off", "discard"))] = "all"
    """Logs, metrics and profiles: `all` passes them on to every destination that takes them, as they are; `off` refuses
    them; `discard` takes them, counts them and drops them."""
    buffer: Buffer = Field(default_factory=Buffer)
    rules: tuple[Rule, ...] = Field(default=DEFAULT_RULES, json_schema_extra={"minItems": 1})
    """Read from the top; the first that matches decides. The last one matches everything."""
    limit: Limit = Field(default_factory=Limit)
    redact: Redact = Field(default_factory=Redact)
    """What is removed from kept spans. Without any key in this section nothing is."""
    stamp: Stamp = Field(default_factory=Stamp)
    export: tuple[Export, ...] = Field(default=DEFAULT_EXPORT, json_schema_extra={"minItems": 1})
    """Where kept traces go: each destination gets all of them, save where rules name some in `to`."""
    storage: Storage = Field(default_factory=Storage)
    admin: Admin = Field(default_factory=Admin)
    shutdown_timeout_ns: Annotated[int, Duration()] = Field(default=30 * SECOND, alias="shutdown_timeout")
    """How long a stop may take to send the kept traces."""


def json_schema() -> dict[str, Any]:
    """Build the JSON Schema of the file, for editors."""
    schema = Config.model_json_schema(by_alias=True, mode="serialization")
    schema.pop("description", None)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "sampler-proxy configuration"}


def sections() -> Iterator[tuple[tuple[str, ...], type[Section]]]:
    """Yield every section of the file: its path, without list indices and with the tag of a union (an export's
    protocol), and its model."""
    return _walk((), Config)


def key_of(model: type[Section], field: str) -> str:
    """Return the name of a field in the file."""
    return model.model_fields[field].alias or field


def _walk(path: tuple[str, ...], model: type[Section]) -> Iterator[tuple[tuple[str, ...], type[Section]]]:
    yield path, model
    for name, field in model.model_fields.items():
        for inner in _models_in(field.annotation):
            tag: tuple[str, ...] = ()
            if issubclass(inner, Destination):
                tag = get_args(inner.model_fields["protocol"].annotation)
            elif inner is Adaptive:
                tag = ("adaptive",)
            yield from _walk((*path, key_of(model, name), *tag), inner)


def _models_in(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
