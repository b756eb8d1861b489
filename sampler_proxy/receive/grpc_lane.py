"""Handles large messages on a thread of its own, one at a time, so that small ones do not wait for them.

A call is the lane's from `add` until its answer's batch has begun. That batch has the call for its tag, and its event
comes to the receiving thread like any other: only that thread keeps books of calls. Core takes batches from any thread;
a queue that still owes an event has not been shut down.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Generic, TypeVar

from sampler_proxy.receive.turns import Turns

Call = TypeVar("Call")


class Lane(Generic[Call]):
    """The thread, and what waits for it, connections in turn. `handle(call)` handles a call and answers it; it must
    not raise."""

    def __init__(self, handle: Callable[[Call], None], name: str = "grpc-large") -> None:
        self._handle = handle
        self._turns: Turns[Call] = Turns()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    @property
    def alive(self) -> bool:
        """Tell whether the thread runs: from `start` to `close`."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def add(self, peer: Hashable, call: Call) -> None:
        """Have a call handled. From any thread. On an error it is not the lane's."""
        with self._changed:
            self._turns.add(peer, call)
            self._changed.notify()

    def close(self) -> None:
        """End the thread once it has handled what it is at; what waits is dropped. Does not block."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _serve(self) -> None:
        going_on = True
        while going_on:
            with suppress(MemoryError):
                going_on = self._next()

    def _next(self) -> bool:
        """Handle a call, waiting for it; False where it is time to end. No variable refers to the call afterwards."""
        with self._changed:
            while not self._turns and not self._closed:
                self._changed.wait()
            if self._closed:
                return False
            peer, call = self._turns.take()
        begun = time.monotonic()
        self._handle(call)
        with self._changed:
            self._turns.charge(peer, time.monotonic() - begun)
        return True
