"""What check warns of beside the expressions themselves: the order of rules, and ports."""

from __future__ import annotations

from pathlib import Path

import pytest

from sampler_proxy.config.check import check

ALL = "  - {name: errors, match: '{ status = error }', keep: all}\n"
NONE = "  - {name: health, match: '{ name = `x` }', keep: none}\n"
SOME = "  - {name: some, match: '{ name = `y` }', keep: 50%}\n"
TARGET = "  - {name: aim, match: '{ name = `y` }', keep: {target: 1 traces/s}}\n"
SURE = "  - {name: sure, match: '{ .a }', keep: all}\n"
GROWS_NOT = "  - {name: short, match: '{ traceDuration < 1s }', keep: all}\n"
REST = "  - {name: rest, keep: 1%}\n"


def warnings(tmp_path: Path, text: str) -> list[tuple[int, int, str]]:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    return [
        (one.line, one.column, one.message)
        for one in check(str(file), {}, {"machine", "10.9.9.9"}.__contains__).warnings
    ]


@pytest.mark.parametrize(
    ("rules", "line", "blocked"),
    [
        ([NONE, ALL, REST], 2, "errors"),
        ([SOME, ALL, SURE, REST], 2, "errors"),
        ([TARGET, ALL, REST], 2, "errors"),
        ([ALL, NONE, SURE, REST], 3, "sure"),
        ([NONE, GROWS_NOT, ALL, REST], 2, "errors"),
        ([ALL, SURE, NONE, REST], None, ""),
        ([ALL, NONE, GROWS_NOT, REST], None, ""),  # that one decides nothing early anyway
        ([ALL, GROWS_NOT, SURE, REST], None, ""),  # all of these keep everything
        ([REST], None, ""),
    ],
)
def test_rules_that_keep_others_from_deciding_early(
    tmp_path: Path, rules: list[str], line: int | None, blocked: str
) -> None:
    found = warnings(tmp_path, "rules:\n" + "".join(rules))
    assert [one[0] for one in found] == ([] if line is None else [line])
    assert all(f"(such as {blocked})" in message and message.startswith("warning: ") for *_, message in found)


REDACT = "redact: {preset: common}\n"
TO = "export: [{name: a, endpoint: 'http://somewhere:4317'}]\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (TO + REDACT, (2, 1)),
        (TO + REDACT + "passthrough: all\n", (3, 14)),
        (TO + REDACT + "passthrough: off\n", None),
        (TO + REDACT + "passthrough: discard\n", None),
        (TO, None),
        (TO + "redact: {}\n", None),
        (REDACT, None),  # a file takes traces only
    ],
)
def test_redaction_is_for_traces_only(tmp_path: Path, text: str, found: tuple[int, int] | None) -> None:
    given = [one for one in warnings(tmp_path, text) if "passed on as they are" in one[2]]
    assert [one[:2] for one in given] == ([] if found is None else [found])


RECEIVE = "receive: {grpc: {endpoint: '0.0.0.0:4317'}}\n"


@pytest.mark.parametrize(
    ("endpoint", "loop"),
    [
        ("http://localhost:4317", True),
        ("http://127.0.0.1:4317", True),
        ("http://[::1]:4317", True),
        ("http://0.0.0.0:4317", True),
        ("http://LOCALHOST:4317", True),
        ("http://localhost.:4317", True),
        ("http://app.localhost:4317", True),
        ("http://127.1:4317", True),
        ("http://127.8.8.8:4317", True),
        ("https://[::]:4317", True),
        ("http://[::ffff:127.0.0.1]:4317", True),
        ("http://[0:0:0:0:0:0:0:1]:4317", True),
        ("http://Machine:4317", True),
        ("http://10.9.9.9:4317", True),
        ("http://[::ffff:10.9.9.9]:4317", True),
        ("http://localhost:14317", False),
        ("http://tempo:4317", False),
        ("http://10.0.0.1:4317", False),
    ],
)
@pytest.mark.parametrize("receive", [RECEIVE, ""], ids=["written", "default"])
def test_a_destination_that_is_the_proxy_itself(tmp_path: Path, receive: str, endpoint: str, loop: bool) -> None:
    found = warnings(tmp_path, receive + f"export:\n  - name: a\n    endpoint: '{endpoint}'\n")
    assert [message for *_, message in found] == (
        ["warning: this is where the proxy itself receives: kept traces would come back again and again"]
        if loop
        else []
    )
    assert all(one[:2] == (3 + bool(receive), 15) for one in found)


@pytest.mark.parametrize(
    ("listening", "endpoint", "loop"),
    [
        ("127.0.0.1", "localhost", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "0.0.0.0", True),
        ("127.0.0.1", "[::1]", False),
        ("[::1]", "localhost", True),
        ("[::1]", "[::]", True),
        ("[::1]", "127.0.0.1", False),
        ("localhost", "127.0.0.1", True),
        ("[::]", "127.0.0.1", True),
        ("[::]", "[::1]", True),
        ("10.1.2.3", "localhost", False),
        ("10.1.2.3", "0.0.0.0", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "[::ffff:10.1.2.3]", True),
        ("10.1.2.3", "10.1.2.4", False),
        ("proxy.example", "PROXY.example", True),
        ("proxy.example", "localhost", False),
    ],
)
def test_a_destination_that_is_the_address_received_on(
    tmp_path: Path, listening: str, endpoint: str, loop: bool
) -> None:
    found = warnings(
        tmp_path,
        f"receive: {{grpc: {{endpoint: '{listening}:4317'}}}}\nexport: [{{name: a, endpoint: 'http://{endpoint}:4317'}}]\n",
    )
    assert len(found) == loop


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("receive: {grpc: {endpoint: '0.0.0.0:8888'}}\n", (1, 28)),
        ("admin: {endpoint: '0.0.0.0:4317', insecure: true}\n", (1, 19)),
        ("receive: {grpc: {endpoint: 'unix:/x'}, http: {endpoint: 'unix:/x'}}\n", (1, 57)),
        ("receive: {grpc: {endpoint: 'unix:/x'}, http: {endpoint: 'unix:/y'}}\n", None),
        ("receive: {grpc: {endpoint: '0.0.0.0:0'}}\nadmin: {endpoint: '0.0.0.0:0', insecure: true}\n", None),
        ("admin: {endpoint: '0.0.0.0:4318', insecure: true}\n", (1, 19)),
        ("receive: {http: {endpoint: '0.0.0.0:8888'}}\n", (1, 28)),
        ("receive: {http: {endpoint: '0.0.0.0:4317'}}\n", (1, 28)),
        ("receive: {http: {endpoint: 'off'}}\nadmin: {endpoint: '0.0.0.0:4318', insecure: true}\n", None),
        ("admin: {endpoint: '[::]:4317', insecure: true}\n", (1, 19)),
        ("admin: {endpoint: '10.1.2.3:4317', insecure: true}\n", (1, 19)),
        ("receive: {grpc: {endpoint: '10.1.2.3:8888'}}\n", None),
        ("receive: {grpc: {endpoint: '[::1]:8888'}}\n", None),
        ("receive: {grpc: {endpoint: 'localhost:8888'}}\n", (1, 28)),
        ("receive: {grpc: {endpoint: '10.1.2.3:8888'}}\nadmin: {endpoint: '10.1.2.3:8888', insecure: true}\n", (2, 19)),
        ("receive: {grpc: {endpoint: '10.1.2.3:8888'}}\nadmin: {endpoint: '10.1.2.4:8888', insecure: true}\n", None),
        ("receive: {grpc: {endpoint: 'proxy.example:8888'}}\n", None),
    ],
)
def test_two_servers_on_one_port(tmp_path: Path, text: str, at: tuple[int, int] | None) -> None:
    found = warnings(tmp_path, text)
    assert [one[:2] for one in found] == ([] if at is None else [at])
    assert all("are both on " in message for *_, message in found)


@pytest.mark.parametrize(("root", "expected"), [("local", []), ("parentless", [(1, 16)])])
def test_of_roots_that_are_not_sent_here(tmp_path: Path, root: str, expected: list[tuple[int, int]]) -> None:
    found = warnings(tmp_path, f"buffer: {{root: {root}}}\n")
    assert [(line, column) for line, column, _ in found] == expected
    assert all("sampler_proxy_traces_rootless_total" in message for *_, message in found)


@pytest.mark.parametrize(
    ("header", "warned"),
    [
        ("authorization: $TOKEN", True),
        ("authorization: 'Bearer $TOKEN'", True),
        ("Authorization: 'Bearer $tempo_token'", True),
        ("authorization: 'Bearer ${env:TOKEN}'", False),
        ("authorization: 'pa$SWORD'", False),
        ("authorization: 'Bearer a$TOKEN'", False),
        ("authorization: {file: /dev/null}", False),
    ],
)
def test_a_header_that_names_a_variable_as_a_shell_does(tmp_path: Path, header: str, warned: bool) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"export: [{{name: a, endpoint: 'http://h:1', headers: {{{header}}}}}]\n")
    found = [one.message for one in check(str(file), {"TOKEN": "Bearer $SECRET"}).warnings]
    assert [("write ${env:NAME}" in one, "TOKEN" in one, "SECRET" in one) for one in found] == [
        (True, False, False)
    ] * warned


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("buffer: {decision_memory: 4GiB, max_bytes: 4GiB}\n", []),
        ("buffer: {decision_memory: 100TiB}\n", [(1, 27)]),
        ("buffer: {max_bytes: 5GiB}\n", [(1, 21)]),
        ("export: [{name: a, protocol: file, path: x, queue: {max_bytes: 100TiB}}]\n", [(1, 64)]),
        ("export: [{name: a, protocol: file, path: x, max_bytes: 100TiB}]\n", []),  # of a disk
    ],
)
def test_bounds_beyond_the_machine(tmp_path: Path, text: str, expected: list[tuple[int, int]]) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    found = check(str(file), {}, machine_bytes=4 << 30).warnings
    assert [(one.line, one.column) for one in found] == expected
    assert all("more than the 4GiB of memory that this machine has" in one.message for one in found)
    assert check(str(file), {}).warnings == ()


@pytest.mark.parametrize(
    ("rule", "dropped", "at"),
    [
        ("keep: all, to: [a]", False, [(4, 12)]),
        ("keep: all, to: [a]", True, []),
        ("keep: all", False, []),
        ("keep: none", False, [(3, 12), (4, 12)]),
        ("keep: all, to: [a, b]", False, []),
    ],
)
def test_a_destination_to_which_nothing_goes(
    tmp_path: Path, rule: str, dropped: bool, at: list[tuple[int, int]]
) -> None:
    found = warnings(
        tmp_path,
        f"rules: [{{name: x, {rule}}}]\n"
        "export:\n"
        "  - {name: a, protocol: file, path: x}\n"
        f"  - {{name: b, protocol: file, path: y, dropped: {str(dropped).lower()}}}\n",
    )
    assert [one[:2] for one in found] == at
    assert all("nothing goes there" in message for *_, message in found)
