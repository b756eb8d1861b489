"""A lock that is taken in turn: who comes back for it waits behind those who have waited meanwhile. Not reentrant."""

class TurnLock:
    """Guards a pipeline, and counts how long it was held each time (`metrics.LOCK_HELD_SECONDS`)."""

    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...
