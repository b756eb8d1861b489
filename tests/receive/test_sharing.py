"""How connections share a server: the parts without I/O, by tables, and the registry over real sockets."""

from __future__ import annotations

import os
import random
import socket
import zlib
from collections import Counter
from operator import itemgetter

import pytest

from sampler_proxy.errors import MalformedRequest, RequestTooLarge
from sampler_proxy.receive import connections
from sampler_proxy.receive.conduct import Conduct
from sampler_proxy.receive.connections import BROKEN_OFF, Connections, peer_of, readable
from sampler_proxy.receive.in_flight import BytesInFlight
from sampler_proxy.receive.inflate import Inflation
from sampler_proxy.receive.places import Places
from sampler_proxy.receive.turns import Turns

# Places


@pytest.mark.parametrize(
    ("entered", "receiving"),
    [
        ("a" * 20, {"a": 4}),
        ("a" * 20 + "b" * 20, {"a": 4, "b": 2}),
        ("ab" * 20, {"a": 3, "b": 3}),
        ("a" * 20 + "b" * 20 + "c" * 20, {"a": 4, "b": 2, "c": 1}),
        ("a" * 20 + "bcdefghijk", {"a": 4, **dict.fromkeys("bcdefghijk", 1)}),
    ],
)
def test_who_has_places(entered: str, receiving: dict[str, int]) -> None:
    places: Places[int] = Places(8, 100, entered.__getitem__)
    for number in range(len(entered)):
        places.enter(number, 0.0)
    assert Counter(entered[number] for number in places.receiving) == receiving
    assert places.waiting == len(entered) - sum(receiving.values())


def test_of_a_crowd_the_longest_queue_loses_its_newest() -> None:
    places: Places[str] = Places(2, 3, itemgetter(0))
    for call in ("a0", "a1", "a2", "b0", "b1"):
        places.enter(call, 0.0)
    assert places.crowded() is None
    assert not places.enter("b2", 0.0)
    assert places.crowded() in ("a2", "b2")
    assert places.crowded() is None
    assert places.waiting == 3


def test_connections_that_wait_have_their_turn() -> None:
    places: Places[str] = Places(2, 100, itemgetter(0))
    for call in ("a0", "b0", "a1", "a2", "b1", "b2"):
        places.enter(call, 0.0)
    assert list(places.receiving) == ["a0", "b0"]
    order = []
    for leaving in ("a0", "b0", "a1", "b1"):
        assert places.leave(leaving)
        while (call_ := places.next(1.0)) is not None:
            order.append(call_)
    assert order == ["a1", "b1", "a2", "b2"]
    assert not places.leave("a0")
    assert places.older_than(0.5) == []
    assert places.older_than(1.5) == ["a2", "b2"]


def test_nothing_is_left_of_places() -> None:
    chance = random.Random(1)
    who = [chance.randrange(6) for _ in range(3000)]
    places: Places[int] = Places(5, 20, lambda call: who[call] if call >= 0 else str(call))
    waiting: set[int] = set()
    for number in range(3000):
        if not places.enter(number, 0.0):
            waiting.add(number)
            if (refused := places.crowded()) is not None:
                waiting.remove(refused)
        if waiting and chance.random() < 0.1:
            given_up = chance.choice(list(waiting))
            places.give_up(given_up)
            waiting.remove(given_up)
        if chance.random() < 0.7:
            places.leave(chance.choice(list(places.receiving)))
        while (call := places.next(0.0)) is not None:
            if chance.random() < 0.1:
                places.put_back(call)
                break
            waiting.remove(call)
        assert places.waiting == len(waiting)
    while places.receiving:
        places.leave(next(iter(places.receiving)))
        while places.next(0.0) is not None:
            pass
    assert (places.waiting, places._turns) == (0, {})
    for number in range(5000):  # other connections
        places.enter(~number, 0.0)
        places.leave(~number)
    assert len(places._connections) <= 1025


# Turns


def test_who_costs_much_has_fewer_turns() -> None:
    turns: Turns[int] = Turns()
    for number in range(12):
        turns.add("dear", number)
        turns.add("cheap", number)
    order = []
    for _ in range(12):
        who, _ = turns.take()
        order.append(who)
        turns.charge(who, 5.0 if who == "dear" else 1.0)
    assert order.count("dear") == 2
    turns.add("new", 0)
    assert [turns.take()[0] for _ in range(2)].count("new") == 1  # no later than after one other


def test_turns_keep_the_order_of_a_connection_and_forget_all() -> None:
    turns: Turns[int] = Turns()
    for number in range(5000):
        turns.add(number, number)
        turns.add(number, -number)
    seen: dict[object, list[int]] = {}
    while turns:
        who, item = turns.take()
        seen.setdefault(who, []).append(item)
        turns.charge(who, 1.0)
    assert seen == {number: [number, -number] for number in range(5000)}
    assert not turns._starts


# Conduct


@pytest.mark.parametrize(
    ("faults", "seconds", "good", "closed"),
    [(100, 0, 0, 0), (101, 0, 0, 1), (150, 6, 0, 0), (150, 4, 0, 1), (300, 0, 200, 0), (1010, 0, 0, 10)],
)
def test_faults_leak_and_are_made_up_for(faults: int, seconds: float, good: int, closed: int) -> None:
    conduct = Conduct(100, 10.0)
    found = 0
    for number in range(faults):
        found += conduct.fault("x", seconds * number / faults)
        if number < good:
            conduct.good("x")
    assert found == closed


def test_conduct_forgets() -> None:
    conduct = Conduct(100, 10.0)
    for number in range(10_000):
        conduct.fault(number, number / 10)
    assert len(conduct.levels) < 2000


# Bytes in flight


class Unhandled:
    """A call, as BytesInFlight sees it."""

    def __init__(self, peer: bytes) -> None:
        self.peer = peer
        self.whole = False
        self.size = 0
        self.mark: tuple[int, int] | None = None


def test_bytes_in_flight() -> None:
    received: dict[bytes, int | None] = {b"a": 1000, b"b": 0, b"c": None}
    account = BytesInFlight(received.__getitem__, 100)
    a = [Unhandled(b"a") for _ in range(3)]
    b, c = Unhandled(b"b"), Unhandled(b"c")
    calls = [a[0], b, a[1], c, a[2]]
    assert account.look(calls, []) == []  # what came before is not known to be in flight
    received.update({b"a": 1090, b"b": 9})
    assert account.look(calls, []) == []
    assert (account.peak(), account.peak()) == (99, 0)
    received[b"a"] = 1150
    a[1].whole, a[1].size = True, 70
    account.arrived(b"a", 70)
    assert account.look(calls, [a[1]]) == [a[0], a[2]]  # the one that is whole cannot be ended
    assert account.peak() == 159
    received[b"b"] = 95
    calls.remove(a[1])  # handled
    assert account.look(calls, []) == [b]
    for each in (a[0], a[2]):
        calls.remove(each)
    assert account.look([c], []) == []
    assert account.look([], []) == []
    assert account.watched == {}


def test_messages_that_wait_to_be_handled_are_in_flight_and_no_credit() -> None:
    """Call after call is begun while whole messages wait: what came before a call is not taken from what it holds."""
    received = {b"a": 0}
    account = BytesInFlight(received.__getitem__, 100)
    whole: list[Unhandled] = []
    for _ in range(5):
        call = Unhandled(b"a")
        account.look([call], whole)
        received[b"a"] += 90
        assert account.look([call], whole) == ([call] if whole else [])
        for each in whole:  # handled
            each.whole = False
        call.size, call.whole = 90, True
        account.arrived(b"a", 90)
        whole = [call]
        assert account.look([], whole) == []
        assert account.peak() >= 90


def test_a_stalled_call_is_ended_for_those_who_want_its_place_only() -> None:
    places: Places[str] = Places(8, 100, itemgetter(0))
    for number in range(6):  # a connection that has more than there is
        places.enter(f"a{number}", 0.0)
    for name in "bcd":  # others, with one call each
        places.enter(f"{name}0", 1.0)
    places.enter("b1", 1.0)
    assert places.waiting > 0
    assert places.holding_up(0.5) == [f"a{number}" for number in range(6) if f"a{number}" in places.receiving]
    ended = places.holding_up(9.0)
    assert "c0" not in ended
    assert "d0" not in ended
    while (call := places.next(2.0)) is not None:
        pass
    for each in [*places.receiving]:
        places.leave(each)
    while (call := places.next(2.0)) is not None:
        places.leave(call)
    assert places.waiting == 0
    assert places.holding_up(9.0) == []


# Connections


@pytest.mark.parametrize(
    ("address", "peer", "shown"),
    [
        (("127.0.0.1", 42), b"ipv4:127.0.0.1:42", "127.0.0.1:42"),
        (("::ffff:10.1.2.3", 42, 0, 0), b"ipv4:10.1.2.3:42", "10.1.2.3:42"),
        (("::1", 42, 0, 0), b"ipv6:%5B::1%5D:42", "[::1]:42"),
        (("fe80::1%eth0", 42, 0, 3), b"ipv6:%5Bfe80::1%253%5D:42", "[fe80::1%3]:42"),
    ],
)
def test_peers_as_core_names_them(address: tuple[object, ...], peer: bytes, shown: str) -> None:
    assert peer_of(address) == peer
    assert readable(peer) == shown


def pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        return client, listener.accept()[0]


def test_what_a_connection_has_received_and_that_it_has_gone() -> None:
    known = Connections()
    client, server = pair()
    with client, server:
        known.add(server)
        peer = peer_of(client.getsockname())
        client.sendall(b"x" * 1000)
        server.recv(1000, socket.MSG_WAITALL)
        assert known.bytes_received(peer) == 1000
        assert known.bytes_received(b"ipv4:127.0.0.1:1") is None
        number = server.fileno()
        server.close()
        stranger = os.open(os.devnull, os.O_RDONLY)
        if stranger != number:
            os.dup2(stranger, number)  # has the number now
            os.close(stranger)
        assert known.bytes_received(peer) is None
        assert not known.close(peer, BROKEN_OFF)
        os.close(number)
    assert (known._numbers, known._peers) == ({}, {})


def test_a_number_that_comes_back() -> None:
    known = Connections()
    for _ in range(100):
        client, server = pair()
        with client, server:
            known.add(server)
    assert len(known._numbers) == len(known._peers) == 1


def test_a_connection_is_closed_with_a_reason() -> None:
    known = Connections()
    client, server = pair()
    with client, server:
        known.add(server)
        assert known.close(peer_of(client.getsockname()), BROKEN_OFF)
        frame = client.makefile("rb").read()
        assert frame[:9] == len(frame[9:]).to_bytes(3, "big") + b"\7" + bytes(5)
        assert frame[13:17] == b"\0\0\0\x0b"  # ENHANCE_YOUR_CALM
        assert frame[17:].decode() == connections._REASONS[BROKEN_OFF]
        assert server.recv(1) == b""
        assert not known.close(peer_of(client.getsockname()), BROKEN_OFF)  # once is enough


# Inflating in two steps


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 5000, 100_000])
@pytest.mark.parametrize("most", [1, 100, 5000])
def test_inflating_in_two_steps(size: int, most: int) -> None:
    plain = (b"abcdefg" * size)[:size]
    inflation = Inflation(zlib.compress(plain), 50_000)
    assert inflation.begin(most) in {size <= most, size < most}  # whether it has ended is seen one byte later
    if size > 50_000:
        with pytest.raises(RequestTooLarge):
            inflation.finish()
    else:
        assert inflation.finish() == plain


@pytest.mark.parametrize("most", [10, 100_000])
def test_damage_in_either_step(most: int) -> None:
    packer = zlib.compressobj(wbits=31)
    whole = packer.compress(b"hello" * 1000) + packer.flush()
    for damaged in (whole[:-1], whole + b"\0", whole[:30], b"\x1f\x8b"):
        inflation = Inflation(damaged, 50_000)
        inflation.begin(most)
        with pytest.raises(MalformedRequest):
            inflation.finish()
    inflation = Inflation(b"\x78\x9c not zlib", 50_000)
    inflation.begin(most)
    assert inflation.finish() == b"\x78\x9c not zlib"
