"""Detects secrets that are segments of a path: tokens of bots, webhooks, and links that let whoever has them reset a
password, accept an invitation or confirm an address.

The host, the method and the other segments stay. A segment behind a word like `reset-password` is a token if it looks
like one; `/reset-password/new`, `/invite/friends` and `/users/{id}` stay.
"""

from __future__ import annotations

import re

from sampler_proxy.redact.detectors.types import Detector, Range, Sign, merged, signs
from sampler_proxy.redact.regexes import regex

_UUID = "[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}"
# Paths that are known; the group is the secret.
_KNOWN = (
    ("/bot[0-9]{5}", r"/bot([0-9]{5,14}:[0-9A-Za-z_-]{20,})"),  # Telegram
    (r"discord(?:app)?\.com/api/", r"discord(?:app)?\.com/api/(?:v[0-9]+/)?webhooks/[0-9]+/([0-9A-Za-z_-]{20,})"),
    (r"office\.com/webhook", rf"office\.com/webhook(?:b2)?/({_UUID}(?:@{_UUID})?/[0-9A-Za-z]+/[0-9A-Za-z/_-]{{20,}})"),
    (r"hooks\.zapier\.com/hooks/", r"hooks\.zapier\.com/hooks/[a-z]+/[0-9]+/([0-9A-Za-z]{5,})"),
    (r"ifttt\.com/trigger/", r"ifttt\.com/trigger/[^\s/]+/(?:json/)?with/key/([0-9A-Za-z_-]{10,})"),
    (r"hook\.[a-z0-9.]*make\.com/|hook\.integromat\.com/", r"hook\.[a-z0-9.]*(?:make|integromat)\.com/([0-9a-z]{20,})"),
    (r"/calendar/ical/", r"/calendar/ical/[^\s/]+/private-([0-9a-f]{20,})"),
    (r"discord(?:app)?\.com/api/", r"discord(?:app)?\.com/api/(?:v[0-9]+/)?interactions/[0-9]+/([0-9A-Za-z_-]{20,})"),
    (r"/api/build/v1/", rf"/api/build/v1/source/{_UUID}/trigger/({_UUID})"),  # Docker Hub
    (r"heartbeat\.uptimerobot\.com/", r"heartbeat\.uptimerobot\.com/m[0-9]+-([0-9a-f]{20,})"),
    (r"cronitor\.link/p/", r"cronitor\.link/p/([0-9a-f]{20,})"),
    (r"push\.services\.mozilla\.com/", r"push\.services\.mozilla\.com/wpush/v[0-9]/([0-9A-Za-z_-]{40,})"),
    (r"rpc\.ankr\.com/", r"rpc\.ankr\.com/[a-z0-9_]+/([0-9a-f]{32,})"),
    (r"api\.render\.com/deploy/", r"api\.render\.com/deploy/srv-[0-9a-z]+\?key=([0-9A-Za-z_-]{8,})"),
    (r"open-apis/bot/", rf"open-apis/bot/(?:v[0-9]/)?hook/({_UUID})"),  # Lark
    (r"/webhook/send\?key=", rf"/webhook/send\?key=({_UUID})"),  # WeCom
    (r"(?:webhook\.site|hc-ping\.com)/", rf"(?:webhook\.site|hc-ping\.com)/({_UUID})"),
    (r"pagerduty\.com/", r"events\.(?:eu\.)?pagerduty\.com/[a-z-]+/([0-9a-z]{20,})"),
    (r"victorops\.com/", rf"victorops\.com/integrations/[a-z]+/[0-9]+/alert/({_UUID})"),
    (r"/v1/input/", r"/v1/input/([0-9a-f]{32})"),  # Datadog
    (r"loggly\.com/", rf"loggly\.com/(?:inputs|bulk)/({_UUID})"),
    (r"/receiver/v[0-9]/http/", r"/receiver/v[0-9]/http/([0-9A-Za-z_=-]{20,})"),  # Sumo Logic
    (r"(?:infura|alchemy(?:api)?)\.(?:com|io)/", r"(?:infura|alchemy(?:api)?)\.(?:com|io)/(?:ws/)?v[23]/([\w-]{28,})"),
    (r"quiknode\.pro/", r"quiknode\.pro/([0-9a-f]{32,})"),
    (r"/integrations/deploy/prj_", r"/integrations/deploy/prj_[0-9A-Za-z]+/([0-9A-Za-z]{8,})"),  # Vercel
    (r"/webhooks/incoming/", r"/webhooks/incoming/([0-9A-Za-z_-]{40,})"),  # Webex
    (r"tines\.com/webhook/", r"tines\.com/webhook/([0-9a-z]{32}/[0-9a-z]{32})"),
)  # fmt: skip
_KNOWN_PATHS = [(re.compile(hint.encode()), regex(pattern)) for hint, pattern in _KNOWN]

# Words in a segment before the token. Behind the first nothing but a token stands, in whatever form; behind the others
# ids stand, too: there hexadecimal ones and UUIDs are none.
_LINKS = (
    "reset|passw|recover|forgot|magic|invit|activat|unsub|opt-?out|one-?time|login[_-]?link|(?:build|deploy)_hooks"
    "|(?:verif|confirm)[a-z]*[/_-]?e?mail|(?:mail|account|user)s?[/_-]?(?:verif|confirm)"
)
_OTHERS = "verif|confirm|callback|(?:web)?hook|token|api[_-]?key|access[_-]?key"
# Behind these, where they name no host (`https://login.example.com/`).
_PAGES = "join|shared?|sso|login|sign-?in|sign-?up|session|heartbeat"
_BEGINNING = (
    "reset passw recover forgot magic invit activat unsub optout opt-out onetime one-time loginlink login_link"
    " login-link callback hook webhook token apikey api_key api-key accesskey access_key access-key"
    " join share sso login signin sign-in signup sign-up session heartbeat"
)
_WORDS = regex(rf"(?i)/((?:[0-9a-z_.-]*[_-])?(?:{_LINKS}|{_OTHERS}|{_PAGES})[0-9a-z_.-]*)/")
_IS_LINK = re.compile(_LINKS.encode())
_NAMES_HOST = re.compile(rf"(?i:{_LINKS}|{_OTHERS})".encode())
_SEGMENT = re.compile(rb"""/([^/?#&\x00-\x20"'`<>()\\\x7f-\xff]*+)""")
_TOKEN = re.compile(rb"[0-9A-Za-z_.~+=-]{8,512}")
# Words, also in CamelCase and with a number behind them, and numbers.
_WORDY = re.compile(
    rb"(?:(?:[A-Z]?[a-z]{2,}(?:[A-Z][a-z]{2,})*[0-9]{0,4}|[A-Z]{2,}[0-9]{0,4}|[0-9]+|[A-Za-z][0-9]{0,2})(?:[_.~+=-]|\Z))*"
)
_LOWER_RUN = re.compile(rb"[a-z]{3,}")
_IS_UUID = re.compile(_UUID.encode())
_AROUND = b".,;:!)]}"
_FILE = re.compile(rb".*\.[A-Za-z]{1,5}", re.DOTALL)
_BEFORE = 9
"""Bytes before a word that may make it another: `/email/verify`, `/account/confirm`."""
_SEGMENTS = 3
"""Segments behind a word that may be the token: `/reset/<user>/<token>`."""


def _path_tokens(text: bytes) -> list[Range]:
    found = []
    for hint, pattern in _KNOWN_PATHS:
        if hint.search(text):
            found += [Range(*match.span(1)) for match in pattern.finditer(text)]
    at = 0
    while word := _WORDS.search(text, at):
        at = word.end() - 1
        if text.endswith(b"/secrets", 0, word.start()):
            continue  # the name of a secret, and its version
        if text.endswith(b"/", 0, word.start()) and not _NAMES_HOST.search(word[1]):
            continue
        link = _IS_LINK.search(text[max(0, word.start() - _BEFORE) : at].lower()) is not None
        place = at
        for _ in range(_SEGMENTS):
            segment = _SEGMENT.match(text, place)
            if segment is None or segment[1].startswith(b"*"):
                break
            place = segment.end()
            inside = segment[1].rstrip(_AROUND)
            if _TOKEN.fullmatch(inside) and not _FILE.fullmatch(inside) and _looks_like_token(inside, link):
                found.append(Range(segment.start(1), segment.start(1) + len(inside)))
    return merged(found)


def _looks_like_token(segment: bytes, link: bool) -> bool:
    """Tell whether a segment looks random. `link`: what is not made of words is, also where it is short, a UUID, or
    hexadecimal."""
    if _IS_UUID.fullmatch(segment):
        return link
    if _WORDY.fullmatch(segment):
        return False
    core = segment.translate(None, b"_.~+=-")
    digit = any(0x30 <= byte <= 0x39 for byte in core)
    both_cases = core != core.lower() and core != core.upper()
    if not core.lower().translate(None, b"0123456789abcdef"):
        return link and len(core) >= 16 and not core.isdigit()
    if link:
        return len(core) >= 8 and not core.isdigit() and (digit or (both_cases and len(core) >= 12))
    if both_cases:
        in_words = sum(map(len, _LOWER_RUN.findall(core)))
        return len(core) >= (12 if digit else 20) and 10 * in_words <= 6 * len(core)
    return digit and not core.isdigit() and len(core) >= 20


PATH_TOKEN = Detector(
    "path_token",
    rf"{'|'.join(hint for hint, _ in _KNOWN)}|(?i:[/_-](?:{_LINKS}|{_OTHERS}|{_PAGES})[0-9a-z_.-]*/[!-~]{{8}})",
    _path_tokens,
    signs=(
        Sign("/bot", then="0-9", times=5),
        *signs("discord office.com/webhook hooks.zapier.com/ ifttt.com/trigger/ make.com/ integromat.com/"),
        *signs("/webhook/send webhook.site/ hc-ping.com/ pagerduty.com/ victorops.com/ /v1/input/ loggly.com/ infura."),
        *signs(
            "open-apis/bot/ /receiver/v alchemy quiknode.pro/ /integrations/deploy/prj_ /webhooks/incoming/ tines.com/"
        ),
        *signs(
            "/calendar/ical/ /api/build/v1/ uptimerobot.com/ cronitor.link/p/ push.services.mozilla.com/ rpc.ankr.com/"
        ),
        *signs("api.render.com/deploy/"),
        *signs(_BEGINNING, through="0-9A-Za-z_.-", until="/", before="/_-", any_case=True),
        *signs("verif confirm _hooks", through="0-9A-Za-z_.-", until="/", any_case=True),
    ),
)
