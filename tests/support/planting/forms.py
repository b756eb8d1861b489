"""Random texts of a given length and alphabet, and the checksums that some secrets carry."""

from __future__ import annotations

import base64
import json
import re
import string
import zlib
from collections.abc import Callable
from random import Random
from typing import NamedTuple

LETTERS = string.ascii_letters
ALPHABETS = {
    "a": LETTERS + string.digits,
    "w": LETTERS + string.digits + "_-",
    "b": LETTERS + string.digits + "+/",
    "h": "0123456789abcdef",
    "H": "0123456789ABCDEF",
    "d": string.digits,
    "u": string.ascii_uppercase + string.digits,
    "l": string.ascii_lowercase + string.digits,
    "U": string.ascii_uppercase,
    "L": string.ascii_lowercase,
    "A": LETTERS,
    "m": string.ascii_uppercase + "234567",
    "z": "023456789acdefghjklmnpqrstuvwxyz",
}
_CLASS = re.compile(r"<([a-zA-Z])(\d+)(?:-(\d+))?>")
BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase


class Secret(NamedTuple):
    """A text, and the parts of it that must not leave."""

    text: str
    parts: tuple[str, ...]


Make = Callable[[Random], Secret]


class Kind(NamedTuple):
    """A kind of secret, and where it may stand."""

    name: str
    make: Make
    names: tuple[str, ...] = ()
    """What announces it, in words."""
    alone: bool = True
    """Whether it is recognized without a name."""
    keys: tuple[str, ...] = ()
    """Of attributes in which it stands by itself."""
    fits: str = "any"
    """`gentle`: a text of its own (a command line), for carriers that leave it readable; `bare`: for none."""
    is_words: bool = False
    """It looks like prose, and is told by its syntax only."""
    place: str = ""
    """Where it stands, if only there."""
    beside: tuple[tuple[str, str], ...] = ()
    """Attributes of the same span: the database system."""


def filled(form: str, random: Random) -> str:
    """Replace `<h32>` by 32 hexadecimal digits, `<w20-30>` by 20 to 30 characters of words, and so on."""

    def draw(match: re.Match[str]) -> str:
        low = int(match[2])
        size = random.randint(low, int(match[3])) if match[3] else low
        return "".join(random.choices(ALPHABETS[match[1]], k=size))

    return _CLASS.sub(draw, form)


def mixed(form: str, random: Random) -> str:
    """Fill a form so that there are a digit and a letter in what is random, as good as always in true ones."""
    while True:
        text = filled(form, random)
        if re.search(r"\d", text) and re.search(r"[A-Za-z]", text):
            return text


def form(pattern: str) -> Make:
    def make(random: Random) -> Secret:
        text = mixed(pattern, random) if re.search(r"<[awbhHlum]", pattern) else filled(pattern, random)
        return Secret(text, (text,))

    return make


def one_of(*patterns: str) -> Make:
    makes = [form(pattern) for pattern in patterns]
    return lambda random: random.choice(makes)(random)


def whole(text: str) -> Secret:
    return Secret(text, (text,))


def crc62(body: str) -> str:
    """The checksum of GitHub and npm: CRC-32 in six digits of base 62."""
    rest, digits = zlib.crc32(body.encode()), ""
    for _ in range(6):
        rest, digit = divmod(rest, 62)
        digits = BASE62[digit] + digits
    return digits


def with_crc(prefix: str) -> Make:
    def make(random: Random) -> Secret:
        body = mixed("<a30>", random)
        return whole(prefix + body + crc62(body))

    return make


def url64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def luhn(body: str) -> str:
    """Append the check digit."""
    total = 0
    for place, digit in enumerate(reversed(body)):
        doubled = int(digit) * (2 if place % 2 == 0 else 1)
        total += doubled - 9 if doubled > 9 else doubled
    return body + str(-total % 10)


def iban(country: str, bban: str) -> str:
    """Put the two check digits between country and account (ISO 13616)."""
    number = int("".join(str(int(character, 36)) for character in bban + country + "00"))
    return f"{country}{98 - number % 97:02d}{bban}"
