"""Guards a pipeline by a lock that is taken in turn: a thread that comes back waits behind those that wait already."""

from sampler_proxy.metrics import HistogramValue

class TurnLock:
    """Guards a pipeline, and counts how long it was held each time (`metrics.LOCK_HELD_SECONDS`)."""

    def __enter__(self) -> None: ...
    def __exit__(self, kind: object, error: object, traceback: object) -> None: ...
    def holds(self) -> HistogramValue:
        """Return how long it was held, each time until now; its holder asks."""
