"""Reads the destination of a start without a file from the variables that OpenTelemetry's SDKs go by.

Source: OpenTelemetry specification, "OTLP Exporter" (protocol/exporter). A variable of traces,
OTEL_EXPORTER_OTLP_TRACES_X, stands before OTEL_EXPORTER_OTLP_X, that of all signals; one that is empty counts as not
set. Without a protocol, port 4317 means gRPC, and any other HTTP. There is a destination if there is an endpoint: the
specification's default, this machine, is where this proxy receives. What a variable holds is in no message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from pydantic import ValidationError

from sampler_proxy.config.authorities import read_authorities
from sampler_proxy.config.check import goes_round
from sampler_proxy.config.key_pairs import KeyPairError, read_key_pair
from sampler_proxy.config.model import Config, GrpcExport, HttpExport
from sampler_proxy.errors import ConfigError, Fault

PREFIX = "OTEL_EXPORTER_OTLP_"
NAME = "otlp"
"""The name of the destination."""

GRPC_PORT = 4317

MAX_TIMEOUT_MS = 24 * 60 * 60 * 1000

_PROTOCOLS = ("grpc", "http/protobuf")


class FromEnvironment(NamedTuple):
    """The configuration of a start without a file."""

    config: Config
    warnings: tuple[Fault, ...]


def configured(environ: Mapping[str, str], is_here: Callable[[str], bool]) -> FromEnvironment:
    """Return the built-in configuration, with the destination of the environment if that names one. `is_here` tells of
    a host whether it is this machine. Raises ConfigError, with the variables in place of a file."""
    variables = _Variables(environ)
    endpoint = variables.find("ENDPOINT")
    if endpoint is None:
        return FromEnvironment(Config(), ())
    export = _destination(variables, endpoint)
    config = Config(export=(export,))
    if goes_round(config, export, is_here):
        warning = "warning: this is where the proxy itself receives: it is not used, kept traces go into a file"
        return FromEnvironment(Config(), (Fault(endpoint.name, 0, 0, warning),))
    return FromEnvironment(config, ())


class _Variable(NamedTuple):
    name: str
    value: str


class _Variables:
    """The variables of one environment, and the faults found in them."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.faults: list[Fault] = []
        self._environ = environ

    def find(self, suffix: str) -> _Variable | None:
        """Return the variable of a setting, that of traces before that of all signals; None: neither is set."""
        for name in (f"{PREFIX}TRACES_{suffix}", f"{PREFIX}{suffix}"):
            if value := self._environ.get(name, "").strip():
                return _Variable(name, value)
        return None

    def refuse(self, variable: _Variable, message: str) -> None:
        """Note a fault."""
        self.faults.append(Fault(variable.name, 0, 0, message))


def _destination(variables: _Variables, endpoint: _Variable) -> GrpcExport | HttpExport:
    """Return the destination. Raises ConfigError."""
    settings: dict[str, Any] = {"name": NAME}
    used = {key: found for key, suffix in _SUFFIXES.items() if (found := variables.find(suffix)) is not None}
    protocol = _protocol(variables, endpoint)
    if protocol == "grpc":
        used["endpoint"] = endpoint
        settings["endpoint"] = _grpc_endpoint(variables, endpoint)
    else:
        key = "endpoint" if endpoint.name == f"{PREFIX}ENDPOINT" else "traces_endpoint"
        used[key] = endpoint
        settings |= {"protocol": protocol, key: endpoint.value}
    if str(settings.get("endpoint") or settings.get("traces_endpoint")).startswith("http:"):
        used.pop("tls", None)  # SDKs do not look at it either
    else:
        used |= _key_pair(variables)
    for key, variable in used.items():
        try:
            if key in _TLS:
                settings["tls"] = {**settings.get("tls", {}), **_TLS[key](variable.value)}
            elif read := _READERS.get(key):
                settings[key] = read(variable.value)
        except ValueError as error:
            variables.refuse(variable, str(error))
    model: type[GrpcExport | HttpExport] = GrpcExport if protocol == "grpc" else HttpExport
    try:
        export = model.model_validate(settings)
    except ValidationError as refused:
        for fault in refused.errors(include_url=False, include_input=False):
            where = used.get(str(fault["loc"][0]), endpoint)
            variables.refuse(where, str(fault["ctx"]["error"]))
    if variables.faults:
        raise ConfigError(variables.faults)
    return export


def _key_pair(variables: _Variables) -> dict[str, _Variable]:
    """Return the variables of the client's certificate and its key, whose files are looked at."""
    cert, key = variables.find("CLIENT_CERTIFICATE"), variables.find("CLIENT_KEY")
    if cert is None or key is None:
        if (one := cert or key) is not None:
            variables.refuse(one, f"a certificate needs its key: set both {PREFIX}CLIENT_CERTIFICATE and _CLIENT_KEY")
        return {}
    try:
        read_key_pair(cert.value, key.value)
    except KeyPairError as error:
        variables.refuse(cert if error.setting == "cert_file" else key, str(error))
    return {"cert_file": cert, "key_file": key}


def _protocol(variables: _Variables, endpoint: _Variable) -> str:
    found = variables.find("PROTOCOL")
    if found is None:
        return "grpc" if _port(endpoint.value) == GRPC_PORT else "http/protobuf"
    if found.value not in _PROTOCOLS:
        variables.refuse(found, f"write {' or '.join(_PROTOCOLS)}")
        return "http/protobuf"
    return found.value


def _port(url: str) -> int | None:
    try:
        return urlsplit(url if "://" in url else f"//{url}").port
    except ValueError:
        return None


def _grpc_endpoint(variables: _Variables, endpoint: _Variable) -> str:
    """Return a gRPC endpoint with a scheme and a port, both of which the specification lets out."""
    url = endpoint.value.rstrip("/")
    if "://" not in url:
        insecure = variables.find("INSECURE")
        url = f"{'http' if insecure and insecure.value.lower() == 'true' else 'https'}://{url}"
    return url if _port(url) is not None else f"{url}:{GRPC_PORT}"


def _headers(text: str) -> dict[str, str]:
    """Read `name=value,name=value`, as in W3C Baggage without properties: values are percent-encoded. Raises
    ValueError."""
    headers = {}
    for entry in filter(None, map(str.strip, text.split(","))):
        name, equals, value = entry.partition("=")
        if not equals or not name.strip():
            raise ValueError("write name=value, several of them with commas in between")
        headers[unquote(name.strip())] = unquote(value.strip())
    return headers


def _timeout_ns(text: str) -> int:
    """Read milliseconds. Raises ValueError."""
    if not (text.isascii() and text.isdigit()) or not 0 < int(text[:12]) <= MAX_TIMEOUT_MS:
        raise ValueError("write a whole number of milliseconds, such as 10000")
    return int(text) * 10**6


def _tls(path: str) -> dict[str, str]:
    """Read the path of a file of certificates, which is looked at. Raises ValueError."""
    read_authorities(path)
    return {"ca_file": path}


_SUFFIXES = {"headers": "HEADERS", "compression": "COMPRESSION", "timeout_ns": "TIMEOUT", "tls": "CERTIFICATE"}

_READERS: dict[str, Callable[[str], Any]] = {
    "headers": _headers,
    "compression": str,
    "timeout_ns": _timeout_ns,
}

_TLS: dict[str, Callable[[str], dict[str, str]]] = {
    "tls": _tls,
    "cert_file": lambda path: {"cert_file": path},
    "key_file": lambda path: {"key_file": path},
}
