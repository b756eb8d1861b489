"""`sampler-proxy explain`: what it says of each trace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from sampler_proxy.traceql.conditions_as_written import conditions
from tests.operate.traces import GOOD, HIGH, LOW, line, otlp_json, request, span, store, tagged
from tests.rules.conformance import traces as conformance
from tests.support import nezha, reference

ROOT = Path(__file__).parents[2]


# Conditions as written


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", ["{}"]),
        ("{ status = error }", ["status = error"]),
        ("{ (.a = 1 && (.b || !(.c && .d))) || .e }", [".a = 1", ".b", "!(.c && .d)", ".e"]),
        ('{ span."x && }" = "a || }" } && { .b }', ['span."x && }" = "a || }"', ".b"]),
        ("{ .a // && .b\n && .c /* } */ }", [".a", ".c"]),
        ("{ (.a = 1) != false && ((.b)) }", ["(.a = 1) != false", ".b"]),
        ("{ (.a + 1) * (.b) > 2 }", ["(.a + 1) * (.b) > 2"]),
        ("({ .a } >> { .b && .a } | count() > 2) || { .c }", [".a", ".b", ".c"]),
        ("{ .a = `}` } | avg(duration) > 1s", [".a = `}`"]),
    ],
)
def test_conditions_of_an_expression(text: str, expected: list[str]) -> None:
    assert [condition.text for condition in conditions(text)] == expected


def test_deep_parentheses() -> None:
    assert [one.text for one in conditions("{ " + "(" * 90 + ".a && .b" + ")" * 90 + " }")] == [".a", ".b"]


# The command


CONFIG = """\
rules:
  - {name: errors, match: '{ status = error && (.route = "/pay" || .size > 3) }', keep: all}
  - {name: noisy, match: '{ name = "step 1" } && { name = "step 2" }', unless: '{ .keep = "yes" }', keep: 10%}
  - {name: none, match: '{ .drop = "yes" }', keep: none}
  - {name: rest, keep: 50%}
"""


def command(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sampler_proxy", "explain", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={**os.environ},
    )


def explained(tmp_path: Path, data: str | bytes, config: str = CONFIG) -> list[dict[str, Any]]:
    file = tmp_path / "rules.yaml"
    file.write_text(config)
    done = command("--config", str(file), "--json", store(tmp_path, data))
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(text) for text in done.stdout.splitlines()]


def span_id(number: int) -> str:
    return f"{number:016x}"


def test_explained_as_json(tmp_path: Path) -> None:
    error = Status(code=Status.STATUS_CODE_ERROR)
    third = bytes(range(16))
    messages = [
        request(span(HIGH, 1), tagged(span(LOW, 1, status=error), route="/pay", size=9), span(third, 9)),
        request(span(HIGH, 2), tagged(span(LOW, 2), size=5), tagged(span(LOW, 1, status=error), route="/pay", size=9)),
        request(tagged(span(b"\x01" * 16, 1), drop="yes")),
    ]
    found = explained(tmp_path, "\n".join(json.dumps(otlp_json(message)) for message in messages))
    assert found == [
        {
            "trace_id": HIGH.hex(),
            "rule": "noisy",
            "keep": True,
            "probability": pytest.approx(0.1, rel=1e-4),
            "threshold": "e666",
            "randomness": "f" * 14,
            "root": {"span": span_id(1), "kind": "parentless"},
            "matched": [
                {"condition": 'name = "step 1"', "spans": [span_id(1)]},
                {"condition": 'name = "step 2"', "spans": [span_id(2)]},
            ],
        },
        {
            "trace_id": LOW.hex(),
            "rule": "errors",
            "keep": True,
            "probability": 1.0,
            "threshold": None,
            "randomness": "0" * 13 + "1",
            "root": {"span": span_id(1), "kind": "parentless"},
            "matched": [
                {"condition": "status = error", "spans": [span_id(1)]},
                {"condition": '.route = "/pay"', "spans": [span_id(1)]},
                {"condition": ".size > 3", "spans": [span_id(1), span_id(2)]},
            ],
        },
        {
            "trace_id": third.hex(),
            "rule": "rest",
            "keep": False,
            "probability": 0.5,
            "threshold": "8",
            "randomness": third[9:].hex(),
            "root": {"span": span_id(9), "kind": "parentless"},
            "matched": [],
        },
        {
            "trace_id": "01" * 16,
            "rule": "none",
            "keep": False,
            "probability": 0.0,
            "threshold": None,
            "randomness": "01" * 7,
            "root": {"span": span_id(1), "kind": "parentless"},
            "matched": [{"condition": '.drop = "yes"', "spans": [span_id(1)]}],
        },
    ]
    protobuf = b"".join(message.SerializeToString() for message in messages)
    assert explained(tmp_path, protobuf) == found


def test_only_what_holds_is_listed(tmp_path: Path) -> None:
    config = (
        "rules: [{name: a, match: '{ .x = 1 || .y = 1 } || { traceDuration > 1s }', keep: all}, {name: b, keep: 1%}]"
    )
    message = request(tagged(span(LOW, 1), y=1), span(LOW, 2))
    (found,) = explained(tmp_path, message.SerializeToString(), config)
    assert found["matched"] == [{"condition": ".y = 1", "spans": [span_id(1)]}]


def test_conditions_on_the_trace_and_structure(tmp_path: Path) -> None:
    config = (
        "rules:\n"
        "  - name: deep\n"
        '    match: \'{ rootName = "step 1" && name != "step 1" } >> { kind = client } | count() = 1\'\n'
        "    keep: all\n"
        "  - {name: rest, keep: none}\n"
    )
    spans = [
        span(LOW, 1),
        span(LOW, 2, parent_span_id=bytes(7) + b"\x01"),
        span(LOW, 3, parent_span_id=bytes(7) + b"\x02", kind=Span.SPAN_KIND_CLIENT),
    ]
    (found,) = explained(tmp_path, request(*spans).SerializeToString(), config)
    assert found["rule"] == "deep"
    assert found["matched"] == [
        {"condition": 'rootName = "step 1"', "spans": [span_id(1), span_id(2), span_id(3)]},
        {"condition": 'name != "step 1"', "spans": [span_id(2), span_id(3)]},
        {"condition": "kind = client", "spans": [span_id(3)]},
    ]


def test_explained_as_text_with_the_default_rules(tmp_path: Path) -> None:
    failed = span(LOW, 1, status=Status(code=Status.STATUS_CODE_ERROR))
    text = json.dumps(otlp_json(request(failed, span(HIGH, 2)))) + "\n" + line(traceId="") + "\n"
    path = store(tmp_path, text)
    done = command(path)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        f"trace {LOW.hex()} (1 span): kept by rule errors, which keeps 100% of the traces",
        "  status = error",
        f"    {span_id(1)}  shop step 1",
        "  root: it has no parent",
        f"    {span_id(1)}  shop step 1",
        f"trace {HIGH.hex()} (1 span): kept by rule baseline, which keeps 1% of the traces",
        "  root: it has no parent",
        f"    {span_id(2)}  shop step 2",
    ]
    assert done.stderr.splitlines() == [
        "decided by the built-in rules: --config FILE names others",
        f"{path}: 1 span left out: the trace id is not valid",
    ]


def test_the_whole_lines_of_a_torn_file(tmp_path: Path) -> None:
    text = GOOD + "\n" + line(traceId="ef" * 16)[:-7]
    path = store(tmp_path, text)
    done = command("--json", path)
    assert done.returncode == 0
    assert [json.loads(one)["trace_id"] for one in done.stdout.splitlines()] == ["ab" * 16]
    torn = len(text) - len(GOOD) - 1
    assert done.stderr.splitlines()[1:] == [
        f"{path}:2:{torn + 1}: not JSON, since the file ends within it: {torn} bytes left out (1 line)"
    ]


def test_several_files_and_standard_input(tmp_path: Path) -> None:
    """A trace that lies in two files, as behind the turn of a file, is one trace."""
    rules = tmp_path / "rules.yaml"
    rules.write_text("rules: [{name: two, match: '{} | count() = 2', keep: all}, {name: rest, keep: none}]")
    one, other = tmp_path / "traces.1", tmp_path / "traces"
    one.write_text(line(spanId="01" * 8))
    other.write_text(line(spanId="02" * 8))
    for arguments, stdin in (
        ((str(rules), str(one), str(other)), ""),
        ((str(rules), str(one), "-"), other.read_text()),
        (("-", str(one), str(other)), rules.read_text()),
    ):
        done = command("--json", "--config", *arguments, stdin=stdin)
        assert (done.returncode, done.stderr) == (0, "")
        assert [json.loads(text)["rule"] for text in done.stdout.splitlines()] == ["two"]
    done = command("--config", "-", "-", stdin=GOOD)
    assert done.returncode == 2
    assert "standard input (-) can be read only once" in done.stderr


def test_the_root_is_named_and_why(tmp_path: Path) -> None:
    callers = {LOW: 0x300, HIGH: 0x100}  # in another process, and in this one
    spans = [span(trace, 1, parent_span_id=b"\x09" * 8, flags=flags) for trace, flags in callers.items()]
    path = store(tmp_path, request(*spans, span(b"\x01" * 16, 1)).SerializeToString())
    done = command(path)
    assert [text for text in done.stdout.splitlines() if not text.startswith("trace ")] == [
        "  local root: its parent is in another process, and not in this file",
        f"    {span_id(1)}  shop step 1",
        "  no root: no span without a parent, and none known to have its parent in another process",
        "  root: it has no parent",
        f"    {span_id(1)}  shop step 1",
    ]
    config = tmp_path / "config.yaml"
    config.write_text("buffer: {root: parentless}")
    for options, expected in (([], [("local", "01"), None]), (["--config", str(config)], [None, None])):
        found = [json.loads(text)["root"] for text in command("--json", *options, path).stdout.splitlines()]
        assert [one and (one["kind"], one["span"][-2:]) for one in found[:2]] == expected


def test_what_a_target_keeps_depends_on_the_traffic(tmp_path: Path) -> None:
    config = (
        "rules: [{name: busy, match: '{ .x = 1 }', keep: {target: 6 spans/min, per: [name]}}, {name: b, keep: all}]"
    )
    data = request(tagged(span(LOW, 1), x=1), span(HIGH, 2)).SerializeToString()
    busy, other = explained(tmp_path, data, config)
    assert (busy["rule"], busy["keep"], busy["probability"], busy["threshold"]) == ("busy", None, None, None)
    assert busy["target"] == "0.1 spans/s"
    assert "target" not in other
    file = tmp_path / "c.yaml"
    file.write_text(config)
    text = command("--config", str(file), store(tmp_path, data)).stdout.splitlines()
    assert text[0] == f"trace {LOW.hex()} (1 span): decided by rule busy, which keeps up to 0.1 spans/s"


def test_recorded_traces_are_decided_as_the_reference_says(tmp_path: Path) -> None:
    requests = nezha.load(nezha.TRAIN_TICKET)
    config = "rules: [{name: slow, match: '{ traceDuration > 1s }', keep: all}, {name: rest, keep: 30%}]"
    found = explained(tmp_path, b"".join(one.SerializeToString() for one in requests), config)
    traces = reference.traces(requests)
    assert [one["trace_id"] for one in found] == [trace_id.hex() for trace_id in traces]
    for one, trace in zip(found, traces.values(), strict=True):
        slow = (reference.trace_duration(trace) or 0) > 10**9
        assert one["rule"] == ("slow" if slow else "rest")
        assert one["keep"] == (slow or reference.randomness(trace) >= reference.threshold_of(0.3))
        if slow:
            assert len(one["matched"][0]["spans"]) == len({seen.span.span_id for seen in trace})


def test_faults_end_with_1_and_without_traceback(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text("rules: [{name: a, match: '{ x', keep: all}, {name: b, keep: 1%}]")
    good = store(tmp_path, GOOD)
    for arguments, start in (
        (("--config", str(file), good), f"{file}:1:"),
        ((str(file),), f"{file}:1:1: not JSON"),
        ((str(tmp_path / "none"),), f"{tmp_path / 'none'}: cannot be read"),
    ):
        done = command(*arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(start)
        assert "Traceback" not in done.stderr
    assert command().returncode == 2


def test_an_attribute_of_another_type_is_told(tmp_path: Path) -> None:
    spans = [
        conformance.span("a", attrs={"code": "500", "ok": True}, events=[conformance.event("e", 1, n=1.5)]),
        conformance.span("b", attrs={"code": "200", "fine": 7}),
    ]
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        """\
rules:
  - {name: failed, match: '{ span.code >= 500 }', keep: all}
  - {name: odd, match: '{ .ok = "yes" && .fine > 5 || event.n =~ "1.*" }', keep: all}
  - {name: rest, keep: none}
"""
    )
    trace = store(tmp_path, conformance.request(spans).SerializeToString())
    done = command("--config", str(rules), trace)
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        f"{trace}: rule failed: span.code is compared with a number, and is a text",
        f"{trace}: rule odd: .ok is compared with a text, and is a boolean",
        f"{trace}: rule odd: event.n is compared with a text, and is a number",
    ]


EVIL = "GET /\x1b]0;owned\x07\n  root: forged \u202e\x9b31m"


def test_names_of_senders_do_not_reach_the_terminal_as_they_are(tmp_path: Path) -> None:
    named = tagged(span(LOW, 1), **{"n\x1b": "x"})
    named.name = EVIL
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        'rules: [{name: a, match: "{ name != `\\e[1mé` || span.\\"n\\e\\" = 3 }", keep: all}, {name: b, keep: none}]\n'
    )
    path = store(tmp_path, json.dumps(otlp_json(request(named))))
    done = command("--config", str(rules), path)
    assert done.returncode == 0, done.stderr
    text = done.stdout + done.stderr
    assert r"shop GET /\x1b]0;owned\x07\n  root: forged \u202e\x9b31m" in text
    assert r"name != `\x1b[1mé`" in text
    assert all(line.isprintable() for line in text.splitlines())
    as_json = command("--json", "--config", str(rules), path)
    assert json.loads(as_json.stdout)["matched"][0]["condition"] == "name != `\x1b[1mé`"
