"""Names the signals of OTLP: the method and the path by which each is sent, and its message.

Source: OTLP specification 1.9, "OTLP/gRPC" and "OTLP/HTTP Request"; the services of opentelemetry-proto. Profiles are
still being defined: their names are those of the development version.
"""

from __future__ import annotations

from enum import Enum

from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.profiles.v1development.profiles_service_pb2 import ExportProfilesServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_COLLECTOR = "/opentelemetry.proto.collector"


class Signal(Enum):
    """A signal: `label` in metrics and log lines, its gRPC method, the path behind an endpoint's base URL, and the full
    name of its request."""

    TRACES = ("traces", f"{_COLLECTOR}.trace.v1.TraceService/Export", "v1/traces", ExportTraceServiceRequest)
    LOGS = ("logs", f"{_COLLECTOR}.logs.v1.LogsService/Export", "v1/logs", ExportLogsServiceRequest)
    METRICS = ("metrics", f"{_COLLECTOR}.metrics.v1.MetricsService/Export", "v1/metrics", ExportMetricsServiceRequest)
    PROFILES = (
        "profiles",
        f"{_COLLECTOR}.profiles.v1development.ProfilesService/Export",
        "v1development/profiles",
        ExportProfilesServiceRequest,
    )

    def __init__(self, label: str, method: str, path: str, request: type[Message]) -> None:
        self.label = label
        self.method = method
        self.path = path
        self.message = request.DESCRIPTOR.full_name


PASSED_ON = (Signal.LOGS, Signal.METRICS, Signal.PROFILES)
"""The signals that are passed on as they are."""
