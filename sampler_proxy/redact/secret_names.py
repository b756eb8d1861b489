"""Tells what a name announces: a secret, perhaps one, or something about a secret.

One vocabulary for keys of attributes, members of JSON, parameters of URLs, options, elements of XML and names in prose.
A name is read as words: `dbPassword`, `DB_PASSWORD`, `user[db-password]` and `db.password` are `db password`. Words
written together (`PGPASSWORD`, `accesstoken`) are known by how they end, or by what they hold.

Three questions, in this order:

- Is it about a secret (`password.length`, `token_type`, `has_password`)? The last word, or the first, says so.
- Does it announce one? Words that mean nothing else (`password`, `api_key`) do so wherever they stand, others (`token`,
  `pin`) at the end only.
- Is its last word one that may (`storage_key`, `code`)? Then the value decides: see `detectors/secret_values.py`.
"""

from __future__ import annotations

import re
from enum import IntEnum
from functools import lru_cache

from sampler_proxy.redact import budget

MAX_NAME = 256
"""Characters of a name that are read: the last ones."""
STEPS_OF_NAME = 6
"""What reading a name takes."""


class Announces(IntEnum):
    """Kinds of name. As keys of attributes, AMBIGUOUS and what comes after announce a secret whatever the value is."""

    NOTHING = 0
    MIXED_KEY = 1
    """A secret where the value looks like a key of upper and lower case: `key` alone, which has many meanings."""
    KEY_LIKE = 2
    """A secret where the value looks like a key."""
    PARAMETER = 3
    """A secret in the query of a URL and in a form, nothing elsewhere."""
    AMBIGUOUS = 4
    """A secret; in texts, where the word has other meanings, only if the value is neither a word nor a count."""
    DIGITS = 5
    """A secret; in texts, where it is a few digits."""
    CERTAIN = 6
    """A secret; in texts, unless the value is a word of prose."""


# Wherever they stand in a name. `_` may be any separator, or none.
CERTAIN_WORDS = (
    *("password", "pass_word", "passwd", "passphrase", "pass_phrase", "passcode", "secret", "credential"),
    *("authorization", "cookie", "csrf", "xsrf", "client_assertion", "honeycomb_team", "seed_phrase"),
    *(
        "api_key",
        "secret_key",
        "access_key",
        "private_key",
        "encryption_key",
        "decryption_key",
        "signing_key",
        "signature_key",
    ),
    *("subscription_key", "account_key", "shared_key", "master_key", "function_key", "functions_key"),
    *("access_token", "refresh_token", "application_key", "auth_key", "hmac_key", "jwt_key", "ssh_key", "security_key"),
)
# At the end of a name, also where words are written together.
ENDINGS = ("pwd", "token", "session_id", "sessid", "totp", "jwt", "cvv", "cvc", "saml_response", "connection_string")
# At the end of a name, as words of their own.
LAST_WORDS = (
    *("pass", "pw", "pswd", "signature", "otp", "pin", "code_verifier", "basic_auth", "pin_code", "requirepass"),
    *("masterauth", "jwe", "psk", "connect_sid", "ssn", "social_security_number"),
)
CODES = (
    *("mfa", "fa", "factor", "otp", "totp", "recovery", "verification", "backup", "security", "sms", "auth", "device"),
    *("access", "login", "reset", "confirmation"),
)
"""What a code is for that lets somebody in: `mfa_code`, `recovery_codes`."""
WHOLE_NAMES = ("auth", "x_auth", "bearer", "sid")
URL_NAMES = ("sas", "sig", "session", "assertion", "saml_art", "saml_request", "google_access_id", "aws_access_key_id")
"""In URLs and forms only."""

# What follows the secret's word, and says nothing new.
_NEUTRAL = (
    r"(?:value|values|v|raw|plain|header|primary|secondary|old|new|current|encoded|confirm|confirmation|repeat|again"
    r"|verify|base|b|hex|sha|[0-9]+)"
)
ABOUT = (
    *("length", "len", "size", "count", "counts", "counter", "total", "number", "num", "index", "position", "offset"),
    *("type", "types", "kind", "mode", "method", "methods", "scheme", "format", "algorithm", "algo", "alg", "class"),
    *("id", "ids", "name", "names", "username", "version", "versions", "label", "title", "description", "namespace"),
    *("url", "uri", "urls", "uris", "endpoint", "path", "file", "filename", "dir", "location", "arn", "ref", "source"),
    *("expiry", "expires", "expire", "expired", "expiration", "exp", "ttl", "lifetime", "age", "duration", "timeout"),
    *("policy", "policies", "rule", "rules", "enabled", "disabled", "required", "optional", "present", "missing"),
    *("exists", "valid", "invalid", "verified", "changed", "updated", "created", "modified", "rotated", "issued"),
    *("at", "date", "time", "timestamp", "status", "state", "result", "outcome", "decision", "reason", "error"),
    *("errors", "failed", "failure", "failures", "attempt", "attempts", "retries", "hint", "strength", "score"),
    *("consent", "banner", "domain", "secure", "only", "site", "samesite", "provider", "providers", "manager", "store"),
    *("engine", "backend", "server", "service", "handler", "filter", "validator", "encoder", "rotation", "scope"),
    *("scopes", "issuer", "audience", "usage", "used", "uses", "limit", "limits", "quota", "role", "region", "level"),
    *("stdin", "prompt", "env", "fd", "command", "helper"),
    *(
        "days",
        "hours",
        "minutes",
        "bytes",
        "check",
        "checked",
        "checks",
        "protection",
        "latency",
        "ms",
        "seconds",
        "millis",
        "hits",
        "misses",
        "category",
        "requests",
        "allowed",
        "granted",
        "denied",
    ),
)
"""What the last word of a name says where the name is about a secret."""
_ASKING = (
    "has|have|is|was|are|needs|requires?|allows?|enables?|disables?|shows?|hides?|supports?|use|uses|without|no|skip"
)
# A token that says where to go on, or is one of a language or of a request; a key that finds something.
CURSORS = (
    *("next", "page", "sync", "continuation", "cursor", "start", "starting", "resume", "change", "skip", "paging"),
    *("pagination", "delta", "marker", "cancellation", "idempotency", "fencing", "concurrency", "eos", "bos", "pad"),
    *("public_key", "unk", "sep", "cls", "stop", "special", "unexpected", "parser", "lexer", "lookahead"),
)
FINDING = (
    *("partition", "sort", "routing", "message", "idempotency", "primary", "foreign", "object", "row", "public"),
    *("publishable", "cache", "lookup", "group", "hash", "range", "index", "dedup", "deduplication", "translation"),
    *("resource", "document", "entity", "surrogate", "natural", "composite", "unique", "map", "json", "state"),
    *("feature", "flag", "config", "label", "metric", "tag", "project", "issue", "site", "host", "registry"),
    *("property", "query", "search", "shard", "sharding", "correlation", "trace", "request", "order", "ordering"),
    *("event", "kafka", "bucket", "blob", "file", "aggregate", "locale", "setting", "preference", "attribute"),
    *("redis", "record", "item", "user", "tenant", "session", "lock", "rate", "limit", "s"),
)


def _any(words: tuple[str, ...]) -> str:
    return "|".join(word.replace("_", "[_.]?") for word in words)


_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\x00-\x7f]+")
_BRACKETS = re.compile(r"%5[BbDd]")

TAIL = rf"(?:[_.]?{_NEUTRAL})*"
_CERTAIN = re.compile(rf"(?:{_any(CERTAIN_WORDS)})")
_CERTAIN_END = re.compile(rf"(?:{_any(CERTAIN_WORDS)}){TAIL}\Z")
# Words that begin like a secret's, and mean something else.
_OTHER_WORDS = re.compile(
    r"passwordless|secretar(?:y|ies|iat|ial)|secret(?:ion|ive|ly|e|ed)\b|secrets?_?manager|(?:ch|ht|g|k|mk|smb|ldap|vnc|yp)passwd|cookiecutter|credential(?:ing|ed)"
    r"|unauthorization"
)
_ENDING = re.compile(rf"(?:{_any(ENDINGS)}){TAIL}\Z")
_LAST_WORD = re.compile(rf"(?:\A|[_.])(?:{_any(LAST_WORDS)}){TAIL}\Z")
_CODE = re.compile(rf"(?:\A|[_.])(?:{_any(CODES)})[_.]?codes?(?:[_.][0-9]+)*\Z")
_DIGITS = re.compile(r"(?:otp|pin|cvv|cvc|pin_?code)(?:[_.]?[0-9]+)*\Z")
_WHOLE = re.compile(rf"(?:{_any(WHOLE_NAMES)})\Z")
_IN_URL = re.compile(rf"(?:.*[_.])?(?:{_any(URL_NAMES)})\Z")
_ABOUT = re.compile(
    rf"(?:[_.]|password|passwd|secret|token|cookie|authorization|credentials?|key|jwt|signature)(?:{'|'.join(ABOUT)})"
    r"(?:[_.][0-9]+)*\Z"
)
_ASKS = re.compile(rf"(?:\A|\.)(?:{_ASKING})_[^.]*\Z")
_HAS_ID = re.compile(
    r"(?:(?:access_?key|session|secret|google_?access)_?id|social_?security_?number)(?:[_.][0-9]+)*\Z"
)  # the id is part of the secret
_CURSOR = re.compile(rf"(?:\A|[_.]|next|http)(?:{_any(CURSORS)})[_.]?token{TAIL}\Z")
_OF_CODE = re.compile(r"(?:function|method|type|class|call)[_.]signature\Z")
_KEY = re.compile(rf"(?:\A|[_.])(?:key|pat|sid|auth){TAIL}\Z|(?:\A|[_.])code\Z|(?:\A|[_.])keys\Z")
_FINDS = re.compile(
    rf"(?:\A|[_.])(?:{'|'.join(FINDING)})[_.]keys?\Z|(?:[a-z0-9])[_.]code\Z|(?:account|message|call|service)[_.]sid\Z"
)


def canonical(name: str) -> str:
    """Return the words of a name in lower case, with `_` between them, and `.` where the name has one."""
    if "%" in name:
        name = _BRACKETS.sub(".", name)
    name = name.replace("SAML", "Saml")  # SAMLart
    segments = ("_".join(_WORDS.findall(segment)) for segment in name[-MAX_NAME:].replace("[", ".").split("."))
    return ".".join(segment for segment in segments if segment).lower()


def announced(name: str) -> Announces:
    """Tell what a name announces, be it the key of an attribute or a name in a text."""
    words = canonical(name)
    if _ABOUT.search(words) and not _HAS_ID.search(words):
        return Announces.NOTHING
    if _ASKS.search(words):
        return Announces.NOTHING
    if _CERTAIN.search(words) and _CERTAIN.search(_OTHER_WORDS.sub("", words)):
        return (
            Announces.CERTAIN if _CERTAIN_END.search(words) and not _COMMON_WORD.search(words) else Announces.AMBIGUOUS
        )
    if _DIGITS.search(words) and (_ENDING.search(words) or _LAST_WORD.search(words)):
        return Announces.DIGITS
    if _CODE.search(words):
        return Announces.DIGITS
    if _ENDING.search(words):
        if _CURSOR.search(words):
            return Announces.NOTHING
        return Announces.CERTAIN if "pwd" in words else Announces.AMBIGUOUS
    if (_LAST_WORD.search(words) and not _OF_CODE.search(words)) or _WHOLE.match(words):
        return Announces.AMBIGUOUS
    if _IN_URL.match(words):
        return Announces.PARAMETER
    if _KEY.search(words) and not _FINDS.search(words) and " " not in name:
        return Announces.MIXED_KEY if words in ("key", "keys", "code") else Announces.KEY_LIKE
    return Announces.NOTHING


# Words that mean nothing else, but are often followed by prose.
_COMMON_WORD = re.compile(r"(?:\A|[_.])(?:authorization|credentials?|cookies?|[cx]srf|client[_.]?assertion)\Z|token")


@lru_cache(4096)
def in_text(name: bytes) -> Announces:
    """Tell what a name in a text announces; cached."""
    budget.spend(STEPS_OF_NAME)
    return announced(name.decode("latin-1"))
