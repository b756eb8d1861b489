"""Every input that a search has kept, or failed with, once more, without atheris; and mutations of them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from tests.fuzz import TARGETS

HERE = Path(__file__).parent
MUTATIONS = 150  # of each target: a second or two
PIECES = [b"\x00", b"\x7f", b"\x80", b"\xff", b"\xff" * 9 + b"\x01", b"\x0a", b"\x12", b"{", b"}", b'"', b": ", b"\n  "]


def inputs(name: str) -> list[Path]:
    return sorted(path for folder in ("corpus", "found") for path in (HERE / folder / name).glob("*"))


def target(name: str) -> Callable[[bytes], None]:
    one: Callable[[bytes], None] = importlib.import_module(f"tests.fuzz.{name}").one
    return one


@pytest.mark.parametrize("name", TARGETS)
def test_kept_inputs_pass(name: str) -> None:
    one, paths = target(name), inputs(name)
    assert len(paths) > 20
    for path in paths:
        try:
            one(path.read_bytes())
        except BaseException as error:
            error.add_note(f"with {path}")
            raise


@pytest.mark.parametrize("name", TARGETS)
def test_mutations_pass(name: str) -> None:
    one, random = target(name), Random(name)
    kept = [path.read_bytes() for path in inputs(name)]
    for _ in range(MUTATIONS):
        data = mutated(kept, random)
        try:
            one(data)
        except BaseException as error:
            error.add_note(f"with {data!r}")
            raise


def mutated(kept: list[bytes], random: Random) -> bytes:
    data = bytearray(random.choice(kept))
    for _ in range(random.randint(1, 4)):
        at = random.randint(0, len(data))
        match random.randrange(5):
            case 0:
                data[at : at + random.randint(1, 8)] = b""
            case 1:
                data[at:at] = random.choice(PIECES)
            case 2:
                data[at : at + 1] = random.randbytes(1)
            case 3:
                other = random.choice(kept)
                start = random.randint(0, len(other))
                data[at:at] = other[start : start + random.randint(1, 32)]
            case _:
                data[at:at] = data[random.randint(0, at) : at]
    return bytes(data[:4096])
