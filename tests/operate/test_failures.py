"""What ends a running service from inside, and what must not: in this process, with parts that fail on command."""

from __future__ import annotations

import asyncio
import gc
import signal
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from sampler_proxy import service
from sampler_proxy.config.check import load_config
from sampler_proxy.config.model import Config
from tests.support.processes import free_port

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """A service leaves its signals ignored, and what exists at its start to no collector."""
    handlers = [signal.getsignal(number) for number in STOP_SIGNALS]
    yield
    for number, handler in zip(STOP_SIGNALS, handlers, strict=True):
        signal.signal(number, handler)
    gc.unfreeze()


class Pipeline:
    """A pipeline whose ticks are out of memory where `fails` says so of their number, and whose first drain() is."""

    def __init__(self, real: Any, fails: Callable[[int], bool]) -> None:
        self._real = real
        self._fails = fails
        self.ticks = 0
        self.drained = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def tick(self, now_ns: int) -> bool:
        self.ticks += 1
        if self._fails(self.ticks):
            raise MemoryError
        return bool(self._real.tick(now_ns))

    def drain(self, now_ns: int, **how: bool) -> bool:
        self.drained += 1
        if self.drained == 1:
            raise MemoryError
        return bool(self._real.drain(now_ns, **how))


def service_of(tmp_path: Path, admin_port: int = 0) -> Any:
    config = Config.model_validate(
        {
            "receive": {"grpc": {"endpoint": "127.0.0.1:0"}},
            "admin": {"endpoint": f"127.0.0.1:{admin_port}"},
            "export": [{"name": "f", "protocol": "file", "path": str(tmp_path / "out.json")}],
        }
    )
    return service.Service(load_config(config), False)


def run(one: Any) -> tuple[int, list[str]]:
    with capture_logs() as lines:
        code = asyncio.run(asyncio.wait_for(one.run(), 20))
    return code, [line["event"] for line in lines]


def test_a_tick_without_memory_is_tried_again(tmp_path: Path) -> None:
    one = service_of(tmp_path)

    def fails(tick: int) -> bool:
        if tick == 10:
            one._stopping.set()
        return tick in (2, 3, 5)

    pipeline = one._pipeline = Pipeline(one._pipeline, fails)
    code, lines = run(one)
    assert (code, pipeline.ticks) == (0, 10)
    assert pipeline.drained >= 2
    assert sum(line.startswith("out of memory: traces cannot be decided") for line in lines) == 1


def test_where_memory_stays_away_it_drains_and_ends_with_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MAX_WITHOUT_MEMORY", 5)
    one = service_of(tmp_path)
    pipeline = one._pipeline = Pipeline(one._pipeline, lambda tick: tick > 2)
    code, lines = run(one)
    assert (code, pipeline.ticks) == (1, 7)
    assert "stopping: no new requests, deciding and sending what is buffered" in lines
    assert any(line.endswith("there is no memory to decide traces with") for line in lines)


def test_health_fails_until_the_end_once_the_receiving_thread_has_ended(tmp_path: Path) -> None:
    port = free_port()
    one = service_of(tmp_path, port)
    found: list[int] = []
    drain = one._drain

    def health() -> int:
        try:
            return int(urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5).status)
        except urllib.error.HTTPError as error:
            return error.code

    async def watched(deadline_ns: int) -> None:
        await drain(deadline_ns)
        found.append(await asyncio.to_thread(health))  # the state is "draining" by now

    one._drain = watched

    async def both() -> int:
        running = asyncio.create_task(one.run())
        while one._readiness.status != "ready":  # noqa: ASYNC110 (nothing else tells it)
            await asyncio.sleep(0.01)
        found.append(await asyncio.to_thread(health))
        await asyncio.to_thread(one._engine.stop)
        return int(await asyncio.wait_for(running, 20))

    assert asyncio.run(both()) == 1
    assert found == [200, 503]
