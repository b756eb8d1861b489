"""Knows how statements of SQL begin, and where they have secrets without quotes. Works on shapes: literals are `?`."""

from __future__ import annotations

import re
from typing import Protocol

from sampler_proxy.redact.regexes import regex

_NAME = r"(?:[\w.$@\x80-\xff\"`\[\]-]+)"
_NAMES = rf"{_NAME}(?:\s*\([^()]*\))?(?:\s*,\s*{_NAME}(?:\s*\([^()]*\))?)*"
_END = r"\s*(?:;|\z)"
_KINDS = (
    r"TABLE|VIEW|INDEX|DATABASE|SCHEMA|USER|ROLE|LOGIN|FUNCTION|PROC|PROCEDURE|TRIGGER|SEQUENCE|TYPE|EXTENSION|KEYSPACE"
    r"|MATERIALIZED|TEMP|TEMPORARY|UNIQUE|CLUSTERED|NONCLUSTERED|FULLTEXT|SPATIAL|EXTERNAL|FOREIGN|SERVER|POLICY|DOMAIN"
    r"|AGGREGATE|CAST|COLLATION|CONVERSION|EVENT|TABLESPACE|PUBLICATION|SUBSCRIPTION|RULE|OPERATOR|LANGUAGE|SYNONYM"
    r"|PACKAGE|PROFILE|DIRECTORY|CONTEXT|STAGE|STREAM|TASK|PIPE|WAREHOUSE|FILE|SHARE|SECRET|CONNECTION|CREDENTIAL"
    r"|DICTIONARY|LIVE|ROW|GROUP|ACCOUNT|RESOURCE|MODEL|CONSTRAINT|SYSTEM|SESSION|DEFAULT|OR|UNLOGGED|GLOBAL|LOCAL"
    r"|VIRTUAL|QUOTA|SETTINGS|NAMED|MASTER|SYMMETRIC|ASYMMETRIC|CERTIFICATE|PUBLIC|PRIVATE|AUDIT|SEARCH|STATISTICS"
    r"|ASSEMBLY|ENDPOINT|XML|PARTITION|INSTANCE|SNAPSHOT|PERSISTENT|MULTISET|VOLATILE|TRANSIENT|BITMAP|PREPARED|EDITION"
    r"|PLUGGABLE|LARGE|OWNED|INTEGRATION|API|SECURITY|NOTIFICATION|STORAGE|NETWORK|MASKING|TAG|CATALOG|ALGORITHM"
    r"|DEFINER|SQL|FORCE|NO|PRIMARY|COLUMN|CHANGEFEED|DATASHARE|AVAILABILITY"
)
_SHOWN = (
    r"ALL|FULL|CREATE|GLOBAL|SESSION|EXTENDED|TABLES?|DATABASES?|SCHEMAS?|COLUMNS|FIELDS|INDEX|INDEXES|KEYS|VARIABLES"
    r"|STATUS|PROCESSLIST|GRANTS|WARNINGS|ERRORS|ENGINES?|TRIGGERS|EVENTS|PROCEDURE|FUNCTIONS?|MASTER|SLAVE|REPLICAS?"
    r"|BINARY|BINLOG|PLUGINS|PRIVILEGES|CHARACTER|COLLATION|COUNT|OPEN|PARTITIONS|VIEWS|WAREHOUSES|ROLES|USERS|STAGES"
    r"|TRANSACTION|CATALOGS|RETENTION|CONTINUOUS|MEASUREMENTS|SERIES|FIELD|DICTIONARIES|CLUSTERS?|JOBS?"
)
_SET = (
    r"[\w.@\"`\[\]$-]+\s*[:+|-]?=|\((?:\s*@?\w+\s*,?)+\)\s*=|[\w.]+\s+TO\s|(?:SESSION|LOCAL|GLOBAL|PERSIST"
    r"|PERSIST_ONLY)\s+[\w.\"`]+\s*(?:=|TO\s)"
    r"|(?:SESSION|LOCAL)\s+(?:CHARACTERISTICS|AUTHORIZATION|TRANSACTION|TIME)\b"
    r"|(?:GLOBAL\s+)?TRANSACTION\s+(?:ISOLATION|READ|SNAPSHOT|NAME|WRITE|DEFERRABLE|NOT|USE)"
    r"|(?:NAMES|ROLE|SCHEMA|CATALOG|CONSTRAINTS?|TIME\s+ZONE|CHARACTER\s+SET|CHARSET|DEFAULT\s+ROLE|CURRENT"
    r"|PATH)\s+[^\s;]+(?:\s+(?:DEFERRED|IMMEDIATE|COLLATE\s+\S+))?"
    rf"{_END}"
    r"|PASSWORD\b|(?:IDENTITY_INSERT\s+\S+|\w+(?:\s+\w+)?)\s+(?:ON|OFF)\b|(?:LOCK_TIMEOUT|ROWCOUNT|DATEFIRST"
    r"|DATEFORMAT|LANGUAGE|TEXTSIZE)\s"
)
_BLOCK = (
    r"WORK|TRAN|TRANSACTION|TRY|CATCH|DEFERRED|IMMEDIATE|EXCLUSIVE|CONCURRENT|ISOLATION|READ|NOT|ATOMIC|NULL|SELECT"
    r"|INSERT"
    r"|UPDATE|DELETE|MERGE|CALL|EXEC|EXECUTE|SET|DECLARE|IF|FOR|OPEN|RETURN|RAISE|BATCH|UNLOGGED|COUNTER|DISTRIBUTED"
)

# What a text must begin with, before anything is read: the verbs of `_BEGINS`, behind comments.
_MAY_BEGIN = re.compile(
    rb"(?is)(?:[\s(;{]|\?\s*=|/\*.*?\*/|--[^\n]*+|#[^\n]*+|//[^\n]*+)*+(?:SELECT|INSERT|UPDATE|DELETE|REPLACE"
    rb"|UPSERT|MERGE|WITH"
    rb"|FROM|VALUES|TABLE|CREATE|ALTER|DROP|TRUNCATE|RENAME|COMMENT|GRANT|REVOKE|EXPLAIN|DESC|ANALY[SZ]E|VACUUM|REINDEX"
    rb"|OPTIMIZE|REFRESH|CHECK|REPAIR|CLUSTER|MSCK|SHOW|USE|CALL|EXEC|DO|DECLARE|PREPARE|DEALLOCATE|FETCH|CLOSE"
    rb"|OPEN|COPY"
    rb"|UNLOAD|LOAD|EXPORT|LOCK|UNLOCK|LISTEN|UNLISTEN|NOTIFY|BEGIN|START|APPLY|COMMIT|ROLLBACK|END|ABORT|SAVEPOINT"
    rb"|RELEASE|PRAGMA|ATTACH|DETACH|RESET|DISCARD|KILL|FLUSH|BACKUP|RESTORE|DBCC|IF|CONN|SET)"
)

# Enough of each to tell it from a command of Redis, or from a sentence.
_BEGINS = regex(
    rf"(?is)\A[\s(;]*(?:"
    r"SELECT(?:\s[^\x00]*[(*,.@?:$=\"`\[]|\s[^\x00]*\bFROM\b|[(*?'\"`]"
    rf"|\s+(?:DISTINCT\s+|ALL\s+)?[\w\x80-\xff]+{_END})"
    r"|INSERT\s[^\x00]*?\b(?:INTO|VALUES?|SELECT|OVERWRITE|DEFAULT)\b"
    r"|UPDATE\s[^\x00]*?\bSET\b|DELETE\s[^\x00]*?\b(?:FROM|WHERE)\b"
    r"|(?:REPLACE|UPSERT)\s+(?:LOW_PRIORITY\s+|DELAYED\s+)?INTO\b|(?:REPLACE|UPSERT)\s+\S+\s*"
    r"(?:\([^()]*\)\s*)?VALUES\s*\("
    r"|MERGE\s+INTO\b|MERGE\s[^(][^\x00]*?\bUSING\b"
    r"|WITH\s[^\x00]*?\bAS\b[^\x00]*?\b(?:SELECT|INSERT|UPDATE|DELETE|MERGE|VALUES|TABLE)\b"
    rf"|FROM\s[^\x00]*?\bSELECT\b|VALUES\s*\(|TABLE\s+{_NAME}{_END}"
    rf"|(?:CREATE|ALTER|DROP)\s+(?:{_KINDS})\s|TRUNCATE\s+(?:TABLE\s+)?(?:ONLY\s+)?{_NAMES}(?:\s+(?:RESTART"
    rf"|CONTINUE|CASCADE|RESTRICT)\b[^\x00]*)?{_END}"
    rf"|RENAME\s+(?:TABLE|COLUMN|USER|DATABASE|INDEX|VIEW|OBJECT)\s|RENAME\s+{_NAME}\s+TO\s"
    r"|COMMENT\s+ON\s|GRANT\s[^\x00]*?\bTO\b|REVOKE\s[^\x00]*?\bFROM\b"
    r"|EXPLAIN\s[^\x00]*?\b(?:SELECT|INSERT|UPDATE|DELETE|MERGE|REPLACE|TABLE|CREATE|PLAN|EXECUTE|DECLARE|VALUES"
    r"|CALL)\b"
    rf"|(?:EXPLAIN|DESCRIBE|DESC)\s+(?:(?:TABLE|EXTENDED|FORMATTED|FUNCTION|DATABASE)\s+)*{_NAME}{_END}"
    r"|(?:ANALY[SZ]E|VACUUM|REINDEX|OPTIMIZE|REFRESH|CHECK|REPAIR|CHECKSUM|CLUSTER|MSCK)(?:\s*\([^()]*\))?"
    r"(?:\s+(?:TABLES?|INDEX|DATABASE|SCHEMA|SYSTEM|MATERIALIZED|VIEW|CONCURRENTLY|LOCAL|FULL|FREEZE|VERBOSE|ANALYZE"
    rf"|REPAIR|NO_WRITE_TO_BINLOG|DYNAMIC))*(?:\s+{_NAMES})?(?:\s+(?:FINAL|DEDUPLICATE|FOR|COMPUTE|USING|WITH"
    rf"|PARTITION|ON)\b[^\x00]*)?{_END}"
    rf"|SHOW\s+(?:{_SHOWN})\b|SHOW\s+{_NAME}{_END}|USE\s+(?:(?:DATABASE|SCHEMA|WAREHOUSE|ROLE"
    rf"|CATALOG)\s+)?{_NAME}{_END}"
    rf"|CALL\s+{_NAME}(?:\s*\(|{_END})|\{{\s*(?:\?\s*=\s*)?CALL\s"
    rf"|EXEC(?:UTE)?\s+(?:@\w+\s*=\s*)?{_NAME}(?:{_END}|\s+[@?:N]|\s*\(|\s+\S+(?:\s*,|{_END}))"
    r"|EXEC(?:UTE)?(?:\s*\(|\s+(?:IMMEDIATE|PROCEDURE|BLOCK|AS)\s|\s+\w+\s+USING\s)"
    r"|DO\s*(?:\?|LANGUAGE\b)|DECLARE\s[^\x00]*?(?:@|\bCURSOR\b|\bBEGIN\b|:=)"
    rf"|PREPARE\s+TRANSACTION\b|PREPARE\s+\w+\s*(?:\([^()]*\)\s*)?(?:AS|FROM)\s|DEALLOCATE\s+"
    rf"(?:PREPARE\s+)?{_NAME}{_END}"
    rf"|FETCH\s[^\x00]*?\b(?:FROM|IN|INTO)\b|(?:FETCH|CLOSE|OPEN)\s+(?:NEXT\s+)?{_NAME}{_END}|OPEN\s[^\x00]*?\b"
    rf"(?:FOR|SYMMETRIC|MASTER)\b"
    r"|(?:COPY|UNLOAD)\b[^\x00]*?\b(?:FROM|TO)\b|LOAD\s+(?:DATA|XML|EXTENSION|TABLE)\b|EXPORT\s+(?:DATA|DATABASE)\b"
    rf"|LOCK\s+TABLES?\s|LOCK\s+{_NAMES}\s+IN\s|UNLOCK\s+TABLES{_END}"
    rf"|(?:UN)?LISTEN\s+(?:\*|{_NAME}){_END}|NOTIFY\s+{_NAME}(?:\s*,|{_END})"
    rf"|BEGIN(?:{_END}|\s+(?:{_BLOCK})\b|\s+[\w.]+\s*(?:\(|:=|;))|START\s+TRANSACTION\b|APPLY\s+BATCH\b"
    rf"|(?:COMMIT|ROLLBACK|END|ABORT)(?:{_END}|\s+(?:WORK|TRAN|TRANSACTION|PREPARED|AND|TO)\b)"
    rf"|SAVEPOINT\s+{_NAME}{_END}|RELEASE\s+(?:SAVEPOINT\s+)?{_NAME}{_END}"
    rf"|PRAGMA\s+[\w.]+\s*(?:=|\(|;|\z)|(?:ATTACH|DETACH)\s+(?:DATABASE\b|\?|PARTITION\b|TABLE\b|{_NAME}{_END})"
    rf"|(?:RESET|DISCARD)\s+(?:ALL|PLANS|TEMP|SEQUENCES|ROLE|{_NAME}){_END}|KILL\s+(?:\w+\s+)?\?{_END}"
    rf"|FLUSH\s+(?:PRIVILEGES|TABLES|LOGS|STATUS|HOSTS)\b|CHECKPOINT{_END}|(?:BACKUP|RESTORE)\s+(?:DATABASE|LOG"
    rf"|TABLE)\s"
    r"|DBCC\s+\w+|IF\s[^\x00]*?(?:EXISTS|SELECT|\bBEGIN\b|@|\bOBJECT_ID\b)|CONN(?:ECT)?\s+(?:TO\s|[\w.\"]+\s*/"
    r"|\w+\s+IDENTIFIED\s)"
    rf"|SET\s+(?:{_SET}))"
)

# Passwords and the like that need no quotes. The word behind goes, up to a space.
_BARE = r"([^\s;,()?'\"=][^\s;]*)"
_SECRET = (
    r"\w*(?:PASSWORD|PASSWD|PWD|PASSPHRASE|SECRET|TOKEN|CREDENTIALS?|(?:ACCESS|SECRET|API|ACCOUNT|PRIVATE"
    r"|SAS)_?KEY(?:_ID)?)"
    r"|KEY_ID"
)
_MAY_HOLD = regex(
    r"(?i)\bIDENTIFIED\b|PASSWORD|PASSWD|\bPWD\b|PASSPHRASE|SECRET|TOKEN|CREDENTIAL|KEY|\bCONN(?:ECT)?\b|\bEXEC"
    r"(?:UTE)?\b"
)
_IDENTIFIED = regex(
    rf"(?i)(\bIDENTIFIED\s+(?:(?:WITH|VIA)\s+\w+\s+)?(?:BY|AS|USING)\s+(?:(?:PASSWORD|VALUES|RANDOM)\s+)?){_BARE}"
)
_REPLACED = regex(rf"(?i)(\bIDENTIFIED\s+BY\s+\?\s+REPLACE\s+){_BARE}")
_CONNECT = regex(rf"(?i)(\bCONN(?:ECT)?\s+(?:[\w.]+\s*/\s*|TO\s[^;]*?\bUSING\s+)){_BARE}")
_ASSIGNING = regex(
    r"(?is)(?:\A|;|\bBEGIN\b)[\s(]*(?:CREATE|ALTER|SET|COPY|UNLOAD|ATTACH|PRAGMA|OPEN|BACKUP|RESTORE)\s[^;]*"
)
_ASSIGNED = regex(rf"(?i)(\b(?:{_SECRET}|PRAGMA\s+\w*KEY)(?:\s+FOR\s+\S+)?\s*(?::?=|\bTO\b)\s*){_BARE}")
_FOLLOWED = regex(
    r"(?is)\A[\s;(]*(?:BEGIN\s+)?(?:(?:CREATE|ALTER)\s+(?:\w+\s+){0,3}?"
    r"(?:USER|ROLE|LOGIN|GROUP|ACCOUNT|SERVER|SECRET|CREDENTIAL|CONNECTION|STAGE|SUBSCRIPTION|LINK)\s"
    r"|(?:COPY|UNLOAD|ATTACH|SET\s+PASSWORD|BACKUP|RESTORE|OPEN)\b)"
)
_FOLLOWING = regex(rf"(?i)((?:\b{_SECRET}|(?:\bAS\s+\w+\s+|[(,]\s*)KEY)\s+){_BARE}")
_NO_SECRETS = frozenset(
    b"EXPIRE EXPIRED NULL NEVER HISTORY REUSE REQUIRE DEFAULT OPTION OPTIONAL CURRENT FROM IS AS NOT VALUES"
    b" PASSWORD FOR TO"
    b" BY LOCK UNLOCK ENVIRONMENT MUST_CHANGE HASHED RANDOM VERIFY FUNCTION INTERVAL VALIDITY ENCRYPTED UNENCRYPTED"
    b" AND OR"
    b" ON OFF WITH USING NONE TRUE FALSE EXTERNALLY GLOBALLY LOGIN IF EXISTS TEXT VARCHAR".split()
)
_EXEC = regex(
    r"(?i)((?:\A|;|\bBEGIN\s)\s*EXEC(?:UTE)?\s+(?:@\w+\s*=\s*)?)([\w.\[\]]+)([ \t]+)([^\s;()@?=-][^;()\n]*"
    r"|@\w+\s*=[^;()\n]*)"
)
_NO_PROCEDURES = frozenset((b"IMMEDIATE", b"PROCEDURE", b"FUNCTION", b"BLOCK", b"AS", b"ON"))
_NO_ARGUMENTS = regex(r"(?i)\A(?:USING|INTO|SELECT|INSERT|UPDATE|DELETE|IF|DECLARE|SET|END|GO|WITH|AS|AT)\b")
_ARGUMENT = regex(r"(^|,\s*|@\w+\s*=\s*)([A-Za-z_\x80-\xff][^\s,;@?=()]*)")


class _Found(Protocol):
    """A match of RE2, which has no types."""

    def __getitem__(self, group: int) -> bytes: ...


def may_begin(text: bytes) -> bool:
    """Tell whether a text could begin like SQL once it has no literals and comments."""
    return _MAY_BEGIN.match(text) is not None


def begin(shape: bytes) -> bool:
    """Tell whether a text begins like SQL."""
    return _BEGINS.search(shape) is not None


def without_bare_secrets(shape: bytes) -> bytes:
    """Return the shape with `?` for the secrets that stand in it without quotes. Idempotent."""
    if not _MAY_HOLD.search(shape):
        return shape
    for pattern, rewrite in (
        (_IDENTIFIED, _masked),
        (_REPLACED, _masked),
        (_CONNECT, _masked),
        (_EXEC, _without_arguments),
        (_ASSIGNING, _assigned),
    ):
        shape = pattern.sub(rewrite, shape)
    return shape


def _masked(found: _Found) -> bytes:
    """Write what a secret follows, and `?` for the secret."""
    whole, before, secret = found[0], found[1], found[2]
    word = secret.rstrip(b"),")
    return whole if word.upper() in _NO_SECRETS or b"(?" in word else before + b"?" + secret[len(word) :]


def _assigned(found: _Found) -> bytes:
    """Mask the secrets of one statement: those that are assigned and, where the grammar wants no sign, follow."""
    statement: bytes = _ASSIGNED.sub(_masked, found[0])
    verb = _FOLLOWED.search(statement)
    end = 0 if verb is None else verb.end()
    following: bytes = _FOLLOWING.sub(_masked, statement[end:])
    return statement[:end] + following if end else statement


def _without_arguments(found: _Found) -> bytes:
    """Mask the arguments of a procedure of Transact-SQL, where a bare word is a string."""
    if found[2].upper() in _NO_PROCEDURES or _NO_ARGUMENTS.search(found[4]):
        return found[0]
    arguments: bytes = _ARGUMENT.sub(_argument, found[4])
    return found[1] + found[2] + found[3] + arguments


def _argument(found: _Found) -> bytes:
    return found[0] if found[2].upper() in (b"NULL", b"DEFAULT", b"OUTPUT") else found[1] + b"?"
