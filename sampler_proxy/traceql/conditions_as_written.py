"""The conditions of an expression as they are written: what `explain` shows and asks about, one by one.

A condition is what stands between `{`, `&&`, `||` and `}`, without the parentheses round it; what stands under a `!` or
in a comparison of conditions is not taken apart. Braces without a condition are one, which holds of every span.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from lark import Token

from sampler_proxy.traceql.ast import Field, Filter, Literal, Type
from sampler_proxy.traceql.parse import _parser, parse


class Written(NamedTuple):
    text: str
    field: Field


def conditions(text: str) -> list[Written]:
    """Of an expression that `parse` accepts: in the order of the text, each text once."""
    found: dict[str, Field] = {}
    tokens: list[Token] = []
    for token in _parser().lex(text):
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
    """Recursion is as deep as `parse` lets parentheses be."""
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
    """Does the parenthesis that opens first close last?"""
    if tokens[0].type != "LPAR":
        return False
    level = 0
    for index, token in enumerate(tokens):
        level += (token.type == "LPAR") - (token.type == "RPAR")
        if level == 0:
            return index == len(tokens) - 1
    return False
