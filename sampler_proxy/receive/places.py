"""Shares the places of a server among connections: who is received now, who waits, who is refused. No I/O.

Three rules, so that no connection can take anything from another, however many calls it opens or never finishes:

    a connection of which nothing is being received is received at once, whatever the others hold;
    beyond that a connection may have as many places as are left for all (the dynamic threshold of Choudhury and Hahne,
    1998): one alone has half of them, two have a third each, and something is always left for who comes next;
    what waits does so behind calls of its own connection, and connections have their turn one after the other. Where
    too many wait, the newest call of the connection with the most of them is refused (longest queue drop).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Call = TypeVar("Call", bound=Hashable)


_IDLE = 1024
"""How often connections may come to have nothing here, before those that have nothing are looked for."""


class _Connection(Generic[Call]):
    """Counts what one connection has of the places."""

    __slots__ = ("receiving", "waiting")

    def __init__(self) -> None:
        self.receiving = 0
        self.waiting: deque[Call] = deque()


class Places(Generic[Call]):
    """The places of one server. Used by one thread. `max_receiving` places are shared, beside each connection's first;
    `max_waiting` calls may wait in all. `connection_of(call)` tells which connection a call has come by."""

    def __init__(self, max_receiving: int, max_waiting: int, connection_of: Callable[[Call], Hashable]) -> None:
        self._max_receiving = max_receiving
        self._max_waiting = max_waiting
        self._connection_of = connection_of
        self.receiving: dict[Call, float] = {}
        """The calls that have a place, oldest first, and since when (seconds)."""
        self.waiting = 0
        """How many wait."""
        self._few = max_receiving // 8
        self._counting = False  # while there are few calls, nobody asks whose they are
        self._connections: dict[Hashable, _Connection[Call]] = {}  # while counting
        self._idle = 0  # times that a connection had nothing here any more
        self._turns: dict[Hashable, _Connection[Call]] = {}  # those of which something waits; whose turn it is, first

    def enter(self, call: Call, now_s: float) -> bool:
        """Take a new call. True: it has a place. False: it waits; ask `crowded` then."""
        if not self._counting:
            self.receiving[call] = now_s
            if len(self.receiving) >= self._few:
                self._count()
            return True
        connection = self._connection_of(call)
        its = self._connections.get(connection)
        if its is None:
            its = self._connections[connection] = _Connection()
        if not its.receiving or (not its.waiting and self._may(its)):
            self.receiving[call] = now_s
            its.receiving += 1
            return True
        its.waiting.append(call)
        self._turns[connection] = its
        self.waiting += 1
        return False

    def hold(self, call: Call, now_s: float) -> None:
        """Give a call a place whatever others have, such as one that has been served in part."""
        self.receiving[call] = now_s
        if self._counting:
            self._connections.setdefault(self._connection_of(call), _Connection()).receiving += 1

    def _count(self) -> None:
        """Begin to count what each connection has."""
        self._counting = True
        for call in self.receiving:
            self._connections.setdefault(self._connection_of(call), _Connection()).receiving += 1

    def _may(self, its: _Connection[Call]) -> bool:
        """Tell whether a connection may have one more place."""
        return its.receiving == 0 or its.receiving < self._max_receiving - len(self.receiving)

    def crowded(self) -> Call | None:
        """Return a call that has to be refused since too many wait, and forget it; None where there is room."""
        if self.waiting <= self._max_waiting:
            return None
        connection, its = max(self._turns.items(), key=lambda each: len(each[1].waiting))
        call = its.waiting.pop()
        self._waits_no_more(connection, its)
        return call

    def leave(self, call: Call) -> bool:
        """Take back the place of a call; False where it has none."""
        if self.receiving.pop(call, None) is None:
            return False
        if not self._counting:
            return True
        its = self._connections[self._connection_of(call)]
        its.receiving -= 1
        if not its.receiving and not its.waiting:
            self._forget_idle()
        if not self.waiting and len(self.receiving) <= self._few // 2:
            self._counting = False
            self._connections.clear()
        return True

    def next(self, now_s: float) -> Call | None:
        """Give a place to the waiting call whose turn it is, and return the call; None where none may have one."""
        for connection, its in self._turns.items():
            if self._may(its):
                call = its.waiting[0]
                self.receiving[call] = now_s
                its.waiting.popleft()
                its.receiving += 1
                self._waits_no_more(connection, its)
                return call
        return None

    def _waits_no_more(self, connection: Hashable, its: _Connection[Call]) -> None:
        """Count a call that has left its queue, whose connection then has its next turn after all others."""
        self.waiting -= 1
        del self._turns[connection]
        if its.waiting:
            self._turns[connection] = its
        elif not its.receiving:
            self._forget_idle()

    def _forget_idle(self) -> None:
        """Forget connections that have nothing here, now and then: most come back at once."""
        self._idle += 1
        if self._idle > _IDLE and self._idle > 2 * len(self.receiving):
            self._connections = {each: its for each, its in self._connections.items() if its.receiving or its.waiting}
            self._idle = 0

    def put_back(self, call: Call) -> None:
        """Let a call that `next` has returned wait on, before all others of its connection."""
        del self.receiving[call]
        connection = self._connection_of(call)
        its = self._connections[connection]
        its.receiving -= 1
        its.waiting.appendleft(call)
        self._turns[connection] = its
        self.waiting += 1

    def give_up(self, call: Call) -> None:
        """Forget a call that waits."""
        connection = self._connection_of(call)
        its = self._connections[connection]
        its.waiting.remove(call)
        self._waits_no_more(connection, its)

    def holding_up(self, since_s: float) -> list[Call]:
        """Return the calls that have had their places since before `since_s` while others wait for them: those of a
        connection of which something waits, and what others have beyond their first."""
        if not self.waiting:
            return []
        found = []
        left = {connection: its.receiving for connection, its in self._connections.items()}
        for call in self.older_than(since_s):
            connection = self._connection_of(call)
            if left[connection] > 1 or self._connections[connection].waiting:
                found.append(call)
                left[connection] -= 1
        return found

    def older_than(self, since_s: float) -> list[Call]:
        """Return the calls that have had their places since before `since_s`, oldest first."""
        found = []
        for call, since in self.receiving.items():
            if since >= since_s:
                break
            found.append(call)
        return found
