"""One row for each attack: what it makes of the proxy's memory, of a neighbour, of the lock, of /healthz, and for how
long. `pytest -s` prints the rows. All attacks come without credentials, over few connections."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from tests.hostile import connections, contents, http1
from tests.hostile.rows import (
    BUFFER,
    CALLS,
    CONNECTION_P99_S,
    CONTENT_P99_S,
    KEPT,
    MIB,
    RECEIVED,
    WAITS,
    Attack,
    Row,
    Scene,
)

KEEP_NONE: Mapping[str, Any] = {"rules": []}
REDACT: Mapping[str, Any] = {"redact": {"preset": "common"}}
LARGE: Mapping[str, Any] = {"rules": [{"name": "events", "match": '{ event:name = "x" }', "keep": "all"}]}
ROOMY: Mapping[str, Any] = {"buffer": {"max_bytes": BUFFER + 768 * MIB, **WAITS}}
NEARLY: Mapping[str, Any] = {"rules": [{"name": "errors", "match": "{ status = error }", "keep": "99%"}]}
PAIRS: Mapping[str, Any] = {"rules": [{"name": "pairs", "match": "{ event.k = link.k }", "keep": "all"}]}
AGGREGATES: Mapping[str, Any] = {
    "rules": [
        {"name": f"aggregate {n}", "match": f"{{ }} | avg(duration) > {n + 1000}s", "keep": "50%"} for n in range(20)
    ]
}


def _regexes(count: int) -> Mapping[str, Any]:
    rules = [
        {"name": f"regex {n}", "match": f'{{ span.k =~ ".*/orders/.*{n}x.*/items/[0-9]+y" }}', "keep": "50%"}
        for n in range(count)
    ]
    return {"rules": rules}


def _connection(name: str, prepare: Callable[..., Any], *arguments: Any, bound: int = CALLS) -> Attack:
    return Attack(name, prepare, arguments, CONNECTION_P99_S, bound, KEEP_NONE)


def _content(
    name: str,
    prepare: Callable[..., Any],
    *arguments: Any,
    settings: Mapping[str, Any] | None = None,
    bound: int = RECEIVED + KEPT,
    **more: Any,
) -> Attack:
    return Attack(name, prepare, arguments, CONTENT_P99_S, bound, settings or {}, **more)


BY_CONTENT: Mapping[str, Any] = {"p99_s": CONTENT_P99_S, "bound": RECEIVED + KEPT}


def _http(
    name: str,
    prepare: Callable[..., Any],
    *arguments: Any,
    bound: int = CALLS,
    p99_s: float = CONNECTION_P99_S,
    **more: Any,
) -> Attack:
    return Attack(f"HTTP: {name}", prepare, arguments, p99_s, bound, KEEP_NONE, http=True, **more)


SHORT = (
    _connection("1 x 1000 messages of 60 MB that never end", connections.endless, 1, 1000, 60_000_000, 100),
    _connection("rapid reset, read", connections.flood, connections.resets, True),
    _connection("answers unread", connections.flood, connections.empty, False),
    _connection("pings, unread", connections.flood, connections.pings, False),
    _content("redaction: 10 000 errors, one 834 kB resource", contents.shared_header, 10_000, 834_000, settings=REDACT),
    _content("gzip bombs of 64 MB, 20 a second", contents.bombs, "gzip", 64_000_000, 0.05),
    _content("zstd bombs of 64 MB, 20 a second", contents.bombs, "zstd", 64_000_000, 0.05),
    _http("1000 slow bodies, 100 kB each", http1.slow_bodies, 1000, 100_000, bound=RECEIVED),
    _http("gzip bombs of 64 MB, 20 a second", http1.bombs, "gzip", 64_000_000, 0.05, **BY_CONTENT),
)
HEAVY = (
    _content("snappy bombs of 64 MB, 5 a second", contents.bombs, "snappy", 64_000_000, 0.2),
    _connection("16 x 64 messages of 60 MB that never end", connections.endless, 16, 64, 60_000_000, 100),
    _connection("64 x 30 MB unfinished", connections.endless, 1, 64, 31_000_000, 30_000_000, bound=RECEIVED),
    _connection("rapid reset, unread", connections.flood, connections.resets, False),
    _connection("calls begun, read", connections.flood, connections.begun, True),
    _connection("calls begun, unread", connections.flood, connections.begun, False),
    _connection("windows closed", connections.flood, connections.empty, True, 4, connections.CLOSED),
    _connection("pings, read", connections.flood, connections.pings, True),
    _connection("SETTINGS, read", connections.flood, connections.settings, True),
    _connection("SETTINGS, unread", connections.flood, connections.settings, False),
    _connection("CONTINUATION", connections.flood, connections.continuations, True),
    _connection("1000 idle connections", connections.idle, 1000),
    _content(
        "64 MB of one-span errors",
        contents.one_span_errors,
        64 * MIB,
        settings=ROOMY,
        bound=RECEIVED + KEPT + 768 * MIB,
    ),
    _content("8000 members in 1900 tracestates", contents.tracestates, 1900, 8000, settings=NEARLY),
    _content("damaged text 44 deep in 100 000 spans", contents.deep_damage, 100_000, 44),
    _content(
        "5000 resources of 60 kB, back end of 4 MiB", contents.many_headers, 1000, 60_000, 5, backend_limit=4 * MIB
    ),
    _content("redaction: 2000 errors, one 6 MB resource", contents.shared_header, 2000, 6_000_000, settings=REDACT),
    _content("redaction: 100 000 new e-mails", contents.new_emails, 100_000, settings=REDACT),
    _content("redaction: 500 x 15 kB JSON in JSON in JSON", contents.escaped_json, 500, 15_000, settings=REDACT),
    _content("redaction: 900 000 small values", contents.small_values, 900_000, settings=REDACT),
    _content("128 x 128 event.k = link.k in 2000 spans", contents.pairs, 2000, 128, settings=PAIRS),
    _content("64 MB of empty events", contents.empty_events, 64_000_000, settings=LARGE),
    _content("20 regexes, 100 000 values", contents.distinct_values, 100_000, settings=_regexes(20)),
    _content("100 regexes, 100 000 values", contents.distinct_values, 100_000, settings=_regexes(100)),
    _http("1000 slow heads", http1.slow_heads, 1000),
    _http("10 000 idle connections", http1.idle, 10_000, seconds=15.0),
    _http("heads of many lines", http1.headers, 8, b"X: y\r\n"),
    _http("heads of one line", http1.headers, 8, b"x"),
    _http("broken off", http1.broken_off, 8),
    _http("answers unread", http1.unread, 8),
    _http("deflate bombs of 64 MB, 20 a second", http1.bombs, "deflate", 64_000_000, 0.05, **BY_CONTENT),
    _http("zstd bombs of 64 MB, 20 a second", http1.bombs, "zstd", 64_000_000, 0.05, **BY_CONTENT),
    *(
        _http(f"64 MB of JSON, {kind}", http1.json, kind, 64_000_000, **BY_CONTENT)
        for kind in ("empty spans", "a string", "unknown arrays", "unknown members")
    ),
    _content("20 aggregates, 29 MB of tiny spans", contents.tiny_spans, 29_000_000, settings=AGGREGATES),
)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Attack], Row]]:
    """Attacks that follow one another with one configuration meet one proxy, as long as it does well."""
    scenes: list[tuple[tuple[Any, ...], Scene]] = []
    print(f"\n{Row.TITLE}")

    def measure(attack: Attack) -> Row:
        key = (attack.configuration, attack.backend_limit, attack.http)
        if not scenes or scenes[0][0] != key:
            while scenes:
                scenes.pop()[1].close()
            folder = tmp_path_factory.mktemp("scene") / "proxy"
            scenes.append((key, Scene(folder, *key)))
        well = False
        try:
            row = scenes[0][1].measure(attack)
            print(row)
            well = not row.faults(attack)
            return row
        finally:
            if not well:
                scenes.pop()[1].close()

    yield measure
    while scenes:
        scenes.pop()[1].close()


@pytest.mark.parametrize(
    "attack",
    [pytest.param(attack, id=attack.name) for attack in SHORT]
    + [pytest.param(attack, id=attack.name, marks=pytest.mark.heavy) for attack in HEAVY],
)
def test_an_attack_takes_nothing_from_others(attack: Attack, measured: Callable[[Attack], Row]) -> None:
    faults = measured(attack).faults(attack)
    if faults:  # other work on this machine makes figures worse, and nothing makes them better
        faults = measured(attack).faults(attack)
    assert not faults, "; ".join(faults)
