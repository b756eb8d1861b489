"""Lists the conditions of an expression as they are written: `explain` shows, and asks about, one after the other.

A condition is the text between `{`, `&&`, `||` and `}`, without the parentheses round it; what stands under a `!` or in
a comparison of conditions is not taken apart. Braces without a condition count as one, which holds of every span.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from lark import Token

from sampler_proxy.traceql.ast import Field, Filter, Literal, Type
from sampler_proxy.traceql.parse import parse, tokens_of


class Written(NamedTuple):
    """A condition, with its text."""

    text: str
    field: Field


def conditions(text: str) -> list[Written]:
    """List the conditions of an expression that `parse` accepts, in the order of the text, each text once."""
    found: dict[str, Field] = {}
    tokens: list[Token] = []
    for token in tokens_of(text):
        if token.type == "LBRACE":
            tokens = [token]
        elif token.type == "RBRACE":
            if len(tokens) == 1:
                found.setdefault("{}", Literal(0, Type.BOOL, True))
            else:
                for part in _split(tokens[1:]):
                    source = text[part[0].start_pos : part[-1].end_pos]
                    if source not in found:
                        found[source] = _field(source)
        else:
            tokens.append(token)
    return [Written(source, field) for source, field in found.items()]


def _field(source: str) -> Field:
    # On a line of its own, as a comment may end the text.
    root = parse("{" + source + "\n}").root
    assert isinstance(root, Filter)
    return root.condition


def _split(tokens: list[Token]) -> Iterator[list[Token]]:
    """Cut at `&&` and `||` that stand outside parentheses; recursion is as deep as `parse` lets parentheses be."""
    while _enclosed(tokens):
        tokens = tokens[1:-1]
    parts: list[list[Token]] = [[]]
    level = 0
    for token in tokens:
        level += (token.type == "LPAR") - (token.type == "RPAR")
        if level == 0 and token.type in ("AND", "OR"):
            parts.append([])
        else:
            parts[-1].append(token)
    if len(parts) == 1:
        yield tokens
    else:
        for part in parts:
            yield from _split(part)


def _enclosed(tokens: list[Token]) -> bool:
    """Tell whether the parenthesis that opens first closes last."""
    if tokens[0].type != "LPAR":
        return False
    level = 0
    for index, token in enumerate(tokens):
        level += (token.type == "LPAR") - (token.type == "RPAR")
        if level == 0:
            return index == len(tokens) - 1
    return False
