"""Health and reflection as people and probes ask for them: by grpcurl, which knows no schema of its own."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

from tests.clients.running import arrives, built, configuration
from tests.clients.test_curl import body
from tests.support.processes import Proxy
from tests.support.sink import Sink

SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"


def grpcurl(*arguments: str, sent: str = "") -> str:
    done = subprocess.run(
        [str(built("go", "grpcurl")), "-plaintext", "-max-time", "20", *arguments],
        input=sent,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _in_base64(value: Any) -> Any:
    """Return OTLP/JSON as protobuf's own JSON has it: ids in Base64, and no field that is unknown."""
    if isinstance(value, list):
        return [_in_base64(each) for each in value]
    if not isinstance(value, dict):
        return value
    ids = ("traceId", "spanId", "parentSpanId")
    return {
        name: base64.b64encode(bytes.fromhex(each)).decode() if name in ids else _in_base64(each)
        for name, each in value.items()
        if name != "unknownField"
    }


def test_services_are_listed_described_healthy_and_callable(sink: Sink, tmp_path: Path) -> None:
    proxy = Proxy(configuration(sink), tmp_path)
    address = f"127.0.0.1:{proxy.port}"
    services = grpcurl(address, "list").split()
    assert {SERVICE, "grpc.health.v1.Health"} <= set(services)
    assert "rpc Export" in grpcurl(address, "describe", SERVICE)
    for service in ("", SERVICE):
        asked = json.dumps({"service": service})
        assert json.loads(grpcurl("-d", asked, address, "grpc.health.v1.Health/Check")) == {"status": "SERVING"}
    grpcurl("-d", "@", address, f"{SERVICE}/Export", sent=json.dumps(_in_base64(body())))
    more = {"bytes": ("bytes", b"\x00\xff"), "map": ("map", {"inner": ("str", "value")})}
    arrives(sink, more=more)
    assert proxy.terminate() == 0
