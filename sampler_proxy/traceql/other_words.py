"""Translates what other query languages, APIs and habits write into TraceQL: for refusals, and for nothing else.

Words are compared without case, dots, colons and underscores: `trace_id`, `traceID` and `trace.id` are one word.
"""

from __future__ import annotations

import re

_SEPARATORS = re.compile(r"[._:]")

_MEANT = {
    "resource.service.name": "service servicename app application applicationname microservice",
    "resource.deployment.environment.name": "environment env stage",
    "resource.host.name": "host hostname",
    "resource.k8s.namespace.name": "namespace",
    "resource.k8s.pod.name": "pod podname",
    "span.http.route": "route endpoint",
    "span.http.request.method": "method",
    "span.http.response.status_code": "httpstatus httpcode responsecode",
    "span.url.full": "url",
    "span.url.path": "path",
    "name": "operation operationname spanname rootoperation",
    "duration": "latency elapsed elapsedtime spanduration durationms durationnano responsetime",
    "traceDuration": "tracelatency",
    "rootName": "rootspan rootspanname roottracename rootoperationname",
    "rootDuration": "rootspanduration rootlatency",
    "status": "statuscode spanstatus spanstatuscode",
    "statusMessage": "message statusdescription spanstatusmessage",
    "kind": "spankind",
    "trace:id": "traceid",
    "span:id": "spanid",
    "span:parentID": "parentid parentspanid",
    "nestedSetParent < 0": "root isroot isrootspan",
    "event:name": "eventname",
    "instrumentation:name": "scopename libraryname otelscopename otellibraryname",
    "instrumentation:version": "scopeversion libraryversion otelscopeversion otellibraryversion",
    "nil": "null none undefined nul",
    "error": "err failed failure",
    "{ ... } | count() > 3": "count spancount spanscount tracesize",
}
_BY_WORD = {word: meant for meant, words in _MEANT.items() for word in words.split()}
_PREFIXES = ("statuscode", "spankind")  # of the names in OTLP: STATUS_CODE_ERROR, SPAN_KIND_SERVER

SCOPES = {
    **dict.fromkeys(("tags", "tag", "attrs", "attr", "attributes", "attribute"), "span"),
    **dict.fromkeys(("res", "resources"), "resource"),
    **dict.fromkeys(("scope", "library"), "instrumentation"),
}
"""Other names of a scope, in lower case."""

_PART = 'write =~ with a regular expression for the whole value, such as =~ ".*part.*"'
_ANY_CASE = 'write =~ "(?i)..." to match in upper and lower case'
_OPERATORS = {
    "in": "write = for each value, joined by ||, or one =~ for several texts",
    "not": "write != or !~ here, or ! before a condition in parentheses",
    "is": "write = or !=, as in = nil",
    "between": "write >= and <=, joined by &&",
    "exists": "write != nil",
    **dict.fromkeys(("like", "contains", "matches", "regex", "startswith", "endswith", "includes"), _PART),
    "ilike": _ANY_CASE,
    **dict.fromkeys(("eq", "equals"), "write ="),
    **dict.fromkeys(("ne", "neq"), "write !="),
    "gt": "write >",
    "gte": "write >=",
    "ge": "write >=",
    "lt": "write <",
    "lte": "write <=",
    "le": "write <=",
}
_FUNCTIONS = {
    **dict.fromkeys(("exists", "has", "defined", "isset", "isnull", "isnotnull"), "write span.x != nil"),
    **dict.fromkeys(("lower", "upper", "tolower", "toupper", "ilike"), _ANY_CASE),
    **dict.fromkeys(("contains", "startswith", "endswith", "matches", "regex", "regexp", "like", "ismatch"), _PART),
    **dict.fromkeys(("mean", "average"), "write avg"),
    **dict.fromkeys(("len", "length", "size"), "write count"),
    "total": "write sum",
    "not": "write ! instead of it",
}
_QUANTILE = re.compile(r"p[0-9]+|percentile|quantile|median")
_CHARACTERS = {
    **dict.fromkeys(",;", "write && or || between conditions"),
    "#": "comments begin with //",
    "$": "variables are not known here: write the value, or ${env:NAME} for one of the environment",
    **dict.fromkeys("“”„‘’«»", 'write plain double quotes: "'),
}


def plain(word: str) -> str:
    """Return a word without what people write differently."""
    return _SEPARATORS.sub("", word).lower()


def name_or_value(word: str) -> str | None:
    """Say what is written in TraceQL for a name or a constant of others; None where nobody knows."""
    return _BY_WORD.get(plain(word))


def without_prefix(word: str) -> str:
    """Return the constant of a status or kind that is written as in OTLP, in lower case; else the word."""
    for prefix in _PREFIXES:
        if plain(word).startswith(prefix):
            return plain(word).removeprefix(prefix)
    return word


def operator(word: str) -> str | None:
    """Say what is written instead of a word that stands for an operator; None where it is none."""
    return _OPERATORS.get(word.lower())


def function(word: str) -> str | None:
    """Say what is written instead of a function of others; None where nobody knows."""
    if _QUANTILE.fullmatch(word.lower()):
        return "quantiles are not supported, write count, min, max, avg or sum"
    return _FUNCTIONS.get(plain(word))


def character(one: str) -> str | None:
    """Say what is written instead of a character that TraceQL does not have; None where nobody knows."""
    return _CHARACTERS.get(one)
