"""Keeps the work of a destination going: a task begins anew whatever has ended it, and a step waits for memory.

On one event loop. What is met is reported, as the kind of an error and never its text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from sampler_proxy.export.reporter import Reporter
from sampler_proxy.export.retry import OUT_OF_MEMORY, Backoff, lacks_memory

T = TypeVar("T")


def is_to_end(error: BaseException) -> bool:
    """Tell whether an exception means that the running task is to end: a call may have been cancelled alone."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling() > 0)


async def sleep_ns(delay_ns: int) -> None:
    """Wait for `delay_ns`."""
    await asyncio.sleep(delay_ns / 1e9)


class Lasting:
    """Tasks that work until `end`. `pause` waits for so many nanoseconds, or for less if there is reason to."""

    def __init__(
        self,
        name: str,
        backoff: Backoff,
        report: Reporter,
        pause: Callable[[int], Awaitable[None]] = sleep_ns,
    ) -> None:
        self.tasks: list[asyncio.Task[None]] = []
        self._name = name
        self._backoff = backoff
        self._report = report
        self._pause = pause

    def begin(self, work: Callable[[], Awaitable[None]]) -> None:
        """Create a task that works until it is cancelled, and begins anew after a pause if the work ends before."""

        async def forever() -> None:
            failures = 0
            while True:
                try:
                    await work()
                except (Exception, asyncio.CancelledError) as error:
                    if is_to_end(error):
                        raise
                    self.note_error(error)
                await self._rest(failures)
                failures += 1

        self.tasks.append(asyncio.get_running_loop().create_task(forever(), name=f"export {self._name}"))

    async def end(self) -> None:
        """Cancel every task, and wait for its end."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def once_there_is_memory(self, step: Callable[[], Awaitable[T]]) -> T:
        """Take a step, again and again after a pause where there is no memory for it."""
        failures = 0
        while True:
            try:
                return await step()
            except Exception as error:
                if not lacks_memory(error):
                    raise
                self.note_error(error)
            await self._rest(failures)
            failures += 1

    def note_error(self, error: BaseException) -> None:
        """Report an error that ends neither the task nor the work."""
        with suppress(MemoryError):
            if lacks_memory(error):
                self._report.hindered(OUT_OF_MEMORY.code, OUT_OF_MEMORY.why)
            else:
                self._report.complain("unforeseen", 0, f"internal error: {type(error).__name__}; going on")

    async def _rest(self, failures: int) -> None:
        try:
            await self._pause(self._backoff.delay_ns(failures))
        except MemoryError:
            await asyncio.sleep(1)
