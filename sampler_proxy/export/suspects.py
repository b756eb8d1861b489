"""Suspects: parcels that fail though others pass. Says which one is tried next, and when, and what becomes of one that
fails again: it is divided, waits for another try, or is given up.

Sends nothing and settles nothing: the exporter does. On its loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from enum import Enum, auto

from sampler_proxy.export.parcel import PIECES, Parcel
from sampler_proxy.export.recent import LEAST_FAILURES, MANY_FAILURES, Recent
from sampler_proxy.export.retry import Backoff, Failed, Fault

OFTEN = 2
"""A suspect that failed so often is less likely to be somebody's neighbour than to be the one at fault."""

SLOWEST = 3
"""While little else passes, the pause of a worker doubles so often: a new suspect does not wait longer."""


class Step(Enum):
    """Names the next step with a suspect that failed again."""

    DIVIDE = auto()
    TRY_AGAIN = auto()
    GIVE_UP = auto()


class Suspects:
    """The suspects of one destination: those that wait, and those that are being tried."""

    def __init__(
        self, recent: Recent, backoff: Backoff, clock: Callable[[], int], give_up_ns: int, *, share_slot: bool
    ) -> None:
        """Begin without any. `give_up_ns`: how long one fails alone before it is given up. `share_slot`: there is a
        single slot, for batches and suspects in turn."""
        self.changed = asyncio.Event()  # there may be something to do for a worker
        self._recent = recent
        self._backoff = backoff
        self._clock = clock
        self._give_up_ns = give_up_ns
        self._share_slot = share_slot
        self._waiting: list[Parcel] = []
        self._tried: list[Parcel] = []
        self._failed = 0  # in succession

    def __iter__(self) -> Iterator[Parcel]:
        yield from self._waiting
        yield from self._tried

    def clear(self) -> None:
        """Forget all of them."""
        self._waiting.clear()
        self._tried.clear()

    def accuses(self, parcel: Parcel, outcome: Failed) -> bool:
        """Tell whether the fault lies with a parcel: it failed, again unless it was given much time, though another
        that was sent later has passed; or it alone was asked for silence."""
        if outcome.fault.clears_the_bytes or parcel.first_try_ns is None:
            return False
        if parcel.not_before_ns > 0:
            return True
        again = parcel.failures > 1 or outcome.fault is Fault.TIMEOUT
        return again and self._recent.passed_since(parcel.first_try_ns)

    # Waiting for a try.

    def add(self, parcels: list[Parcel]) -> None:
        """Have these wait, each for its time."""
        self._waiting += parcels

    def try_now(self) -> None:
        """End the pause of each."""
        for parcel in self._waiting:
            parcel.not_before_ns = 0
        self.changed.set()

    def take_due(self, now_ns: int, patient: bool, rest_until_ns: int) -> tuple[Parcel | None, int | None]:
        """Take a suspect whose time has come: those that failed least come first, and do not wait for the rest after
        another's failure if they never failed, unless all of them seem to. Those that fail and fail are left to the
        `patient` worker: the others are there for their neighbours.

        Returns it; or else in how many nanoseconds one is due, None where none waits.
        """
        all_rest = self._share_slot or self._failed > PIECES

        def due_ns(parcel: Parcel) -> int:
            return max(parcel.not_before_ns, rest_until_ns if parcel.failures or all_rest else 0)

        mine = [parcel for parcel in self._waiting if patient or parcel.failures < OFTEN]
        if due := [parcel for parcel in mine if due_ns(parcel) <= now_ns]:
            first = min(due, key=lambda parcel: (min(parcel.failures, OFTEN), parcel.not_before_ns))
            self._tried.append(first)
            self._waiting.remove(first)
            return first, None
        return None, min(map(due_ns, mine)) - now_ns if mine else None

    # After a try.

    def tried(self, parcel: Parcel) -> None:
        """Note that the try of a parcel is over: it has been settled, or waits again, as it is or in parts."""
        self._tried.remove(parcel)

    def passed(self) -> None:
        """Note that one has passed."""
        self._failed = 0

    def failed(self, started_ns: int, batches_wait: bool) -> int:
        """Note that one, tried at `started_ns`, has failed for now; returns until when its worker rests."""
        self._failed += 1
        now_ns = self._clock()
        slower = 0 if self._recent.most_pass else min(self._failed - 1, SLOWEST)
        rest_until_ns = now_ns + self._backoff.delay_ns(slower)
        if self._share_slot and batches_wait:
            rest_until_ns = max(rest_until_ns, 2 * now_ns - started_ns)  # batches have it as long
        return rest_until_ns

    def next_step(self, parcel: Parcel, outcome: Failed, now_ns: int, *, alone: bool = False) -> Step:
        """Return the next step with a suspect that failed; one that is to be tried again is told when. `alone`: it
        cannot be divided."""
        assert parcel.suspect_since_ns is not None
        if outcome.fault.clears_the_bytes or not self._recent.most_pass:
            parcel.suspect_since_ns = now_ns  # nothing passes, or hardly anything: that is nobody's fault
        elif not self._recent.recoveries and not alone:
            return Step.DIVIDE
        end_ns = parcel.suspect_since_ns + self._give_up_ns
        enough = OFTEN if outcome.fault is Fault.TIMEOUT else LEAST_FAILURES
        if end_ns <= now_ns and not self._recent.passed_since(parcel.suspect_since_ns):
            parcel.suspect_since_ns = now_ns
        elif parcel.divisible and (parcel.failures >= enough or end_ns <= now_ns):
            if end_ns <= now_ns:  # only a lone one is given up
                parcel.suspect_since_ns = now_ns
            return Step.DIVIDE
        elif self._is_given_up(parcel, now_ns):
            return Step.GIVE_UP
        pause_ns = max(self._backoff.delay_ns(parcel.failures - 1), outcome.retry_after_ns or 0)
        parcel.not_before_ns = min(now_ns + pause_ns, max(end_ns, now_ns + self._backoff.delay_ns(0)))
        return Step.TRY_AGAIN

    def overdue(self, now_ns: int) -> list[Parcel]:
        """Return those whose time is over while they wait for another try."""
        return [parcel for parcel in self._waiting if self._is_given_up(parcel, now_ns)]

    def give_up(self, parcel: Parcel) -> None:
        """Let go of one that is overdue."""
        self._waiting.remove(parcel)

    def _is_given_up(self, parcel: Parcel, now_ns: int) -> bool:
        """Tell whether a suspect has failed alone, for its time, while others passed. It does not count how often it
        got no answer in time: each such try lasts, and there may be a queue of others for it."""
        since_ns, failed = parcel.suspect_since_ns, parcel.failed
        if parcel.divisible or failed is None or since_ns is None or now_ns < since_ns + self._give_up_ns:
            return False
        if not self._recent.most_pass or not self._recent.passed_since(since_ns):
            return False
        beyond_doubt = parcel.failures >= MANY_FAILURES and now_ns >= since_ns + 2 * self._give_up_ns
        return failed.fault is Fault.TIMEOUT or beyond_doubt or not self._recent.is_chance(parcel.failures)
