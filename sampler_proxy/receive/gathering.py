"""Decides whether messages are handled as they come, or gathered first so that connections have their turns. No I/O."""

from __future__ import annotations

SLICE_S = 0.002
"""How long a message may take before it is looked what else has come; and how long gathered ones are handled between
two such looks."""

DEAR_S, MAX_DEAR_S = 0.00025, 0.005
"""Messages that are there one after the other may take DEAR_S each, and MAX_DEAR_S more in all. That look costs a tenth
of a small one."""


class Gathering:
    """Tells whether messages are gathered (`on`), and until when before some of them are handled. In seconds."""

    def __init__(self) -> None:
        self.on = False
        self.until_s = 0.0
        self.dear_s = 0.0
        """What messages that came without a pause have taken beyond DEAR_S each; while it is 0, only dear ones have to
        be weighed."""
        self._last_s = 0.0

    def weigh(self, since_s: float, now_s: float) -> None:
        """Decide by what a message has taken whether those that follow are gathered."""
        if since_s - self._last_s > SLICE_S / 2:
            self.dear_s = 0.0
        self._last_s = now_s
        self.dear_s = max(0.0, self.dear_s + now_s - since_s - DEAR_S)
        if now_s - since_s > SLICE_S or self.dear_s > MAX_DEAR_S:
            self.on, self.until_s = True, now_s + SLICE_S
