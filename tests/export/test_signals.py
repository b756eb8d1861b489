"""Every signal over one transport: the official stubs' methods and paths, and the rejected items of each response."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2, profiles_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from sampler_proxy.export.exporter import Dependencies
from sampler_proxy.export.otlp_grpc import GrpcTransport
from sampler_proxy.export.retry import Accepted, Fault
from sampler_proxy.export.signals import rejected_items
from sampler_proxy.otlp.signals import Signal
from tests.export.support import assemble
from tests.export.test_otlp_grpc import config

RESPONSES = {
    Signal.TRACES: (trace_service_pb2.ExportTraceServiceResponse, "rejected_spans"),
    Signal.LOGS: (logs_service_pb2.ExportLogsServiceResponse, "rejected_log_records"),
    Signal.METRICS: (metrics_service_pb2.ExportMetricsServiceResponse, "rejected_data_points"),
    Signal.PROFILES: (profiles_service_pb2.ExportProfilesServiceResponse, "rejected_profiles"),
}
SERVICERS = {
    Signal.TRACES: (
        trace_service_pb2_grpc.TraceServiceServicer,
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server,
    ),
    Signal.LOGS: (logs_service_pb2_grpc.LogsServiceServicer, logs_service_pb2_grpc.add_LogsServiceServicer_to_server),
    Signal.METRICS: (
        metrics_service_pb2_grpc.MetricsServiceServicer,
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server,
    ),
    Signal.PROFILES: (
        profiles_service_pb2_grpc.ProfilesServiceServicer,
        profiles_service_pb2_grpc.add_ProfilesServiceServicer_to_server,
    ),
}


def response(signal: Signal, rejected: int) -> bytes:
    kind, field = RESPONSES[signal]
    made = kind()
    setattr(made.partial_success, field, rejected)
    made.partial_success.error_message = "no"
    return made.SerializeToString()


@pytest.mark.parametrize("signal", Signal)
def test_rejected_items_of_every_response(signal):
    assert rejected_items(response(signal, 7)) == 7
    assert rejected_items(b"") == 0
    assert rejected_items(b"\x0a\xff") == 0


@pytest.mark.parametrize("signal", Signal)
def test_a_signal_reaches_its_service(run, signal):
    """A server that has this service and no other: the others are told from an overload."""
    base, add = SERVICERS[signal]
    kind, field = RESPONSES[signal]

    class Servicer(base):
        def Export(self, _request, _context):  # noqa: N802 (the service's name)
            made = kind()
            setattr(made.partial_success, field, 3)
            return made

    server = grpc.server(ThreadPoolExecutor(2))
    add(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()

    async def scenario():
        dependencies = Dependencies(assemble, time.monotonic_ns, random.random, lambda _seconds: None, {})
        transport = GrpcTransport(config(port), dependencies)
        transport.start()
        try:
            for sent in Signal:
                outcome = await transport.send(sent, b"")
                if sent is signal:
                    assert outcome == Accepted(3)
                else:
                    assert (outcome.fault, outcome.code) == (Fault.UNWANTED, "UNIMPLEMENTED")
                    assert outcome.not_served
        finally:
            await transport.close()

    run(scenario())
    server.stop(None).wait(10)
