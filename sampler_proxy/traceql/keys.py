"""Parses the fields of `keep: {per: [...]}`, which tell traces apart, into the slots that they are read from.

Such a field is TraceQL for something that stands beside an operator: an attribute, or an intrinsic. It is read from one
span, the root of a trace, so that `rootName` is that span's name. Fields of events, links and the trace as a whole, and
fields that differ in every trace, are refused.
"""

from __future__ import annotations

from sampler_proxy.errors import TraceQLError
from sampler_proxy.traceql.ast import Attribute, Comparison, Filter, Intrinsic, Name, Scope
from sampler_proxy.traceql.parse import parse
from sampler_proxy.traceql.program import Field, Slot

_ATTRIBUTES = {
    Scope.SPAN: Field.SPAN_ATTRIBUTE,
    Scope.RESOURCE: Field.RESOURCE_ATTRIBUTE,
    Scope.INSTRUMENTATION: Field.SCOPE_ATTRIBUTE,
    Scope.ANY: Field.ANY_ATTRIBUTE,
}
_INTRINSICS = {
    Name.NAME: Slot(Field.NAME, b""),
    Name.ROOT_NAME: Slot(Field.NAME, b""),
    Name.ROOT_SERVICE: Slot(Field.RESOURCE_ATTRIBUTE, b"service.name"),
    Name.KIND: Slot(Field.KIND, b""),
    Name.STATUS: Slot(Field.STATUS, b""),
    Name.STATUS_MESSAGE: Slot(Field.STATUS_MESSAGE, b""),
    Name.SCOPE_NAME: Slot(Field.SCOPE_NAME, b""),
    Name.SCOPE_VERSION: Slot(Field.SCOPE_VERSION, b""),
}
_BEFORE = "{ "


def parse_key(text: str) -> Slot:
    """Parse one field. Raises `TraceQLError`, with an offset in `text`."""
    try:
        root = parse(f"{_BEFORE}{text} = {text} }}").root
    except TraceQLError as error:
        raise TraceQLError(error.message, min(max(error.offset - len(_BEFORE), 0), len(text))) from None
    match root:
        case Filter(condition=Comparison(left=Attribute(scope=scope, key=key))) if scope in _ATTRIBUTES:
            return Slot(_ATTRIBUTES[scope], key)
        case Filter(condition=Comparison(left=Intrinsic(name=name))) if name in _INTRINSICS:
            return _INTRINSICS[name]
    raise TraceQLError(
        "not a field that tells traces apart: write an attribute such as resource.service.name, or one of rootName, "
        "rootServiceName, kind, status, statusMessage, instrumentation:name",
        0,
    )
