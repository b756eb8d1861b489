"""Remembers how the last tries of a destination went, to tell a parcel that fails from a destination that fails."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

REMEMBERED = 16
RETRIES_REMEMBERED = 64
RETRIES_FOR_NS = 300 * 10**9
LARGEST_FOR_NS = 60 * 10**9

LEAST_FAILURES = 5
MANY_FAILURES = 32
"""So many in succession, over a long time, are bad luck only where a destination takes next to nothing."""

UNLIKELY = 1e-6
"""What happens by chance less often than this does not happen by chance."""


@dataclass(frozen=True, slots=True)
class Try:
    """A request that has been answered, or not: when it was sent, and its size."""

    started_ns: int
    nbytes: int
    passed: bool


class Recent:
    """The last tries, those of parcels under suspicion left out where they failed: these say nothing of the others."""

    def __init__(self) -> None:
        self._tries: deque[Try] = deque(maxlen=REMEMBERED)
        self._passed_ns: int | None = None
        self._retries: deque[tuple[int, bool]] = deque(maxlen=RETRIES_REMEMBERED)  # of suspects: when, passed or not
        self._largest_nbytes = 0  # that passed in this period of LARGEST_FOR_NS
        self._largest_before_nbytes = 0  # and in the one before
        self._period_ns: int | None = None  # its beginning

    def record(self, one: Try) -> None:
        self._tries.append(one)
        if not one.passed:
            return
        self._passed_ns = max(one.started_ns, self._passed_ns or 0)
        if self._period_ns is None or one.started_ns - self._period_ns > LARGEST_FOR_NS:
            self._largest_before_nbytes, self._largest_nbytes = self._largest_nbytes, 0
            self._period_ns = one.started_ns
        self._largest_nbytes = max(self._largest_nbytes, one.nbytes)

    def passed_since(self, since_ns: int) -> bool:
        """Tell whether a request that was sent since then has passed."""
        return self._passed_ns is not None and self._passed_ns >= since_ns

    def passed_with(self, nbytes: int) -> bool:
        """Tell whether a request of that size or more has passed lately."""
        return max(self._largest_nbytes, self._largest_before_nbytes) >= nbytes

    @property
    def last_passed(self) -> bool:
        """Tell whether the last try passed."""
        return bool(self._tries) and self._tries[-1].passed

    @property
    def most_pass(self) -> bool:
        """Tell whether most of the last tries passed: a destination that takes one request in ten is overloaded, and
        nothing that it refuses is to blame."""
        return 2 * sum(one.passed for one in self._tries) > len(self._tries)

    def record_retry(self, started_ns: int, passed: bool) -> None:
        """Note another try of a suspect, with the same bytes as before; forget those of long ago."""
        self._retries.append((started_ns, passed))
        while started_ns - self._retries[0][0] > RETRIES_FOR_NS:
            self._retries.popleft()

    @property
    def recoveries(self) -> float:
        """The share of other tries of suspects that pass. Poison never does; above 0, the destination refuses at
        random, as one does that limits its rate."""
        return sum(passed for _, passed in self._retries) / len(self._retries) if self._retries else 0.0

    def is_chance(self, failures: int) -> bool:
        """Tell whether so many failures in succession may be bad luck with a destination that refuses at random."""
        share = self.recoveries
        return failures < LEAST_FAILURES or (share > 0 and (1 - share) ** failures > UNLIKELY)
