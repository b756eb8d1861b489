"""Expressions: refused with a TraceQLError at a character of theirs, or understood all the way to the machine.

What is accepted compiles, is looked through for advice, and selects of some fixed traces what the reference selects.
"""

from __future__ import annotations

from sampler_proxy.errors import TraceQLError
from sampler_proxy.traceql.compiler import compile_rules
from sampler_proxy.traceql.keys import parse_key
from sampler_proxy.traceql.parse import parse, warnings
from tests.rules.conformance.table import ARRAYS, BROKEN, EVENTS, SHOP, TIMES, TREE, VALUES
from tests.rules.conformance.traces import product_selects, reference_selects, request

TRACES = [request(spans) for spans in (SHOP, VALUES, ARRAYS, EVENTS, TREE, BROKEN, TIMES)]
ENCODED = [trace.SerializeToString() for trace in TRACES]


def one(data: bytes) -> None:
    text = data.decode(errors="surrogateescape")
    _key(text)
    try:
        expression = parse(text)
        compile_rules([(expression, None)])
    except TraceQLError as refused:
        _check(refused, text)
        return
    for remark in warnings(expression):
        assert 0 <= remark.offset < len(text)
    for trace, encoded in zip(TRACES, ENCODED, strict=True):
        assert product_selects(text, [encoded]) == reference_selects(text, [trace])


def _key(text: str) -> None:
    try:
        parse_key(text)
    except TraceQLError as refused:
        _check(refused, text)


def _check(refused: TraceQLError, text: str) -> None:
    assert 0 <= refused.offset <= len(text)
    assert refused.message
