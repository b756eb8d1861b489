"""Obfuscates commands of Redis, memcached and their kin: the command stays, its subcommand, options and names of keys.

Arguments are printed without quotes more often than not, so that a value with spaces looks like several. Hence a name
behind a value stays only where the values are already masked (`HSET h f ? g ?`), or stand in quotes. A line that does
not begin with a command belongs to the value above it.
"""

from __future__ import annotations

import re
from itertools import islice

from sampler_proxy.redact.texts import words
from sampler_proxy.redact.texts.words import MASK

# What the arguments are: k names of keys and channels, f of fields, v values, s a subcommand; the last two repeat
# where there is a star. Options and signs stay among values. What is not listed is `k` and values.
_ARGUMENTS = {
    "k": (
        "get getdel getex hgetall hkeys hvals hlen llen scard zcard smembers strlen type ttl pttl persist dump"
        " expiretime pexpiretime incr decr lpop rpop spop srandmember xlen"
    ),
    "kk": "rename renamenx smove lmove blmove copy rpoplpush brpoplpush geosearchstore zrangestore lcs",
    "k*": (
        "del unlink exists touch mget watch sunion sinter sdiff sunionstore sinterstore sdiffstore pfcount pfmerge"
        " gets subscribe unsubscribe psubscribe punsubscribe ssubscribe sunsubscribe blpop brpop keys gat gats"
    ),
    "kf": "hget hexists hstrlen hsetnx hincrby hincrbyfloat",
    "kf*": "hmget hdel",
    "kfv*": "hset hmset",
    "kv*": "mset msetnx",
    "": (
        "auth echo eval eval_ro evalsha evalsha_ro fcall fcall_ro hello ping quit select swapdb multi exec discard"
        " unwatch info dbsize flushall flushdb save bgsave bgrewriteaof lastsave time role sync psync replconf"
        " replicaof slaveof shutdown monitor wait waitaof failover asking readonly readwrite reset randomkey scan"
        " flush_all version stats verbosity"
    ),
    "sk*": "object memory",
    "sn": "config client",
    "s": "acl cluster command debug function latency module pubsub script sentinel slowlog",
    "sk": "xgroup xinfo",
    "vk": "bitop",
    "vvk": "migrate",
}
_KEYED = (
    "set setex psetex setnx getset append setrange getrange substr incrby incrbyfloat decrby setbit getbit bitcount"
    " bitpos bitfield bitfield_ro expire pexpire expireat pexpireat restore move sort sort_ro hscan hrandfield hexpire"
    " hpexpire lpush rpush lpushx rpushx linsert lset lrem ltrim lrange lindex lpos lmpop blmpop sadd srem sismember"
    " smismember sscan sintercard zadd zrem zincrby zscore zmscore zrank zrevrank zcount zlexcount zrange zrevrange"
    " zrangebyscore zrevrangebyscore zrangebylex zrevrangebylex zremrangebyrank zremrangebyscore zremrangebylex"
    " zpopmin zpopmax bzpopmin bzpopmax zrandmember zscan zunionstore zinterstore zdiffstore zunion zinter zdiff zmpop"
    " bzmpop xadd xack xclaim xautoclaim xdel xpending xrange xrevrange xread xreadgroup xtrim xsetid publish spublish"
    " pfadd geoadd geodist geohash geopos georadius georadiusbymember geosearch add replace prepend cas delete mg ms"
    " md ma mn me put"
)
_SHAPES = {
    **{command.encode(): "k" + "v" for command in _KEYED.split()},
    **{command.encode(): shape for shape, commands in _ARGUMENTS.items() for command in commands.split()},
}

_OPTIONS = frozenset(
    b"EX PX EXAT PXAT NX XX GT LT CH INCR KEEPTTL GET SET LIMIT BYSCORE BYLEX REV WITHSCORES WITHVALUES COUNT"
    b" MATCH TYPE STREAMS GROUP BLOCK NOACK MAXLEN MINID NOMKSTREAM LEFT RIGHT BEFORE AFTER ASC DESC ALPHA BY"
    b" STORE STOREDIST WEIGHTS AGGREGATE COPY REPLACE KEYS AUTH AUTH2 SETNAME DB FROMMEMBER FROMLONLAT"
    b" BYRADIUS BYBOX WITHCOORD WITHDIST WITHHASH ANY PERSIST JUSTID IDLE TIME RETRYCOUNT FORCE SAMPLES ABSTTL"
    b" FREQ OVERFLOW WRAP SAT FAIL INCRBY RANK noreply".split()
)
_SIGNS = re.compile(rb"[*~=+$><#@.-]{1,2}")
_SUBCOMMAND = re.compile(rb"[A-Za-z][A-Za-z-]{1,24}")
_ARGUMENT = re.compile(
    rb"([ \t]*+)(\"(?:[^\"\\]|\\.)*+\"(?=\s|\Z)|'(?:[^'\\]|\\.)*+'(?=\s|\Z)|\[\d+ other arguments\]|[^\s]++)"
)
_LINE = re.compile(rb"[^\r\n]*+(?:\r\n|\n|\r|\Z)")
_COMMAND = re.compile(rb"([ \t]*)([A-Za-z_]+(?:\.[A-Za-z_]+)*)(?=[\s;]|\Z)")

# Storing with memcached: what follows in the next lines is the value.
_STORING = re.compile(
    rb"(?i)\s*(?:(?:set|add|replace|append|prepend|cas)[ \t]+\S+(?:[ \t]+-?\d+){3,4}(?:[ \t]+noreply)?"
    rb"|ms[ \t]+\S+[^\r\n]*)[ \t]*\r?\n"
)

_KEY = re.compile(rb"[A-Za-z_$@{#*/\[\x80-\xff][^\s\"'\\=,;()<>]*+|\*")
_SEPARATORS = re.compile(rb"([:/|.{}]+)")
_ANNOUNCING = re.compile(
    rb"(?i)((?:.*[_-])?(?:sess(?:ions?)?|sid|sessionid|tokens?|auth|jwt|otp|totp|2fa|mfa|code|pin|reset|csrf|xsrf"
    rb"|api_?keys?"
    rb"|passwords?|secrets?|cookies?|nonce|verify|verification|confirm|invites?|magic|refresh|access|bearer"
    rb"|credentials?"
    rb"|login))(?:([_-])(.*))?"
)
_PLAIN = re.compile(rb"[a-z_*?-]{0,24}|[A-Z_*?-]{0,24}|[A-Z]?[a-z]{2,12}(?:[A-Z][a-z]{1,12})*|[0-9]{1,5}")
_ALL_TOKEN = re.compile(rb"(?=[^\s]*[0-9])(?=[^\s]*[A-Za-z])[A-Za-z0-9_+/=-]{20,}|[0-9a-fA-F]{16,}")
MAX_KEY = 256
MAX_ARGUMENTS = 512
"""What a command has beyond becomes one `?`."""
MAX_LINES = 1024
"""What a pipeline has beyond becomes one `?`."""


def obfuscate(text: bytes) -> bytes:
    """Return the commands, a line each, with `?` for every value. Idempotent, raises nothing.

    Of a key's name goes what follows a part that announces a secret (`session:9f8a7b6c` becomes `session:?`), but for
    plain words and short numbers; and a name that is nothing but a long token.
    """
    if (storing := _STORING.match(text)) is not None and text[storing.end() :].strip():
        end = len(storing[0].rstrip(b"\r\n"))
        rest = text[storing.end() :]
        return _line(text[:end]) + text[end : storing.end()] + MASK + rest[len(rest.rstrip()) :]
    out: list[bytes] = []
    first: bytes | None = None
    for number, found in enumerate(_LINE.finditer(text)):
        if number == MAX_LINES and found.start() < len(text):
            return b"".join((*out, MASK))
        line = found[0]
        bare = line.rstrip(b"\r\n")
        if not bare.strip():
            out.append(line)
            continue
        command = _COMMAND.match(bare)
        if first is None:
            first = command[2] if command else b""
            out.append(_line(bare) + line[len(bare) :])
        elif command and command[2].isupper() == first.isupper() and command[2].lower() in _SHAPES:
            out.append(_line(bare) + line[len(bare) :])
        else:
            out.append((bare if words.is_masked(bare.strip()) else MASK) + line[len(bare) :])
    return b"".join(out)


def _line(line: bytes) -> bytes:
    """Obfuscate one command."""
    found = _COMMAND.match(line)
    if found is None:
        return words.obfuscate(line)
    all_found = _ARGUMENT.finditer(line, found.end(), len(line.rstrip()))
    arguments = [(one[1], one[2]) for one in islice(all_found, MAX_ARGUMENTS)]
    more = b"" if next(all_found, None) is None else b" " + MASK
    shape = _SHAPES.get(found[2].lower())
    if shape is None:  # of a module, or another store
        shape = "nv"
    safe = all(words.is_masked(text) or _quoted(text) for text in _values(shape, arguments))
    out = [line[: found.end()]]
    valued = False
    for number, (space, text) in enumerate(arguments):
        kind = _kind(shape, number)
        kept = (
            words.is_masked(text)
            or (kind == "v" and (text in _OPTIONS or (number > 1 and text.islower() and text.upper() in _OPTIONS)))
            or (_SIGNS.fullmatch(text) is not None)
            or (kind == "s" and _SUBCOMMAND.fullmatch(text) is not None)
            or (kind == "n" and words.is_name(text))
        )
        if not kept and kind in ("k", "f") and (not valued or safe):
            text = _key(text)
            kept = True
        out += [space, text if kept else MASK]
        valued = valued or kind == "v"
    return b"".join((*out, more)) + line[len(line.rstrip()) :]


def _kind(shape: str, number: int) -> str:
    """Return what the argument of this number is."""
    if number < len(shape) and shape[number] != "*":
        return shape[number]
    if not shape.endswith("*"):
        return "v"
    repeated = {"k*": "k", "kf*": "f", "kfv*": "fv", "kv*": "kv", "sk*": "k"}[shape]
    return repeated[(number - (len(shape) - 1 - len(repeated))) % len(repeated)]


def _values(shape: str, arguments: list[tuple[bytes, bytes]]) -> list[bytes]:
    return [text for number, (_, text) in enumerate(arguments) if _kind(shape, number) == "v"]


def _quoted(text: bytes) -> bool:
    return len(text) > 1 and text[0] == text[-1] and text[0] in b"\"'"


def _key(text: bytes) -> bytes:
    """Return the name of a key without the secrets in it."""
    quote = text[:1] if _quoted(text) else b""
    name = text[1:-1] if quote else text
    if len(name) > MAX_KEY or not _KEY.fullmatch(name) or _ALL_TOKEN.fullmatch(name):
        return MASK if not words.is_masked(name) else text
    parts = _SEPARATORS.split(name)
    announced = False
    for i in range(0, len(parts), 2):
        found = _ANNOUNCING.fullmatch(parts[i])
        if announced and not _PLAIN.fullmatch(parts[i]):
            parts[i] = MASK
        elif found is not None and found[3] and not _PLAIN.fullmatch(found[3]):
            parts[i] = found[1] + found[2] + MASK
        announced = announced or found is not None
    return quote + b"".join(parts) + quote
