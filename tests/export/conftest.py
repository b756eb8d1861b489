"""Fixtures: the one event loop that these tests run on, and back ends that are stopped in the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

import pytest
import uvloop

from tests.export.support import Answer, Backend


@pytest.fixture(scope="session")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner


@pytest.fixture
def run(runner: asyncio.Runner) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    async def bounded(work: Awaitable[Any]) -> Any:
        async with asyncio.timeout(30):
            return await work

    return lambda work: runner.run(bounded(work))


@pytest.fixture
def backend() -> Iterator[Callable[..., Backend]]:
    """Makes started back ends, and stops them in the end."""
    made: list[Backend] = []

    def make(answer: Answer | None = None, **settings: Any) -> Backend:
        made.append(Backend(**settings) if answer is None else Backend(answer, **settings))
        made[-1].start()
        return made[-1]

    yield make
    for each in made:
        each.stop()
