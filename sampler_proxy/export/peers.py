"""Uses the addresses behind a destination's name in turn, and leaves those alone that do not answer.

Each address has a gRPC channel of its own, so that it is known which one a request went to: gRPC's own policies would
stay with an address that accepts connections and never answers. The name is resolved again every RESOLVE_EVERY_S, and
sooner when requests fail; requests under way on an address that is gone are finished.

On one event loop. Nothing here raises for a back end's sake.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import grpc
import grpc.aio

RESOLVE_EVERY_S = 60.0
RESOLVE_AGAIN_S = 5.0
"""While requests fail, the name is resolved no more often than this."""

RESOLVE_TIMEOUT_S = 10.0

MAX_PEERS = 64
"""Of so many addresses of a name the first ones are used."""

TIMEOUTS = 2
"""After so many time-outs in succession an address is connected to anew; then it has to show that it speaks HTTP/2."""

REST_NS = (10**9, 30 * 10**9)
"""An address that failed rests so long while there are others, doubled with each further failure up to the second."""

Call = Callable[..., Awaitable[bytes]]


@dataclass(eq=False)
class Peer:
    """One address. `failures` and `timeouts`: requests in succession."""

    target: str
    channel: grpc.aio.Channel
    call: Call
    failures: int = 0
    timeouts: int = 0
    rests_until_ns: int = 0


async def resolve(host: str, port: int) -> list[str]:
    """Resolve a name into gRPC targets. Raises OSError, or UnicodeError for what cannot be a name."""
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    targets = {
        f"ipv6:%5B{address[0]}%5D:{port}" if family == socket.AF_INET6 else f"ipv4:{address[0]}:{port}": None
        for family, _, _, _, address in infos
        if family in (socket.AF_INET, socket.AF_INET6)
    }
    return list(targets)


@dataclass
class Peers:
    """The addresses of one name. `open_channel` makes a channel to a target; `method` is called on it."""

    host: str
    port: int
    method: str
    open_channel: Callable[[str], grpc.aio.Channel]
    clock: Callable[[], int]
    linger_s: float  # how long requests may take that are under way on a channel that is given up
    fixed_target: str | None = None  # used instead of the name's addresses: a proxy resolves by itself
    _peers: list[Peer] = field(default_factory=list)
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
                targets = [self.fixed_target] if self.fixed_target else await resolve(self.host, self.port)
        except (OSError, UnicodeError):  # TimeoutError is an OSError
            return
        known = {peer.target: peer for peer in self._peers}
        peers = [known.pop(target) if target in known else self._new(target) for target in targets[:MAX_PEERS]]
        if peers:
            self._peers = peers
            for gone in known.values():
                self._give_up(gone.channel)

    def renew(self) -> None:
        """Connect to every peer anew; requests under way are finished. To be called when `open_channel` has changed."""
        for peer in self._peers:
            self._reopen(peer)

    def uses(self, peer: Peer, channel: grpc.aio.Channel | None = None) -> bool:
        """Tell whether a peer is in use; with `channel`: by this one, and not by another that was opened since."""
        return peer in self._peers and channel in (None, peer.channel)

    async def candidates(self) -> list[Peer]:
        """Return the peers in the order in which to try them, those that rest last; none: the name does not resolve."""
        if not self._peers:
            await self.refresh()
        if not self._peers:
            return []
        self._turn = (self._turn + 1) % len(self._peers)
        turned = self._peers[self._turn :] + self._peers[: self._turn]
        return sorted(turned, key=self._rests)

    def _rests(self, peer: Peer) -> bool:
        """Tell whether a peer is better left alone: it has failed, and since then neither rested nor connected."""
        if peer.failures == 0:
            return False
        if peer.rests_until_ns > self.clock():
            return True
        return peer.channel.get_state(try_to_connect=True) is not grpc.ChannelConnectivity.READY

    def answered(self, peer: Peer, channel: grpc.aio.Channel) -> None:
        """Note that a peer has answered, whatever it said. What comes over a channel that was given up says nothing
        about the one that is used now."""
        if not self.uses(peer, channel):
            return
        peer.failures = peer.timeouts = 0

    def failed(self, peer: Peer, channel: grpc.aio.Channel, *, timeout: bool) -> None:
        """Note that a peer has not answered over `channel`; `timeout`: though it was connected."""
        if not self.uses(peer, channel):
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
        await asyncio.gather(*tasks, *(peer.channel.close() for peer in self._peers), return_exceptions=True)

    def _new(self, target: str) -> Peer:
        channel = self.open_channel(target)
        return Peer(target, channel, channel.unary_unary(self.method))  # bytes in, bytes out

    def _reopen(self, peer: Peer) -> None:
        before = peer.channel
        fresh = self._new(peer.target)
        peer.channel, peer.call = fresh.channel, fresh.call
        self._give_up(before)

    def _give_up(self, channel: grpc.aio.Channel) -> None:
        async def linger() -> None:
            await channel.close(self.linger_s)

        task = asyncio.get_running_loop().create_task(linger())
        self._lingering.add(task)
        task.add_done_callback(self._lingering.discard)
