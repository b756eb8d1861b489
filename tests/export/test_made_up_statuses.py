"""Calls that end without a status of the back end: the bytes are sent again. With one, it is final for these bytes."""

from __future__ import annotations

import pytest

from tests.export.support import Trace, counts, in_seconds, offer, until
from tests.export.test_otlp_grpc import config, exporting
from tests.support.http2_server import GRPC, Http2Server

NO_VERDICT = {
    **{f"RST_STREAM {error}": (lambda call, error=error: call.reset(error)) for error in (*range(14), 99)},
    "RST_STREAM after headers": lambda call: (call.headers(GRPC), call.reset(2)),
    "RST_STREAM after the message": lambda call: (call.headers(GRPC), call.data(bytes(5)), call.reset(2)),
    **{
        f"GOAWAY {error}": (lambda call, error=error: (call.go_away(error), call.hang_up()))
        for error in (0, 1, 2, 11)  # from 13 on, which nobody sends, grpcio 1.85 ends the process
    },
    "hangs up": lambda call: call.hang_up(),
    "hangs up after headers": lambda call: (call.headers(GRPC), call.hang_up()),
    "ends without a status": lambda call: (call.headers(GRPC), call.headers([("x-any", "1")], end=True)),
    "ends without trailers": lambda call: (call.headers(GRPC), call.data(bytes(5), end=True)),
    "ends with a status that is none": lambda call: call.headers([*GRPC, ("grpc-status", "abc")], end=True),
    **{
        f"HTTP {status}": (lambda call, status=status: call.http(status))
        for status in (200, 301, 400, 401, 403, 404, 405, 408, 411, 421, 429, 431, 500, 501, 502, 503, 504, 520)
    },
    "HTTP 500 without a body": lambda call: call.headers([(":status", "500")], end=True),
    "HTTP 500 as application/grpc": lambda call: call.headers([(":status", "500"), GRPC[1]], end=True),
}


@pytest.mark.parametrize("answer", NO_VERDICT.values(), ids=NO_VERDICT)
def test_what_is_no_verdict_is_sent_again(run, answer):
    left = [2]

    def twice(call):
        if left[0]:
            left[0] -= 1
            answer(call)
        else:
            call.succeed()

    async def scenario(port):
        async with exporting(config(port, compression="none", wait_ms=50, initial_ms=5, max_ms=10)) as exporter:
            offer(exporter, range(1, 11))
            assert await exporter.drain(in_seconds(10))
            assert counts(exporter) == (20, 0, {})
            assert exporter.failed_tries >= 2  # more, where the next one met the dying connection

    with Http2Server(twice) as server:
        run(scenario(server.port))
    assert len(server.calls) >= 3


@pytest.mark.parametrize("code", [2, 3, 13], ids=["UNKNOWN", "INVALID_ARGUMENT", "INTERNAL"])
def test_a_status_in_trailers_is_a_verdict_on_these_bytes(run, code):
    poison = Trace(5).data

    async def scenario(port):
        async with exporting(config(port, compression="none", wait_ms=50)) as exporter:
            offer(exporter, range(1, 11))
            assert await exporter.drain(in_seconds(10))
            assert counts(exporter) == (18, 2, {})

    with Http2Server(lambda call: call.status(code) if poison in call.message else call.succeed()) as server:
        run(scenario(server.port))
    assert server.calls.count(poison) == 1


def test_too_large_for_a_middleman_is_about_the_bytes(run):
    """HTTP 413, of a proxy in front of the back end."""

    async def scenario(port):
        async with exporting(config(port, compression="none", wait_ms=50)) as exporter:
            offer(exporter, range(1, 11), padding=500)
            assert await exporter.drain(in_seconds(10))
            assert counts(exporter) == (20, 0, {})

    with Http2Server(lambda call: call.http(413) if len(call.message) > 4000 else call.succeed()) as server:
        run(scenario(server.port))


def test_a_success_without_a_message_is_a_success(run):
    def answer(call):
        call.headers(GRPC)
        call.headers([("grpc-status", "0")], end=True)

    async def scenario(port):
        async with exporting(config(port)) as exporter:
            offer(exporter, [1])
            await until(lambda: exporter.queue.empty)
            assert counts(exporter) == (2, 0, {})

    with Http2Server(answer) as server:
        run(scenario(server.port))
