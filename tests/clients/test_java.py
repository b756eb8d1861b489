"""The OpenTelemetry SDK for Java, configured by variables alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.known import VARIABLES
from tests.clients.running import SENT, TRACES_ONLY, Sender, arrives, built, configuration, sends, tool
from tests.support.processes import Proxy
from tests.support.sink import Sink
from tests.system.test_run import free


@pytest.mark.parametrize("gzip", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_the_known_trace_arrives(protocol: str, gzip: bool, sink: Sink, tmp_path: Path) -> None:
    classes = built("java", "Send.class").parent
    sends([tool("java"), "-cp", f"{classes}:{classes}/*", "Send"], protocol, gzip, sink, tmp_path)


def test_with_nothing_set_it_finds_the_default_port(sink: Sink, tmp_path: Path) -> None:
    if not free(4317):
        pytest.skip("the default port 4317 is in use on this machine")
    classes = built("java", "Send.class").parent
    proxy = Proxy(configuration(sink, grpc={}), tmp_path)
    variables = {**VARIABLES, **TRACES_ONLY}
    client = Sender([tool("java"), "-cp", f"{classes}:{classes}/*", "Send"], tmp_path / "client", variables)
    assert client.send() == SENT
    arrives(sink)
    assert client.end() == 0
    assert proxy.terminate() == 0
