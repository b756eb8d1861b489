"""Ends what a test has started, and shows what it wrote when the test has failed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from tests.support.processes import STARTED
from tests.support.sink import Sink
from tests.system.traffic import Client

SHOWN = 6000


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for process in STARTED:
            report.sections.append(
                (f"{process.name} (pid {process.pid}) stderr, {call.when}", process.stderr()[-SHOWN:])
            )
    return report


@pytest.fixture(autouse=True)
def _processes() -> Iterator[None]:
    before = len(STARTED)
    yield
    for process in STARTED[before:]:
        process.kill()
    del STARTED[before:]


@pytest.fixture
def sink() -> Iterator[Sink]:
    sink = Sink()
    yield sink
    sink.stop()


@pytest.fixture
def client() -> Iterator[Callable[..., Client]]:
    """Makes clients, and closes them in the end."""
    made: list[Client] = []

    def make(port: int, **options: Any) -> Client:
        made.append(Client(port, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()
