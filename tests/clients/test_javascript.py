"""The OpenTelemetry SDK for JavaScript, on Node.js."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.known import NEXT_DOUBLE
from tests.clients.running import built, sends, tool
from tests.support.sink import Sink


@pytest.mark.parametrize("gzip", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf", "http/json"])
def test_the_known_trace_arrives(protocol: str, gzip: bool, sink: Sink, tmp_path: Path) -> None:

    sends([tool("node"), str(built("js", "send.mjs"))], protocol, gzip, sink, tmp_path, integer=NEXT_DOUBLE)
