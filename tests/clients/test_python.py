"""The OpenTelemetry SDK for Python."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.running import PYTHON, sends
from tests.support.sink import Sink


@pytest.mark.parametrize("gzip", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_the_known_trace_arrives(protocol: str, gzip: bool, sink: Sink, tmp_path: Path) -> None:

    sends(PYTHON, protocol, gzip, sink, tmp_path, link_state="")
