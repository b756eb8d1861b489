"""A JSON body by curl, as the documentation of OTLP has it, with values that no SDK sends."""

from __future__ import annotations

import base64
import gzip as gzip_format
import json
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sampler_proxy.receive import http_bodies
from tests.clients.known import INTEGER, RESOURCE, START
from tests.clients.running import arrives, configuration, tool
from tests.support.processes import Proxy
from tests.support.sink import Sink

ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "identity": bytes,
    "gzip": gzip_format.compress,
    "deflate": zlib.compress,
    "zstd": http_bodies.zstd.compress,
}


def time(milliseconds: int) -> str:
    return str(START + milliseconds * 1_000_000)


def texts(values: dict[str, str]) -> list[dict[str, Any]]:
    return [{"key": key, "value": {"stringValue": value}} for key, value in values.items()]


def values(field: str, *found: Any) -> dict[str, Any]:
    return {"arrayValue": {"values": [{field: value} for value in found]}}


def body() -> dict[str, Any]:
    """Return the known trace as OTLP/JSON, and of its numbers each in another notation."""
    ids = {"traceId": "5b8efff798038103d269b633813fc60c"}
    attributes = {
        "text": {"stringValue": 'héllo ✓ 😀 "quoted"\nline'},
        "empty": {"stringValue": ""},
        "truth": {"boolValue": True},
        "integer": {"intValue": str(INTEGER)},
        "negative": {"intValue": -42},
        "double": {"doubleValue": 0.1},
        "texts": values("stringValue", "a", "", "é"),
        "integers": values("intValue", "1", -2, 3),
        "doubles": values("doubleValue", 0.5, "-2.25"),
        "booleans": values("boolValue", True, False),
        "bytes": {"bytesValue": base64.b64encode(b"\x00\xff").decode()},
        "map": {"kvlistValue": {"values": texts({"inner": "value"})}},
    }
    root = {
        **ids,
        "spanId": "EEE19B7EC3C1B174",
        "name": "GET /orders/{id}",
        "kind": 2,
        "startTimeUnixNano": time(0),
        "endTimeUnixNano": int(time(1500)),
        "attributes": [{"key": key, "value": value} for key, value in attributes.items()],
        "events": [
            {"name": "a turn", "timeUnixNano": time(1), "attributes": [{"key": "n", "value": {"intValue": "1"}}]},
            {"name": "nothing", "timeUnixNano": time(2)},
        ],
        "links": [
            {
                "traceId": "0af7651916cd43dd8448eb211c80319c",
                "spanId": "b7ad6b7169203331",
                "traceState": "vendor=value",
                "attributes": texts({"why": "because"}),
            }
        ],
        "status": {"code": "STATUS_CODE_OK"},
        "unknownField": [{"deep": None}],
    }
    query = {
        **ids,
        "spanId": "eee19b7ec3c1b175",
        "parentSpanId": "eee19b7ec3c1b174",
        "name": "SELECT orders",
        "kind": "SPAN_KIND_CLIENT",
        "start_time_unix_nano": time(100),
        "end_time_unix_nano": time(200),
        "status": {"code": 2, "message": "no such table"},
    }
    publish = {
        **ids,
        "spanId": "eee19b7ec3c1b176",
        "parentSpanId": "eee19b7ec3c1b175",
        "name": "publish",
        "kind": 4,
        "startTimeUnixNano": time(150),
        "endTimeUnixNano": time(160),
    }
    scope_spans = {"scope": {"name": "clients", "version": "1.2.3"}, "spans": [root, query, publish]}
    return {"resourceSpans": [{"resource": {"attributes": texts(RESOURCE)}, "scopeSpans": [scope_spans]}]}


@pytest.mark.parametrize("encoding", ENCODERS)
def test_the_known_trace_arrives(encoding: str, sink: Sink, tmp_path: Path) -> None:
    curl = tool("curl")
    proxy = Proxy(configuration(sink), tmp_path)
    file = tmp_path / "body"
    file.write_bytes(ENCODERS[encoding](json.dumps(body()).encode()))
    done = subprocess.run(
        [
            *(curl, "--silent", "--show-error", "--noproxy", "*", "--max-time", "20", "--write-out", "\n%{http_code}"),
            *("--header", "Content-Type: application/json", "--header", f"Content-Encoding: {encoding}"),
            *("--data-binary", f"@{file}", f"http://127.0.0.1:{proxy.http_port}/v1/traces"),
        ],
        capture_output=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (0, b"{}\n200"), done.stderr
    more = {"bytes": ("bytes", b"\x00\xff"), "map": ("map", {"inner": ("str", "value")})}
    arrives(sink, more=more)
    assert proxy.terminate() == 0
