"""Uses the addresses behind a destination's name in turn, and leaves those alone that do not answer.

Each address has a link of its own (a gRPC channel, or a pool of HTTP connections), so that it is known which one a
request went to: gRPC's own policies would stay with an address that accepts connections and never answers. The name is
resolved again every RESOLVE_EVERY_S, and sooner when requests fail; requests under way on an address that is gone are
finished.

On one event loop. Nothing here raises for a back end's sake.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

RESOLVE_EVERY_S = 60.0
RESOLVE_AGAIN_S = 5.0
"""While requests fail, the name is resolved no more often than this."""

RESOLVE_TIMEOUT_S = 10.0

MAX_PEERS = 64
"""Of so many addresses of a name the first ones are used."""

TIMEOUTS = 2
"""After so many time-outs in succession an address is connected to anew; then it has to show that it speaks the
protocol."""

REST_NS = (10**9, 30 * 10**9)
"""An address that failed rests so long while there are others, doubled with each further failure up to the second."""


class Link(Protocol):
    """Connects to one address."""

    @property
    def ready(self) -> bool:
        """Tell whether a request need not fear to find no connection."""

    async def close(self, grace_s: float | None = None) -> None:
        """Close once the requests under way have ended, or after `grace_s`; None: at once."""


L = TypeVar("L", bound=Link)


@dataclass(eq=False)
class Peer(Generic[L]):
    """One address; None: the name itself, behind a proxy. `failures` and `timeouts`: requests in succession."""

    address: str | None
    link: L
    failures: int = 0
    timeouts: int = 0
    rests_until_ns: int = 0


async def resolve(host: str, port: int) -> list[str]:
    """Resolve a name into addresses. Raises OSError, or UnicodeError for what cannot be a name."""
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    found = (address[0] for family, _, _, _, address in infos if family in (socket.AF_INET, socket.AF_INET6))
    return list(dict.fromkeys(map(str, found)))


@dataclass
class Peers(Generic[L]):
    """The addresses of one name. `open_link` makes a link to an address, without connecting yet."""

    host: str
    port: int
    open_link: Callable[[str | None], L]
    clock: Callable[[], int]
    linger_s: float  # how long requests may take that are under way on a link that is given up
    by_name: bool = False  # a proxy resolves by itself
    _peers: list[Peer[L]] = field(default_factory=list)
    _turn: int = 0
    _asked: asyncio.Event = field(default_factory=asyncio.Event)
    _lingering: set[asyncio.Task[None]] = field(default_factory=set)
    _refreshing: asyncio.Task[None] | None = None

    async def follow(self) -> None:
        """Keep the addresses up to date, for as long as the destination is used."""
        while True:
            self._asked.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(RESOLVE_EVERY_S):
                    await self._asked.wait()
                    await asyncio.sleep(RESOLVE_AGAIN_S)
            await self.refresh()

    async def refresh(self) -> None:
        """Resolve the name, once for all who ask meanwhile; where that fails the known addresses stay."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.get_running_loop().create_task(self._refresh())
        await asyncio.shield(self._refreshing)

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(RESOLVE_TIMEOUT_S):
                addresses: list[str | None] = [None] if self.by_name else [*await resolve(self.host, self.port)]
        except (OSError, UnicodeError):  # TimeoutError is an OSError
            return
        known = {peer.address: peer for peer in self._peers}
        peers = [
            known.pop(address) if address in known else Peer(address, self.open_link(address))
            for address in addresses[:MAX_PEERS]
        ]
        if peers:
            self._peers = peers
            for gone in known.values():
                self._give_up(gone.link)

    def renew(self) -> None:
        """Connect to every peer anew; requests under way are finished. For when what `open_link` makes has changed."""
        for peer in self._peers:
            self._reopen(peer)

    def uses(self, peer: Peer[L], link: L | None = None) -> bool:
        """Tell whether a peer is in use; with `link`: by this one, and not by another that was opened since."""
        return peer in self._peers and link in (None, peer.link)

    async def candidates(self) -> list[Peer[L]]:
        """Return the peers in the order in which to try them, those that rest last; none: the name does not resolve."""
        if not self._peers:
            await self.refresh()
        if not self._peers:
            return []
        self._turn = (self._turn + 1) % len(self._peers)
        turned = self._peers[self._turn :] + self._peers[: self._turn]
        return sorted(turned, key=self._rests)

    def _rests(self, peer: Peer[L]) -> bool:
        """Tell whether a peer is better left alone: it has failed, and since then neither rested nor connected."""
        if peer.failures == 0:
            return False
        if peer.rests_until_ns > self.clock():
            return True
        return not peer.link.ready

    def answered(self, peer: Peer[L], link: L) -> None:
        """Note that a peer has answered, whatever it said. What comes over a link that was given up says nothing
        about the one that is used now."""
        if not self.uses(peer, link):
            return
        peer.failures = peer.timeouts = 0

    def failed(self, peer: Peer[L], link: L, *, timeout: bool) -> None:
        """Note that a peer has not answered over `link`; `timeout`: though it was connected."""
        if not self.uses(peer, link):
            return
        peer.timeouts += timeout
        self._asked.set()
        if timeout and peer.timeouts < TIMEOUTS:
            return
        peer.failures += 1
        first_ns, longest_ns = REST_NS
        peer.rests_until_ns = self.clock() + min(longest_ns, first_ns << min(peer.failures - 1, 10))
        if timeout:
            peer.timeouts = 0
            self._reopen(peer)

    async def close(self) -> None:
        """End every connection, at once."""
        tasks = [*self._lingering, *([self._refreshing] if self._refreshing else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *(peer.link.close() for peer in self._peers), return_exceptions=True)

    def _reopen(self, peer: Peer[L]) -> None:
        before = peer.link
        peer.link = self.open_link(peer.address)
        self._give_up(before)

    def _give_up(self, link: L) -> None:
        async def linger() -> None:
            await link.close(self.linger_s)

        task = asyncio.get_running_loop().create_task(linger())
        self._lingering.add(task)
        task.add_done_callback(self._lingering.discard)
