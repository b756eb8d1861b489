"""Logs what goes wrong with requests through no fault of their senders, for every protocol alike."""

from __future__ import annotations

import os
from contextlib import suppress

import structlog

from sampler_proxy.receive.throttle import Throttle

log = structlog.get_logger()


class FailureLog:
    """Logs the failures of one receiver, `protocol`. From any thread: at worst a line comes twice."""

    def __init__(self, protocol: str) -> None:
        self._protocol = protocol
        self._out_of_memory = Throttle()
        self._logged: set[str] = set()

    def out_of_memory(self) -> None:
        """Log that there was no memory for a request; not at all where there is none for that."""
        with suppress(MemoryError):
            if (more := self._out_of_memory.due()) is not None:
                log.error(
                    "out of memory: the request was refused, to be sent again; lower buffer.max_bytes, or allow this "
                    f"process more memory{more}"
                )

    def unexpected(self, error: Exception) -> None:
        """Log the first error of a kind, by class and place only: its text may quote the bytes that caused it."""
        traceback = error.__traceback__
        while traceback is not None and traceback.tb_next is not None:
            traceback = traceback.tb_next
        where = ""
        if traceback is not None:
            where = f"{os.path.basename(traceback.tb_frame.f_code.co_filename)}:{traceback.tb_lineno}"
        key = f"{type(error).__name__} at {where}"
        if key not in self._logged:
            self._logged.add(key)
            log.error(
                f"{self._protocol} request failed; further ones of this kind are only counted",
                error=type(error).__name__,
                where=where,
            )
