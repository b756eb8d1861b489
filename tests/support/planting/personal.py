"""Numbers and addresses of persons: cards with their tracks, bank accounts, social security numbers, e-mail."""

from __future__ import annotations

import html
from random import Random

from tests.support.planting.forms import Kind, Make, Secret, filled, iban, luhn, whole

# Prefix and length.
_ISSUERS: tuple[tuple[str, int], ...] = (
    ("4", 16),
    ("51", 16),
    ("55", 16),
    ("2221", 16),
    ("2720", 16),
    ("34", 15),
    ("37", 15),
    ("6011", 16),
    ("65", 16),
)
_ISSUERS += (("3528", 16), ("36", 14), ("62", 16), ("4", 19), ("5018", 16))
_BANKS = {
    "DE": "<d18>",
    "GB": "<U4><d14>",
    "AT": "<d16>",
    "CH": "<d5><u12>",
    "IE": "<U4><d14>",
    "PL": "<d24>",
    "SE": "<d20>",
    "DK": "<d14>",
    "LU": "<d3><u13>",
    "LT": "<d16>",
}
UNUSUAL = {
    "non-breaking hyphen": "\u2011",
    "hyphen": "\u2010",
    "en dash": "\u2013",
    "minus": "\u2212",
    "no-break space": "\u00a0",
    "narrow no-break space": "\u202f",
    "thin space": "\u2009",
    "figure space": "\u2007",
    "&nbsp;": "&nbsp;",
    "slash": "/",
    "underscore": "_",
    "two spaces": "  ",
    "tab": "\t",
    "dot": ".",
}
_FIRST = ("bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy", "mallory", "niaj", "olivia")
_LAST = (
    "smith",
    "jones",
    "garcia",
    "mueller",
    "rossi",
    "novak",
    "silva",
    "kim",
    "okafor",
    "larsen",
    "dubois",
    "haddad",
)
_HOSTS = ("gmail.com", "mail.acme.io", "outlook.com", "uni-bonn.de", "firma.co.uk", "posteo.net", "qq.com", "acme.dev")


def _digits(random: Random) -> str:
    prefix, size = random.choice(_ISSUERS)
    return luhn(prefix + filled(f"<d{size - len(prefix) - 1}>", random))


def _groups(digits: str) -> list[str]:
    if len(digits) in (14, 15):
        return [digits[:4], digits[4:10], digits[10:]]
    return [digits[at : at + 4] for at in range(0, len(digits), 4)]


def _card(random: Random) -> Secret:
    return whole(_digits(random))


def _separated(*separators: str) -> Make:
    def make(random: Random) -> Secret:
        text = random.choice(separators).join(_groups(_digits(random)))
        return Secret(text, tuple({text, html.unescape(text)}))

    return make


def _full_width(random: Random) -> Secret:
    return whole("".join(chr(0xFF10 + int(digit)) for digit in _digits(random)))


def _track(random: Random) -> Secret:
    number = _digits(random)
    rest = f"{random.randint(27, 39)}{random.randint(1, 12):02d}101{filled('<d10>', random)}"
    name = f"{random.choice(_LAST)}/{random.choice(_FIRST)}".upper()
    text = random.choice(
        (f"%B{number}^{name}^{rest}?", f";{number}={rest}?", f"B{number}^{name}^{rest}", f"{number}D{rest}")
    )
    return Secret(text, (number,))


def _iban(random: Random) -> Secret:
    country = random.choice(sorted(_BANKS))
    return whole(iban(country, filled(_BANKS[country], random)))


def _iban_grouped(random: Random) -> Secret:
    text = _iban(random).text
    return whole(random.choice((" ", " ", "-", "\u00a0")).join(text[at : at + 4] for at in range(0, len(text), 4)))


def _ssn_parts(random: Random) -> tuple[str, str, str]:
    while (area := random.randint(1, 899)) in (666, 78, 219):
        pass
    return f"{area:03d}", f"{random.randint(1, 99):02d}", f"{random.randint(1, 9999):04d}"


def social_security_number(random: Random) -> str:
    """One that may have been issued."""
    return "-".join(_ssn_parts(random))


def _ssn(random: Random) -> Secret:
    return whole(social_security_number(random))


def _ssn_spaced(random: Random) -> Secret:
    separator = random.choice((" ", " ", "\u2011", "\u2013", "\u00a0", "."))
    number = separator.join(_ssn_parts(random))
    lead = random.choice(
        ("SSN ", "SSN: ", "ssn=", "social security number ", "Social Security: ", "soc sec no. ", "SSN# ")
    )
    return Secret(lead + number, (number,))


def _ssn_plain(random: Random) -> Secret:
    return whole("".join(_ssn_parts(random)))


def _email(random: Random) -> Secret:
    first, last = random.choice(_FIRST), random.choice(_LAST)
    number = random.randint(10, 9999)
    local = random.choice(
        (f"{first}.{last}{number}", f"{first}{number}", f"{first[0]}{last}{number}", f"{first}+shop{number}")
    )
    local = random.choice((local, local, local.title(), f"{local}_{last}", f"{first}-{last}.{number}"))
    return whole(f"{local}@{random.choice(_HOSTS)}")


def kinds() -> list[Kind]:
    found = [
        Kind("card", _card),
        Kind("card grouped", _separated(" ", "-")),
        Kind("card full-width", _full_width),
        Kind("card track", _track),
        Kind("iban", _iban),
        Kind("iban grouped", _iban_grouped),
        Kind("ssn", _ssn),
        Kind("ssn spaced", _ssn_spaced),
        Kind("ssn by name", _ssn_plain, ("ssn", "social security number", "customer ssn"), alone=False),
        Kind("email", _email),
    ]
    return found + [Kind(f"card, {name}", _separated(separator)) for name, separator in UNUSUAL.items()]
