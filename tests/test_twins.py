"""Constants that stand both in Python and in Cython are equal, and neither side has one that the other lacks.

Cython's enums and C constants are not visible from Python: they are read from the sources. A constant that gets
a twin is given a row in `TWINS`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.internal import wire_format

from sampler_proxy.operate import redaction_preview
from sampler_proxy.otlp import sampling
from sampler_proxy.pipeline import ledger
from sampler_proxy.redact import lanes
from sampler_proxy.rules import rule_set
from sampler_proxy.traceql import fields, program

PACKAGE = Path(__file__).parent.parent / "sampler_proxy"

ENUM = re.compile(r"^cdef enum\b[^\n:]*:[^\n]*\n((?:(?:[ \t]+[^\n]*)?\n)+)", re.MULTILINE)
VARIABLE = re.compile(r"^cdef (?:const )?\w+ (\w+) = ([^\n]+)$", re.MULTILINE)
DEFINED = re.compile(r"^[ \t]*#define SAMPLER_PROXY_(\w+) ([\d.]+)$", re.MULTILINE)
CAST = re.compile(r"<[\w ]+>")


MESSAGES: dict[str, int | float] = {}  # of otlp/protobuf.pxd, which others refer to


def native(name: str) -> dict[str, int | float]:
    """The enumerators and numeric constants of a .pxd or .pyx file, by name."""
    text = (PACKAGE / name).read_text()
    found: dict[str, int | float] = {one: float(value) for one, value in DEFINED.findall(text)}
    text = re.sub(r"#[^\n]*", "", text)
    for enum in ENUM.findall(text):
        following = 0
        for line in filter(None, map(str.strip, enum.splitlines())):
            for part in line.split(","):
                one, _, value = part.partition("=")
                following = eval(value, {}, {**MESSAGES, **found}) if value else following
                found[one.strip()] = following
                following += 1
    for one, value in VARIABLE.findall(text):
        if re.fullmatch(r"[\w .*/<()+-]+", plain := CAST.sub("", value)) and not re.search(r"[A-Za-z]{2}", plain):
            found[one] = eval(plain)
    return found


def prefixed(prefix: str, members: Mapping[str, int]) -> dict[str, int]:
    return {prefix + name: int(value) for name, value in members.items()}


def numbered(*names: str) -> dict[str, int]:
    return {name: number for number, name in enumerate(names)}


PLACES = ("SPAN", "RESOURCE", "SCOPE", "EVENT", "LINK")
MESSAGES.update(native("otlp/protobuf.pxd"))

# A native file, the beginning of the names that are all of them there (None: only those named), and what they must be.
TWINS: dict[str, tuple[str, str | None, Mapping[str, Any]]] = {
    "operators": ("rules/conditions.pxd", "OP_", prefixed("OP_", program.Op.__members__)),
    "types of constants": ("rules/conditions.pxd", "KIND_", prefixed("KIND_", program.Kind.__members__)),
    "words of programs": (
        "rules/programs.pxd",
        "P_",
        {f"P_{name}": getattr(program, name) for name in ("AND", "OR", "NOT", "TRUE", "FALSE")},
    ),
    "fields": ("rules/conditions.pxd", None, prefixed("", program.Field.__members__)),
    "arithmetic": ("rules/arithmetic.pyx", None, prefixed("", program.Arith.__members__)),
    "stack of a term": ("rules/arithmetic.pyx", None, {"STACK": fields.MAX_TERM_STACK}),
    "units": ("rules/rule_set.pxd", None, numbered(*(unit.upper() for unit in rule_set.UNITS))),
    "range of thresholds": ("rules/rate.pxd", None, {"TWO_TO_56": sampling.NEVER}),
    "no threshold": ("pipeline/limit.pyx", None, {"NEVER_": sampling.NEVER, "RANGE": sampling.NEVER}),
    "places of conditions": ("rules/plan.pxd", None, {f"OF_{name}": lanes.Place[name] for name in PLACES}),
    "places of attributes": ("redact/value_cache.pxd", "IN_", prefixed("IN_", lanes.Place.__members__)),
    "lanes": (
        "redact/value_cache.pxd",
        None,
        {name: getattr(lanes, name) for name in ("EXEMPT", "TEXT", "KEY", "BYTES", "NAME")},
    ),
    "kinds of lanes": ("redact/value_cache.pxd", None, prefixed("", lanes.LaneKind.__members__)),
    "longest key and value": (
        "redact/value_cache.pxd",
        "MAX_",
        {name: getattr(lanes, name) for name in ("MAX_KEY_BYTES", "MAX_VALUE_BYTES")},
    ),
    "reasons": (
        "pipeline/ledger.pxd",
        None,
        numbered(*(reason.upper() for reason in ledger.REASONS), "REASON_COUNT"),
    ),
    "wire types": (
        "otlp/protobuf.pxd",
        None,
        {
            "VARINT": wire_format.WIRETYPE_VARINT,
            "FIXED64": wire_format.WIRETYPE_FIXED64,
            "LEN": wire_format.WIRETYPE_LENGTH_DELIMITED,
            "SGROUP": wire_format.WIRETYPE_START_GROUP,
            "EGROUP": wire_format.WIRETYPE_END_GROUP,
            "FIXED32": wire_format.WIRETYPE_FIXED32,
        },
    ),
}


@pytest.mark.parametrize("twins", TWINS)
def test_twins_are_equal(twins: str) -> None:
    file, prefix, expected = TWINS[twins]
    found = native(file)
    there = {name: value for name, value in found.items() if name in expected or (prefix and name.startswith(prefix))}
    assert there == dict(expected)


def test_lanes_of_a_policy_begin_behind_those_that_all_have() -> None:
    assert max(TWINS["lanes"][2].values()) + 1 == lanes.OWN


def test_places_of_a_preview_are_messages() -> None:
    """By message and field, as the native side numbers messages."""
    named = {
        "M_RESOURCE_SPANS": {3: "resource schema URL"},
        "M_SCOPE_SPANS": {3: "scope schema URL"},
        "M_SCOPE": {1: "scope name", 2: "scope version"},
        "M_SPAN": {**dict.fromkeys((1, 2, 4), "id of an odd size"), 5: "span name"},
        "M_EVENT": {2: "event name"},
        "M_LINK": dict.fromkeys((1, 2), "id of an odd size"),
        "M_STATUS": {2: "status message"},
        "M_KEY_VALUE": {1: "attribute key"},
        "M_ENTITY_REF": {1: "entity schema URL", 2: "entity type", 3: "entity key", 4: "entity key"},
    }
    assert {
        (MESSAGES[message], field): place for message, places in named.items() for field, place in places.items()
    } == redaction_preview._PLACES
    assert {
        MESSAGES["M_RESOURCE_SPANS"]: "resource",
        MESSAGES["M_SCOPE_SPANS"]: "scope",
        MESSAGES["M_SPAN"]: "span",
    } == redaction_preview._WHOLE


def test_reading_of_native_constants() -> None:
    """What the other tests stand on."""
    assert native("rules/conditions.pxd")["V_BEYOND"] == 5
    assert native("redact/effort.pxd")["TRACE_BUDGET"] == 1 << 17
    assert MESSAGES["M_ENTITY_REF"] == 13
    assert len([name for name in MESSAGES if name.startswith("M_")]) == 14
