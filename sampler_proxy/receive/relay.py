"""Passes bytes between clients and gRPC core where core cannot have the client's own socket, on a thread of its own:

    where the names of compressions are changed on the way (recoding.py), and where they may have to be, since a client
    has connected and does not call yet;
    for unix sockets, whose clients have no address: what core is given instead has one, by which connections are told
    from each other (places.py, connections.py).

A connection has at most READ_BYTES in each direction here; whoever does not read is not read from.
"""

from __future__ import annotations

import resource
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import structlog

from sampler_proxy.receive.recoding import NotHttp2, Recoder
from sampler_proxy.receive.throttle import Throttle

MAX_UNDECIDED = 2048
"""Connections here from which on those that only may need it are not taken, or an eighth of the descriptors that this
process may have, where that is less: each costs two more."""

READ_BYTES = 128 * 1024
"""What is read at once."""

END_S = 0.5
"""How long the last answers may take once core has closed all connections."""

_PAUSE_S = 0.1

log = structlog.get_logger()


class Relayed:
    """A connection that is relayed: the client's socket, and the one that core has the other end of."""

    def __init__(self, client: socket.socket, inner: socket.socket, peer: str, recoder: Recoder | None) -> None:
        self.peer = peer
        """The client, to be logged."""
        self.received = 0
        """Bytes that have come from it."""
        self.client = client
        self.inner = inner
        self._recoder = recoder
        self._inward = self._outward = memoryview(b"")  # what has been read and not been written
        self._inward_ended = self._outward_ended = False

    @property
    def over(self) -> bool:
        """Tell whether nothing can come to the client any more."""
        return self._outward_ended and not self._outward

    def wishes(self) -> tuple[int, int]:
        """Return the events that are waited for: at the client's socket, and at the inner one."""
        read, write = selectors.EVENT_READ, selectors.EVENT_WRITE
        inward = self._inward_ended or bool(self._inward)
        outward = self._outward_ended or bool(self._outward)
        return (
            (0 if inward else read) | (write if self._outward else 0),
            (0 if outward else read) | (write if self._inward else 0),
        )

    def move(self) -> None:
        """Pass on what there is. Raises OSError where the client has gone, and NotHttp2."""
        with suppress(BlockingIOError, InterruptedError):
            self._move_outward()
        with suppress(BlockingIOError, InterruptedError):
            self._move_inward()

    def _move_outward(self) -> None:
        if not self._outward and not self._outward_ended:
            try:
                self._outward = memoryview(self.inner.recv(READ_BYTES))
            except ConnectionError:
                self._outward = memoryview(b"")
            self._outward_ended = not self._outward
        if self._outward:
            self._outward = self._outward[self.client.send(self._outward) :]

    def _move_inward(self) -> None:
        self._move_some_inward()
        while self._recoder is not None and self._recoder.more and not self._inward:
            self._inward = memoryview(self._recoder.receive(b""))
            self._move_some_inward()

    def _move_some_inward(self) -> None:
        more = self._recoder is not None and self._recoder.more
        if not self._inward and not self._inward_ended and not more:
            data = self.client.recv(READ_BYTES)
            self.received += len(data)
            self._inward_ended = not data
            self._inward = memoryview(data if self._recoder is None else self._recoder.receive(data))
            more = self._recoder is not None and self._recoder.more
        try:
            if self._inward:
                self._inward = self._inward[self.inner.send(self._inward) :]
            if self._inward_ended and not self._inward and not more:
                self.inner.shutdown(socket.SHUT_WR)
        except (BlockingIOError, InterruptedError):
            raise
        except OSError:  # core has closed its end; what it has written before is still to come
            self._inward, self._inward_ended = memoryview(b""), True

    def close(self) -> None:
        self.client.close()
        self.inner.close()


class Relay:
    """The thread, which begins with the first connection. `hand_over(listener, inner, received, relayed)` gives core an
    end of a connection that is relayed, and what has been read of it."""

    def __init__(self, hand_over: Callable[[socket.socket, socket.socket, bytes, Relayed], None]) -> None:
        self._hand_over = hand_over
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most = MAX_UNDECIDED
        if descriptors != resource.RLIM_INFINITY:
            self._most = min(MAX_UNDECIDED, descriptors // 8)
        self._new: deque[Relayed] = deque()
        self._here: dict[Relayed, None] = {}
        self._end_s: float | None = None
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake = socket.socketpair()
        self._woken.setblocking(False)
        self._dropped = Throttle()
        self._thread = threading.Thread(target=self._serve, name="grpc-relay", daemon=True)

    @property
    def alive(self) -> bool:
        """Tell whether the thread runs, or need not."""
        return self._thread.ident is None or self._thread.is_alive()

    @property
    def has_room(self) -> bool:
        """Tell whether a connection should be relayed that may do without."""
        return len(self._here) + len(self._new) < self._most

    def add(
        self, listener: socket.socket, client: socket.socket, received: bytes, peer: str, recoder: Recoder | None
    ) -> None:
        """Relay an accepted, non-blocking connection, of which `received` has been read (not nothing); core is given
        its end at once. Called by one thread. Raises OSError, and NotHttp2; the connection is then still the caller's.
        """
        ours, cores = socket.socketpair()
        with ours, cores:
            for end in (ours, cores):
                end.setblocking(False)
            ours.bind("")  # an abstract address that nobody else has (unix(7): autobind)
            relayed = Relayed(client, ours, peer, recoder)
            relayed.received = len(received)
            first = received if recoder is None else recoder.receive(received)
            self._hand_over(listener, cores, first, relayed)
            relayed.client, relayed.inner = _taken(client), _taken(ours)
        self._new.append(relayed)
        if self._thread.ident is None:
            self._selector.register(self._woken, selectors.EVENT_READ)
            self._thread.start()
        self._wake.send(b"\0")

    def close(self) -> None:
        """End the thread once core has closed all its ends and the clients have been given what it has written, or in
        END_S; blocks for that. Nothing is added any more."""
        if self._end_s is None:
            self._end_s = time.monotonic() + END_S
            if self._thread.ident is not None:
                with suppress(OSError):
                    self._wake.send(b"\0")
                self._thread.join()
            for each in (self._woken, self._wake, self._selector):
                each.close()

    def _serve(self) -> None:
        while not self._done():
            try:
                for key, _ in self._selector.select(None if self._end_s is None else _PAUSE_S):
                    if key.data is None:
                        self._begin()
                    elif key.data in self._here:
                        self._move(key.data)
            except Exception:  # for want of memory, most likely
                time.sleep(_PAUSE_S)
        for relayed in list(self._here):
            self._drop(relayed)

    def _done(self) -> bool:
        if self._end_s is None:
            return False
        return time.monotonic() >= self._end_s or not (self._here or self._new)

    def _begin(self) -> None:
        with suppress(BlockingIOError):
            self._woken.recv(4096)
        while self._new:
            relayed = self._new.popleft()
            self._here[relayed] = None
            self._move(relayed)

    def _move(self, relayed: Relayed) -> None:
        try:
            relayed.move()
            if relayed.over:
                self._drop(relayed)
            else:
                for end, wish in zip((relayed.client, relayed.inner), relayed.wishes(), strict=True):
                    self._wait(relayed, end, wish)
        except (OSError, NotHttp2):
            self._drop(relayed)
        except Exception as error:
            self._drop(relayed)
            if (held_back := self._dropped.due()) is not None:
                log.warning(f"grpc: a connection was dropped{held_back}", peer=relayed.peer, error=type(error).__name__)

    def _wait(self, relayed: Relayed, end: socket.socket, wish: int) -> None:
        """Have the selector wait for what is wished for at one end."""
        found = self._selector.get_map().get(end)
        if found is None:
            if wish:
                self._selector.register(end, wish, relayed)
        elif not wish:
            self._selector.unregister(end)
        elif found.events != wish:
            self._selector.modify(end, wish, relayed)

    def _drop(self, relayed: Relayed) -> None:
        self._here.pop(relayed, None)
        for end in (relayed.client, relayed.inner):
            with suppress(KeyError, ValueError):
                self._selector.unregister(end)
        relayed.close()


def _taken(connection: socket.socket) -> socket.socket:
    """Return a socket that owns what `connection` has owned."""
    return socket.socket(fileno=connection.detach())
