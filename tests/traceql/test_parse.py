"""What parses and to which tree; what is refused, where and with which advice; that nothing else ever happens."""

import math
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampler_proxy.errors import TraceQLError
from sampler_proxy.traceql import ast
from sampler_proxy.traceql.parse import MAX_BYTES, MAX_DEPTH, parse, warnings
from sampler_proxy.traceql.program import Op

_OPS = {Op.EQ: "=", Op.NE: "!=", Op.LT: "<", Op.LE: "<=", Op.GT: ">", Op.GE: ">=", Op.MATCH: "=~", Op.NOT_MATCH: "!~"}


def dump(node: ast.Node) -> str:
    """The tree as text: everything in parentheses, constants with their types, names resolved."""
    match node:
        case ast.Literal(_, ast.Type.STRING, value):
            return repr(value)[1:]
        case ast.Literal(_, ast.Type.REGEX, value):
            return f"/{value.pattern.decode()}/"
        case ast.Literal(_, kind, value):
            return f"{kind.name.lower()}:{value}"
        case ast.Attribute(_, scope, key):
            return f"{scope.value}{key.decode()}"
        case ast.Intrinsic(_, name):
            return name.value
        case ast.Arithmetic(_, op, left, right) | ast.Structural(_, op, left, right):
            return f"({dump(left)} {op} {dump(right)})"
        case ast.Negative(_, operand):
            return f"-{dump(operand)}"
        case ast.Not(_, operand):
            return f"!{dump(operand)}"
        case ast.Comparison(_, op, left, None):
            return f"({dump(left)} {'is' if op is Op.IS_NIL else 'not'} nil)"
        case ast.Comparison(_, op, left, right):
            return f"({dump(left)} {_OPS[op]} {dump(right)})"
        case ast.Logical(_, op, operands) | ast.SpansetLogical(_, op, operands):
            return "(" + f" {op} ".join(map(dump, operands)) + ")"
        case ast.Filter(_, condition):
            return "{" + dump(condition) + "}"
        case ast.Aggregate(_, function, argument, op, value):
            return f"{function}({'' if argument is None else dump(argument)}) {_OPS[op]} {dump(value)}"
        case ast.Pipeline(_, stages):
            return "[" + " | ".join(map(dump, stages)) + "]"
    raise AssertionError(node)


PARSED = [
    ("{}", "{bool:True}"),
    ("{ }", "{bool:True}"),
    ("{ true }", "{bool:True}"),
    ("{ !true }", "{bool:False}"),
    ("{ true && false }", "{(bool:True && bool:False)}"),
    ("{ span.flag }", "{span.flag}"),
    ("{ !span.flag }", "{!span.flag}"),
    ("{ !!.flag }", "{!!.flag}"),
    ("{ .a && !.b || .c }", "{((.a && !.b) || .c)}"),
    ("{ span.a = 2 }", "{(span.a = int:2)}"),
    ("{ span.a != 2 }", "{(span.a != int:2)}"),
    ('{ resource.service.name = "shop" }', "{(resource.service.name = 'shop')}"),
    ("{ .a >= 2.5 }", "{(.a >= float:2.5)}"),
    ("{ .a <= .5 }", "{(.a <= float:0.5)}"),
    ("{ .a < 5. }", "{(.a < float:5.0)}"),
    ("{ .a > 1e3 }", "{(.a > float:1000.0)}"),
    ("{ .a > 1.5E-2 }", "{(.a > float:0.015)}"),
    ("{ .a = 007 }", "{(.a = int:7)}"),
    ("{ 2 = .a }", "{(.a = int:2)}"),
    ("{ 2 < .a }", "{(.a > int:2)}"),
    ("{ 2 <= .a }", "{(.a >= int:2)}"),
    ("{ 2 > .a }", "{(.a < int:2)}"),
    ("{ 2 >= .a }", "{(.a <= int:2)}"),
    ("{ 2 != .a }", "{(.a != int:2)}"),
    ("{ .a = true }", "{(.a = bool:True)}"),
    ("{ false != .a }", "{(.a != bool:False)}"),
    ("{ .a = -1 }", "{(.a = int:-1)}"),
    ("{ .a = - 1.5 }", "{(.a = float:-1.5)}"),
    ("{ .a > -5s }", "{(.a > duration:-5000000000)}"),
    ("{ .a = minInt || .a = maxInt }", "{((.a = int:-9223372036854775808) || (.a = int:9223372036854775807))}"),
    ("{ .a = 9223372036854775807 }", "{(.a = int:9223372036854775807)}"),
    ('{ .a = "" }', "{(.a = '')}"),
    ('{ .a = "a\\tb\\n\\"\\\\\\a\\b\\f\\r\\v" }', "{(.a = 'a\\tb\\n\"\\\\\\x07\\x08\\x0c\\r\\x0b')}"),
    ('{ .a = "\\x41\\101\\u00e9\\U0001F600" }', "{(.a = 'AA\\xc3\\xa9\\xf0\\x9f\\x98\\x80')}"),
    ('{ .a = "\\xff" }', "{(.a = '\\xff')}"),
    ('{ .a = "ü€😀" }', "{(.a = '\\xc3\\xbc\\xe2\\x82\\xac\\xf0\\x9f\\x98\\x80')}"),
    ('{ .a = `raw \\n "text"` }', "{(.a = 'raw \\\\n \"text\"')}"),
    ('{ .a = "braces } and && || { | inside" }', "{(.a = 'braces } and && || { | inside')}"),
    ('{ .a = "// no comment" }', "{(.a = '// no comment')}"),
    ('{ name = "x" } // a comment', "{(span:name = 'x')}"),
    ('{ /* one */ name /* two */ = "x" }', "{(span:name = 'x')}"),
    ("{ span.n-1 > 0 }", "{(span.n-1 > int:0)}"),
    ("{ .a*2/3+4%5 = 1 }", "{(.a*2/3+4%5 = int:1)}"),
    ("{ .foo;:'[]@#$?`=1 }", "{(.foo;:'[]@#$?` = int:1)}"),
    ("{ span.größe = 1 }", "{(span.größe = int:1)}"),
    ('{ span."foo bar" = "v" }', "{(span.foo bar = 'v')}"),
    ('{ ."a=b" = 1 }', "{(.a=b = int:1)}"),
    ('{ .foo."bar baz".qux = 1 }', "{(.foo.bar baz.qux = int:1)}"),
    ('{ ."quo\\"te\\\\" = 1 }', '{(.quo"te\\ = int:1)}'),
    ('{ .x"y z"w = 1 }', "{(.xy zw = int:1)}"),
    ("{ span.span.a = 1 }", "{(span.span.a = int:1)}"),
    ("{ span.resource.a = 1 }", "{(span.resource.a = int:1)}"),
    ("{ .3 < .a }", "{(.a > float:0.3)}"),
    ("{ span.3 = 1 }", "{(span.3 = int:1)}"),
    ('{ ."3" = 1 }', "{(.3 = int:1)}"),
    ("{.a=1}", "{(.a = int:1)}"),
    ("{.a=1&&.b=2}", "{((.a = int:1) && (.b = int:2))}"),
    ('{.a="x"||.b=2}', "{((.a = 'x') || (.b = int:2))}"),
    ("{.a>-1}", "{(.a > int:-1)}"),
    ("{.a=!.b}", "{(.a = !.b)}"),
    ('{ event.exception.message =~ ".*timeout.*" }', "{(event.exception.message =~ /.*timeout.*/)}"),
    ('{ link.kind = "x" }', "{(link.kind = 'x')}"),
    ('{ instrumentation.language = "java" }', "{(instrumentation.language = 'java')}"),
    (
        '{ event:name = "exception" && event:timeSinceStart > 2ms }',
        "{((event:name = 'exception') && (event:timeSinceStart > duration:2000000))}",
    ),
    ('{ link:traceID = "ab" || link:spanID = "cd" }', "{((link:traceID = 'ab') || (link:spanID = 'cd'))}"),
    (
        '{ instrumentation:name = "grpc" && instrumentation:version != "1" }',
        "{((instrumentation:name = 'grpc') && (instrumentation:version != '1'))}",
    ),
    ('{ name = "x" && span:name = "x" }', "{((span:name = 'x') && (span:name = 'x'))}"),
    (
        "{ status = error || status = ok || status = unset }",
        "{((span:status = status:2) || (span:status = status:1) || (span:status = status:0))}",
    ),
    ("{ error = status }", "{(span:status = status:2)}"),
    ("{ span:status != error }", "{(span:status != status:2)}"),
    (
        '{ statusMessage =~ "a.*" && span:statusMessage = "" }',
        "{((span:statusMessage =~ /a.*/) && (span:statusMessage = ''))}",
    ),
    (
        "{ kind = server && kind != client && span:kind = producer }",
        "{((span:kind = kind:2) && (span:kind != kind:3) && (span:kind = kind:4))}",
    ),
    (
        "{ kind = consumer || kind = internal || kind = unspecified }",
        "{((span:kind = kind:5) || (span:kind = kind:1) || (span:kind = kind:0))}",
    ),
    (
        "{ duration > 100ms && span:duration <= 1h30m }",
        "{((span:duration > duration:100000000) && (span:duration <= duration:5400000000000))}",
    ),
    ("{ duration > 1 }", "{(span:duration > int:1)}"),
    ("{ duration > 1.5s }", "{(span:duration > duration:1500000000)}"),
    ("{ duration > 1h15m30.918273645s }", "{(span:duration > duration:4530918273645)}"),
    ("{ duration > .24h }", "{(span:duration > duration:864000000000)}"),
    ("{ duration != 1d }", "{(span:duration != duration:86400000000000)}"),
    ("{ duration = 1w }", "{(span:duration = duration:604800000000000)}"),
    ("{ duration = 1y2w3d }", "{(span:duration = duration:33004800000000000)}"),
    ("{ duration = 5ns }", "{(span:duration = duration:5)}"),
    ("{ duration = 5us }", "{(span:duration = duration:5000)}"),
    ("{ duration = 5µs }", "{(span:duration = duration:5000)}"),
    ("{ duration = 5μs }", "{(span:duration = duration:5000)}"),
    ("{ duration > 30s1m }", "{(span:duration > duration:90000000000)}"),
    ("{ duration > 1s * 2 }", "{(span:duration > float:2000000000.0)}"),
    ("{ duration > 10 * 1024 * 1024 }", "{(span:duration > int:10485760)}"),
    (
        "{ traceDuration > 1s && trace:duration < 1m }",
        "{((trace:duration > duration:1000000000) && (trace:duration < duration:60000000000))}",
    ),
    ('{ rootName = "GET /" && trace:rootName != "x" }', "{((trace:rootName = 'GET /') && (trace:rootName != 'x'))}"),
    (
        '{ rootServiceName = "a" || trace:rootService = "b" }',
        "{((trace:rootService = 'a') || (trace:rootService = 'b'))}",
    ),
    ('{ trace:id = "aasdf4ergf" }', "{(trace:id = 'aasdf4ergf')}"),
    (
        '{ span:id = "61626364656667" && span:parentID = "" }',
        "{((span:id = '61626364656667') && (span:parentID = ''))}",
    ),
    ('{ span: name = "x" }', "{(span:name = 'x')}"),
    ("{ .a = nil }", "{(.a is nil)}"),
    ("{ nil != .a }", "{(.a not nil)}"),
    ("{ nil = .a }", "{(.a is nil)}"),
    ("{ name != nil }", "{(span:name not nil)}"),
    ("{ !(rootName != nil) }", "{!(trace:rootName not nil)}"),
    ("{ resource.service.name = nil }", "{(resource.service.name is nil)}"),
    ("{ nil = nil || nil != nil }", "{(bool:False || bool:False)}"),
    ('{ name =~ "GET .*" }', "{(span:name =~ /GET .*/)}"),
    ('{ name !~ "" }', "{(span:name !~ //)}"),
    ('{ .a =~ "(?i)x|y" }', "{(.a =~ /(?i)x|y/)}"),
    ('{ "abc" =~ "a.c" }', "{bool:True}"),
    ('{ "abc" !~ "a" }', "{bool:True}"),
    ('{ "a\\nc" =~ "a.c" }', "{bool:True}"),
    (
        '{ 1 = 2 || 1 < 1h || 1 = 1.0 || "a" < "b" || error != ok }',
        "{(bool:False || bool:True || bool:True || bool:True || bool:True)}",
    ),
    ("{ 1 + 1 = .a }", "{(.a = int:2)}"),
    ("{ 2 ^ 3 ^ 2 = .a }", "{(.a = int:512)}"),
    ("{ -2 ^ 2 = .a }", "{(.a = int:-4)}"),
    (
        "{ 7 / 2 = .a || -7 / 2 = .b || -7 % 3 = .c || 7.0 / 2 = .d }",
        "{((.a = int:3) || (.b = int:-3) || (.c = int:-1) || (.d = float:3.5))}",
    ),
    ("{ 2 ^ -1 = .a }", "{(.a = int:0)}"),
    ("{ 1 - 2 - 3 = .a }", "{(.a = int:-4)}"),
    ("{ 2 * (3 + 4) = .a }", "{(.a = int:14)}"),
    ("{ .a * .b + .c = 1 }", "{(((.a * .b) + .c) = int:1)}"),
    ("{ .a + .b * .c = 1 }", "{((.a + (.b * .c)) = int:1)}"),
    ("{ .a ^ .b ^ .c = 1 }", "{((.a ^ (.b ^ .c)) = int:1)}"),
    ("{ -.a ^ .b = 1 }", "{(-(.a ^ .b) = int:1)}"),
    ("{ .a / -.b * .c = 1 }", "{((.a / -(.b * .c)) = int:1)}"),
    ("{ .a ^ -.b * .c = 1 }", "{((.a ^ -(.b * .c)) = int:1)}"),
    ("{ .c - -.a + .b = 1 }", "{(((.c - -.a) + .b) = int:1)}"),
    ("{ -.a * .b = 1 }", "{(-(.a * .b) = int:1)}"),
    ("{ (.a + 1) * 2 > duration }", "{(((.a + int:1) * int:2) > span:duration)}"),
    ("{ .a + 1 > .b }", "{((.a + int:1) > .b)}"),
    ("{ .a = .b }", "{(.a = .b)}"),
    ("{ name = rootName }", "{(span:name = trace:rootName)}"),
    ("{ duration > span.limit }", "{(span:duration > span.limit)}"),
    ("{ .a = .b && .c }", "{((.a = .b) && .c)}"),
    ("{ .a && .b = .c }", "{(.a && (.b = .c))}"),
    ("{ !.a = .b }", "{(!.a = .b)}"),
    ("{ .a = !.b && .c }", "{((.a = !.b) && .c)}"),
    ("{ .a = .b = .c }", "{((.a = .b) = .c)}"),
    ("{ (.a = 1) = true }", "{(.a = int:1)}"),
    ("{ (.a = 1) = false }", "{!(.a = int:1)}"),
    ("{ (.a = 1) != true }", "{!(.a = int:1)}"),
    ("{ true = (.a = 1) }", "{(.a = int:1)}"),
    ("{ .a = 1 = true }", "{(.a = int:1)}"),
    ("{ (.a > 1) = .flag }", "{((.a > int:1) = .flag)}"),
    ("{ (.a = 1) = (.b = 2) }", "{((.a = int:1) = (.b = int:2))}"),
    ("{ !(.a = 1) }", "{!(.a = int:1)}"),
    ("{ !(.a = 1 && .b = 2) || .c = 3 }", "{(!((.a = int:1) && (.b = int:2)) || (.c = int:3))}"),
    ('{ !("test" != .c || ((true && .b) || 3 < .a)) }', "{!((.c != 'test') || ((bool:True && .b) || (.a > int:3)))}"),
    ("{ .a = 1 && .b = 2 && .c = 3 }", "{((.a = int:1) && (.b = int:2) && (.c = int:3))}"),
    ("{ .a = 1 || .b = 2 && .c = 3 }", "{(((.a = int:1) || (.b = int:2)) && (.c = int:3))}"),
    (
        "{ .a = 1 && .b = 2 || .c = 3 && .d = 4 }",
        "{((((.a = int:1) && (.b = int:2)) || (.c = int:3)) && (.d = int:4))}",
    ),
    ("{ .a = 1 || (.b = 2 && .c = 3) }", "{((.a = int:1) || ((.b = int:2) && (.c = int:3)))}"),
    ("{ ((((.a = 1)))) }", "{(.a = int:1)}"),
    ("{ .a } && { .b }", "({.a} && {.b})"),
    ("{ .a } || { .b } || { .c }", "({.a} || {.b} || {.c})"),
    ("{ .a } || { .b } && { .c }", "(({.a} || {.b}) && {.c})"),
    ("{ .a } || ({ .b } && { .c })", "({.a} || ({.b} && {.c}))"),
    ("({ .a })", "{.a}"),
    ("(({ .a } && { .b }))", "({.a} && {.b})"),
    ("{ .a } > { .b }", "({.a} > {.b})"),
    ("{ .a } >> { .b } > { .c }", "(({.a} >> {.b}) > {.c})"),
    ("{ .a } < { .b }", "({.a} < {.b})"),
    ("{ .a } << { .b }", "({.a} << {.b})"),
    ("{ .a } ~ { .b }", "({.a} ~ {.b})"),
    ("{ .a } !> { .b }", "({.a} !> {.b})"),
    ("{ .a } !>> { .b }", "({.a} !>> {.b})"),
    ("{ .a } !< { .b }", "({.a} !< {.b})"),
    ("{ .a } !<< { .b }", "({.a} !<< {.b})"),
    ("{ .a } !~ { .b }", "({.a} !~ {.b})"),
    ("{ .a } && { .b } >> { .c }", "({.a} && ({.b} >> {.c}))"),
    ("{ .a } >> { .b } && { .c }", "(({.a} >> {.b}) && {.c})"),
    ("({ .a } && { .b }) >> { .c }", "(({.a} && {.b}) >> {.c})"),
    ("{.a}>>{.b}!<<{.c}", "(({.a} >> {.b}) !<< {.c})"),
    ("{ .a } | { .b }", "[{.a} | {.b}]"),
    ("{ .a } | { .b } | count() > 2", "[{.a} | {.b} | count() > int:2]"),
    ("{ .a } | count() > 2", "[{.a} | count() > int:2]"),
    ("count() > 2", "count() > int:2"),
    ("count() = 1 | { true }", "[count() = int:1 | {bool:True}]"),
    ("avg(duration) > 20ms", "avg(span:duration) > duration:20000000"),
    ("{ } | sum(span.bytes) > 1000000000", "[{bool:True} | sum(span.bytes) > int:1000000000]"),
    ("{ true } | max((1 + .a) * 2) = 1", "[{bool:True} | max(((int:1 + .a) * int:2)) = int:1]"),
    ("min(duration) < 1s + 2s", "min(span:duration) < float:3000000000.0"),
    ("max(.a) > -1", "max(.a) > int:-1"),
    ("{ .a } | avg(-.x) <= 2 * (3 - 1)", "[{.a} | avg(-.x) <= int:4]"),
    ("({ .a } | count() > 1) && ({ .b } | count() > 2)", "([{.a} | count() > int:1] && [{.b} | count() > int:2])"),
    ("({ .a } | count() > 1 | { .c }) >> { .b }", "([{.a} | count() > int:1 | {.c}] >> {.b})"),
    ("(count() > 1) || (count() < 5)", "(count() > int:1 || count() < int:5)"),
    ("({ .a } | { .b }) | count() != 0", "[[{.a} | {.b}] | count() != int:0]"),
    ("{ .a } && ({ .b } | count() >= 3)", "({.a} && [{.b} | count() >= int:3])"),
]

REFUSED = [
    ("", 0, "write {} for every trace"),
    ("  ", 2, "write {} for every trace"),
    ("{", 1, "something is missing after {"),
    ("}", 0, "nothing is open that this } could close"),
    ("{ .a = 1", 8, "} is missing"),
    ("{ .a = 1 } }", 11, "nothing is open that this } could close"),
    ("{ .a = 1 } {", 11, "&&, ||, a structural operator or | is expected"),
    ("{ (.a = 1 }", 10, ") is missing before this }"),
    ("{ .a = 1) }", 8, "} is missing before this )"),
    ("({ .a = 1 }", 11, ") is missing"),
    ("{ .a = 1 })", 10, "nothing is open that this ) could close"),
    ("{ .a = }", 7, "an attribute such as span.x, an intrinsic or a"),
    ("{ = 1 }", 2, "an attribute such as span.x, an intrinsic or a"),
    ("{ .a 1 }", 5, "an operator such as = or && is expected here,"),
    ("{ .a .b }", 5, "an operator such as = or && is expected here,"),
    ("{ .a = 1 .b = 2 }", 9, "an operator such as = or && is expected here,"),
    ("{ .a && }", 8, "an attribute such as span.x, an intrinsic or a"),
    ("{ && .a }", 2, "an attribute such as span.x, an intrinsic or a"),
    ("{ .a == 1 }", 5, "there is no operator ==: write ="),
    ("{ .a <> 1 }", 5, "there is no operator <>: write !="),
    ("{ .a = 1 and .b = 2 }", 9, "write && instead of and"),
    ("{ .a = 1 OR .b = 2 }", 9, "write || instead of OR"),
    ("{ not .a }", 2, "write ! instead of not"),
    ("{ .a & .b }", 5, "write && for and"),
    ("{ .a | .b }", 5, "write || for or"),
    ("{ .a = 'x' }", 7, "strings stand in double quotes, or in back"),
    ('{ .a = "x }', 7, "this string is not closed on its line"),
    ("{ .a = `x }", 7, "this string is not closed"),
    ('{ ."x = 1 }', 2, "a key must follow the dot, as in"),
    ('{ .a = "\\q" }', 8, "write \\\\ for a backslash, or put the string in"),
    ('{ .a = "\\400" }', 8, "write \\\\ for a backslash, or put the string in"),
    ('{ .a = "\\ud800" }', 8, "this escape is not a character"),
    ('{ .a = "\\x4" }', 8, "write \\\\ for a backslash, or put the string in"),
    ("{ . = 1 }", 2, "a key must follow the dot, as in"),
    ("{ span. = 1 }", 6, "a key must follow the dot, as in"),
    ('{ ."" = 1 }', 3, "this key is empty"),
    ("{ .a, .b }", 4, "write && or || between conditions"),
    ("{ .a = [1] }", 7, "unexpected character '['"),
    ("{ .a = 1; }", 8, "write && or || between conditions"),
    ("{ .a = 10sec }", 7, "write 200, 0.5, 100ms or 1h30m (units are ns us"),
    ("{ .a = 1_000 }", 7, "write 200, 0.5, 100ms or 1h30m (units are ns us"),
    ("{ .a = 0x1F }", 7, "write 200, 0.5, 100ms or 1h30m (units are ns us"),
    ("{ .a = 1.5d }", 7, "write 200, 0.5, 100ms or 1h30m (units are ns us"),
    ("{ .a = 1.2.3 }", 7, "write 200, 0.5, 100ms or 1h30m (units are ns us"),
    ("{ .a = 1e }", 7, "write 200, 0.5, 100ms or 1h30m (units are ns us"),
    ("{ .a = 9223372036854775808 }", 7, "write minInt for the smallest integer"),
    ("{ .a = -9223372036854775809 }", 8, "a number has 64 bits, and this does not fit"),
    ("{ .a = -minInt }", 7, "a number has 64 bits, and this does not fit"),
    ("{ .a = 1e999 }", 7, "this number is too large for a double"),
    ("{ duration > 300y }", 13, "a duration has 64 bits, and this does not fit"),
    ("{ .a = 1 / 0 }", 11, "this divides by zero"),
    ("{ .a = 1.5 % 0 }", 13, "this divides by zero"),
    ("{ .a = maxInt + 1 }", 7, "a number has 64 bits, and this does not fit"),
    ("{ .a = 10 ^ 100 }", 7, "a number has 64 bits, and this does not fit"),
    ("{ .a = 1e200 ^ 2 }", 7, "the result of this is not a finite number"),
    ("{ foo = 1 }", 2, "an attribute with a scope or a dot,"),
    ("{ Status = error }", 2, "unknown word Status: did you mean status?"),
    ("{ status = Error }", 11, "unknown word Error: did you mean error?"),
    ('{ span:nme = "x" }', 2, "did you mean span:name?"),
    ('{ trace:name = "x" }', 2, "did you mean trace:rootName?"),
    ("{ foo:bar = 1 }", 2, "unknown intrinsic foo:bar"),
    ("{ status = ERROR }", 11, "unknown word ERROR: did you mean error?"),
    ("{ kind = SERVER }", 9, "unknown word SERVER: did you mean server?"),
    ("{ spam.a = 1 }", 2, "unknown scope spam: did you mean span?"),
    ("{ Resource.a = 1 }", 2, "unknown scope Resource: did you mean resource?"),
    ('{ http.route = "/" }', 2, "unknown scope http: write span.http.route"),
    ('{ http.rout = "/" }', 2, "unknown scope http: write span.http.route"),
    ("{ http.status_code >= 500 }", 2, "unknown scope http: write span.http.status_code"),
    ("{ .a && db.new_key > 1 }", 8, "unknown scope db: write span.db.new_key"),
    ('{ service.name = "shop" }', 2, "unknown scope service: write resource.service.name"),
    ('{ k8s.pod.name =~ "a.*" }', 2, "unknown scope k8s: write resource.k8s.pod.name"),
    ('{ k8s.pod.label.app = "a" }', 2, "unknown scope k8s: write resource.k8s.pod.label.app"),
    ('{ deployment.environment = "p" }', 2, "write resource.deployment.environment"),
    ('{ exception.type = "E" }', 2, "unknown scope exception: write event.exception.type"),
    ('{ session.id = "x" }', 2, "unknown scope session: write span.session.id"),
    ("{ my.key = 1 }", 2, "unknown scope my: write span.my.key, resource.my.key, or .my.key for both"),
    ('{ attributes.http.route = "/" }', 2, "unknown scope attributes: write span.http.route"),
    ('{ attributes["http.route"] = "/" }', 12, "written with dots, as in span.http.route: leave the brackets out"),
    ("{ trace.duration > 1s }", 2, "unknown scope trace: did you mean trace:duration?"),
    ("{ parent.a = 1 }", 2, "relate spans by { ... } > { ... }"),
    ("{ parent.span.a = 1 }", 2, "relate spans by { ... } > { ... }"),
    ("{ parent = nil }", 2, "parent is not supported"),
    ("{ span:childCount > 1 }", 2, "span:childCount is not supported"),
    ("{ childCount > 1 }", 2, "childCount is not supported"),
    ("{ nestedSetLeft > 1 }", 2, "nestedSetLeft is not supported"),
    ("{ nestedSetParent < 1 }", 2, "write nestedSetParent < 0, or >= 0"),
    ("{ nestedSetParent = 0 }", 2, "write nestedSetParent < 0, or >= 0"),
    ("{ 5 = nestedSetParent }", 6, "write nestedSetParent < 0, or >= 0"),
    ("{ nestedSetParent + 1 < 0 }", 2, "write nestedSetParent < 0, or >= 0"),
    ("{ duration > nestedSetParent }", 13, "write nestedSetParent < 0, or >= 0"),
    ("{} | avg(nestedSetParent) < 0", 9, "write nestedSetParent < 0, or >= 0"),
    ("{ span:parentID = nil }", 2, 'write span:parentID = "", or nestedSetParent < 0 for roots'),
    ("{ rootDuration = nil }", 2, "write !(trace:rootDuration != nil)"),
    ("{ rootDuration = `1s` }", 17, "write a duration"),
    ('{ status = "error" }', 11, "write error, ok or unset, without quotes"),
    ('{ "error" = status }', 2, "write error, ok or unset, without quotes"),
    ("{ status = 2 }", 11, "write error, ok or unset, without quotes"),
    ("{ status > ok }", 9, "a status is compared by = and != only"),
    ("{ status = kind }", 11, "write error, ok or unset, without quotes"),
    ("{ status = server }", 11, "write error, ok or unset, without quotes"),
    ('{ kind = "server" }', 9, "write server, client, producer, consumer,"),
    ('{ kind =~ "server" }', 2, "=~ looks at strings, and this is a span kind"),
    ("{ kind < server }", 7, "a span kind is compared by = and != only"),
    ('{ duration = "x" }', 13, "write a duration such as 100ms or 1h30m"),
    ('{ duration =~ "1.*" }', 2, "=~ looks at strings, and this is a duration"),
    ("{ duration }", 2, "write a comparison, such as duration > 1s"),
    ("{ name }", 2, "write a comparison, such as duration > 1s"),
    ("{ name = 5 }", 9, "write a string in double quotes"),
    ("{ name = error }", 9, "write a string in double quotes"),
    ("{ name > 1.5 }", 9, "write a string in double quotes"),
    ("{ name = true }", 9, "write a string in double quotes"),
    ("{ rootServiceName = 1 }", 20, "write a string in double quotes"),
    ('{ traceDuration > "1s" }', 18, "write a duration such as 100ms or 1h30m"),
    ("{ trace:id = 1 }", 13, "write a string in double quotes"),
    ('{ 1 = "x" }', 6, "this is compared with a number: write a number"),
    ("{ .a = ok }", 7, "write status = ok, or a string in quotes"),
    ("{ .a != client }", 8, "write kind = client, or a string in quotes"),
    ("{ .a > true }", 5, "a boolean is compared by = and != only"),
    ("{ true < .a }", 7, "a boolean is compared by = and != only"),
    ("{ .a =~ 5 }", 8, "a regular expression in quotes must stand to"),
    ("{ .a =~ .b }", 8, "a regular expression in quotes must stand to"),
    ('{ "x" =~ .b }', 9, "a regular expression in quotes must stand to"),
    ('{ 5 =~ "x" }', 2, "=~ looks at strings, and this is a number"),
    ('{ .a = 1 =~ "x" }', 2, "=~ looks at strings, and this is a boolean"),
    ('{ .a =~ "[" }', 8, "missing ]: ["),
    ('{ .a !~ "(?=x)" }', 8, "invalid perl operator: (?="),
    ('{ .a =~ "a**" }', 8, "bad repetition operator: **"),
    ('{ .a =~ "\\xff" }', 8, "invalid UTF-8"),
    ("{ name = nil }", 2, "an intrinsic is never nil: leave this out"),
    ("{ nil = duration }", 8, "an intrinsic is never nil: leave this out"),
    ("{ rootName = nil }", 2, "write !(trace:rootName != nil)"),
    ("{ .a > nil }", 5, "nil is compared by = and != only"),
    ("{ nil }", 2, "write a comparison, such as duration > 1s"),
    ("{ .a && nil }", 8, "write a comparison, such as duration > 1s"),
    ('{ nil =~ "x" }', 6, "nil is compared by = and != only"),
    ("{ 5 = nil }", 2, "only an attribute can be nil"),
    ("{ .a + 1 = nil }", 2, "only an attribute can be nil"),
    ("{ -nil = 1 }", 3, "a number is needed here, and this is nil"),
    ("{ 1 }", 2, "write a comparison, such as duration > 1s"),
    ('{ "x" }', 2, "write a comparison, such as duration > 1s"),
    ("{ error }", 2, "write a comparison, such as status = error"),
    ("{ .a + 1 }", 2, "write a comparison, such as duration > 1s"),
    ("{ -.a }", 2, "write a comparison, such as duration > 1s"),
    ("{ 1 && .a }", 2, "write a comparison, such as duration > 1s"),
    ('{ .a || "x" }', 8, "write a comparison, such as duration > 1s"),
    ("{ .a && status }", 8, "write a comparison, such as status = error"),
    ("{ !name }", 3, "write a comparison, such as duration > 1s"),
    ("{ !1 }", 3, "write a comparison, such as duration > 1s"),
    ("{ !-.a }", 3, "an attribute such as span.x, an intrinsic or a"),
    ("{ -true }", 3, "a number is needed here, and this is a boolean"),
    ('{ -"x" = "y" }', 3, "a number is needed here, and this is a string"),
    ('{ 1 + "x" = .a }', 6, "a number is needed here, and this is a string"),
    ("{ name + 1 = .a }", 2, "a number is needed here, and this is a string"),
    ("{ status * 2 = 4 }", 2, "a number is needed here, and this is a status"),
    ("{ (.a = 1) + 1 = 2 }", 3, "a number is needed here, and this is a boolean"),
    ("{ (.a = 1) = 1 }", 13, "write true or false"),
    ("{ 1 < 2 < 3 }", 10, "write true or false"),
    ("{ count() > 2 }", 2, "count() stands behind the braces, as in { ... }"),
    ("{ foo(.a) = 1 }", 2, "unknown function foo"),
    ("status = error", 0, "conditions stand in braces, as in { status ="),
    (".a = 1", 0, "conditions stand in braces, as in { status ="),
    ('span:name = "x"', 0, "conditions stand in braces, as in { status ="),
    ("true", 0, "conditions stand in braces, as in { status ="),
    ("5", 0, "count() > 2"),
    ('"x"', 0, "count() > 2"),
    ("({ .a }", 7, ") is missing"),
    ("!{ .a }", 0, "negate inside the braces, or put it into unless"),
    ("{ .a } !{ .b }", 7, "negate inside the braces, or put it into unless"),
    ("{ .a } { .b }", 7, "&&, ||, a structural operator or | is expected"),
    ("{ .a } && ", 10, "something is missing after &&"),
    ("{ .a } = { .b }", 7, "&&, ||, a structural operator or | is expected"),
    ("{ .a } + { .b }", 7, "&&, ||, a structural operator or | is expected"),
    ("{ .a } &> { .b }", 7, "&> is not supported: > selects the same traces"),
    ("{ .a } &>> { .b }", 7, "&>> is not supported: >> selects the same traces"),
    ("{ .a } &~ { .b }", 7, "&~ is not supported: ~ selects the same traces"),
    ("{ .a } >>> { .b }", 9, "conditions stand in braces, as in { status ="),
    ("{ .a } |", 8, "something is missing after |"),
    ("| { .a }", 0, "conditions stand in braces, as in { status ="),
    ("{ .a } | | { .b }", 9, "conditions stand in braces, as in { status ="),
    ("{ .a } | .b", 9, "conditions stand in braces, as in { status ="),
    ("{ .a } | rate()", 9, "leave it out, or use count, min, max, avg or sum"),
    ("{ .a } | count_over_time() by (name)", 9, "leave it out, or use count, min, max, avg or sum"),
    ("{ .a } | quantile_over_time(duration, 0.9)", 9, "leave it out, or use count, min, max, avg or sum"),
    ("{ .a } | compare({ .b })", 9, "leave it out, or use count, min, max, avg or sum"),
    ("{ .a } | topk(10)", 9, "leave it out, or use count, min, max, avg or sum"),
    ("{ .a } | by(resource.service.name) | count() > 1", 9, "by() is not supported: leave it out"),
    ("{ .a } | select(span.b)", 9, "select() is not supported: leave it out"),
    ("{ .a } | coalesce()", 9, "coalesce() is not supported: leave it out"),
    ("{ .a } with (most_recent=true)", 7, "leave them out"),
    ("{ .a } | with(sample=0.1)", 9, "leave them out"),
    ("{ .a } | median(duration) > 1", 9, "unknown function median"),
    ("{ .a } | conut() > 1", 9, "unknown function conut: did you mean count?"),
    ("{ .a } | count()", 16, "count() must be compared with a number, as in"),
    ("{ .a } | count() > ", 19, "something is missing after >"),
    ("{ .a } | count", 9, "with parentheses, as in { ... } | count() > 2"),
    ("{ .a } | count() >> 2", 17, "one aggregate is compared with one number, as"),
    ('{ .a } | count() =~ "2"', 17, "one aggregate is compared with one number, as"),
    ("{ .a } | count(.b) > 2", 15, "put what they must be into the braces before it"),
    ("{ .a } | max() > 2", 9, "max() of what? write max(duration) or"),
    ("{ .a } | max(name) > 2", 13, "a number is needed here, and this is a string"),
    ("{ .a } | max(2) > 2", 13, "write max(duration) or max(span.x)"),
    ("{ .a } | max(.b = 1) > 2", 13, "a number is needed here, and this is a boolean"),
    ('{ .a } | max(.b) > "x"', 19, "an aggregate is compared with a number or a"),
    ("{ .a } | max(.b) > .c", 19, "an aggregate is compared with a number or a"),
    ("{ .a } | max(.b) > error", 19, "an aggregate is compared with a number or a"),
    ("{ .a } | max(.b) > min(.b)", 19, "one aggregate is compared with one number, as"),
    ("{ .a } | max(.b) + 1 > 2", 17, "one aggregate is compared with one number, as"),
    ("{ .a } | 2 < count()", 9, "count() > 2"),
    ("count() > 2 && { .a }", 12, "({ ... } | count() > 2) && { ... }"),
    ("{ .a } | count() > 2 || { .b }", 21, "({ ... } | count() > 2) || { ... }"),
    ("({ .a } | count()) > 2", 17, "one aggregate is compared with one number, as"),
    ("{ .a @ 1 }", 5, "unexpected character '@'"),
    ("{ .a = 1 } /* x", 11, "&&, ||, a structural operator or | is expected"),
    ("{ .a\xa0= 1 }", 4, "write a plain space instead of this character"),
    ('{ .a = "\n" }', 7, "this string is not closed on its line"),
]


@pytest.mark.parametrize(("text", "tree"), PARSED)
def test_parsed(text: str, tree: str) -> None:
    assert dump(parse(text).root) == tree


@pytest.mark.parametrize(("text", "offset", "message"), REFUSED)
def test_refused(text: str, offset: int, message: str) -> None:
    with pytest.raises(TraceQLError) as caught:
        parse(text)
    assert (caught.value.offset, message in caught.value.message) == (offset, True), caught.value.message


def test_offsets_of_nodes() -> None:
    text = "{ 2 < .a && !(name = -5 + span.b) } >> ( { .c } | count() > 1 )"
    starts = [
        (type(node).__name__, node.start)
        for node, _ in ast.walk(parse("{ 2 < .a && !(.b = -5) } >> ({ .c } | count() > 1)").root)
    ]
    assert starts == [
        ("Structural", 0),
        ("Filter", 0),
        ("Logical", 2),
        ("Comparison", 2),
        ("Attribute", 6),
        ("Literal", 2),
        ("Not", 12),
        ("Comparison", 14),
        ("Attribute", 14),
        ("Literal", 19),
        ("Pipeline", 29),
        ("Filter", 29),
        ("Attribute", 31),
        ("Aggregate", 38),
        ("Literal", 48),
    ]
    with pytest.raises(TraceQLError) as caught:
        parse(text)
    assert caught.value.offset == text.index("-5")


def test_offsets_count_characters_not_bytes() -> None:
    text = '{ .é = "😀" && name = 5 }'
    with pytest.raises(TraceQLError) as caught:
        parse(text)
    assert caught.value.offset == text.index("5")


@pytest.mark.parametrize(
    ("text", "offsets"),
    [
        ("{ .a || .b || .c }", []),
        ("{ .a && .b && .c } || { .d }", []),
        ("{ .a || (.b && .c) }", []),
        ("{ (.a || .b) && .c }", []),
        ("{ .a || .b && .c }", [11]),
        ("{ .a && .b || .c && .d }", [11]),
        ("{ .a } && { .b } || { .c }", [17]),
        ("{ .a } && { .b || .c && .d }", [21]),
        ("{ .a && .b || .c } || { .d } && { .e }", [11, 29]),
        ("{ .a } > { .b } && { .c }", []),
        ("({ .a || .b && .c } | count() > 1) || { .d }", [12]),
    ],
)
def test_warnings(text: str, offsets: list[int]) -> None:
    remarks = warnings(parse(text))
    assert [remark.offset for remark in remarks] == offsets
    assert all("parentheses" in remark.message for remark in remarks)


def test_regex() -> None:
    condition = parse('{ .a =~ "a.*|b" && .b =~ "a.*|b" && .c =~ "" }').root.condition  # type: ignore[union-attr]
    first, second, empty = (operand.right.value for operand in condition.operands)
    assert first == second != empty
    assert hash(first) == hash(second)
    for value, expected in [
        (b"a", True),
        (b"ab\ncd", True),
        (b"b", True),
        (b"bc", False),
        (b"xa", False),
        (b"", False),
    ]:
        assert first(value) is expected
    assert first("aé".encode())
    assert not first(b"a\xff")  # not UTF-8: nothing matches the byte
    assert [empty(b""), empty(b"x")] == [True, False]


def test_regex_takes_linear_time() -> None:
    regex = parse('{ .a =~ "(a*)*(a|a)*(x+x+)+y" }').root.condition.right.value  # type: ignore[union-attr]
    start = time.monotonic()
    assert not regex(b"a" * 20_000 + b"x" * 20_000)
    assert time.monotonic() - start < 2


def test_numbers_of_every_shape() -> None:
    for text in ["0", "1.", ".5", "1e5", "1E+5", "1.5e-5", "123456789.123456789"]:
        literal = parse(f"{{ .a = {text} }}").root.condition.right  # type: ignore[union-attr]
        assert literal.value == float(text)
        assert (literal.type is ast.Type.INT) == (text == "0")
    assert parse("{ .a = 1e308 * 1 }").root.condition.right.value < math.inf  # type: ignore[union-attr]


def _nested(opening: str, middle: str, closing: str, depth: int) -> str:
    return "{ " + opening * depth + middle + closing * depth + " }"


@pytest.mark.parametrize(
    ("opening", "middle", "closing", "most"),
    [
        ("(", ".a", ")", 100),
        ("!", ".a", "", 100),
        ("!(", ".a", ")", 50),
        ("(.a && ", ".b", ")", 100),
        ("(.a + ", ".b", ")", 0),
        ("!(.a && ", ".b", ")", 50),
        ("(.x = 1 || (.a = 1 && ", ".b", "))", 50),
    ],
)
def test_nesting_is_bounded(opening: str, middle: str, closing: str, most: int) -> None:
    if most:
        parse(_nested(opening, middle, closing, most))
    for depth in (101, 1000, 10_000):
        text = _nested(opening, middle, closing, depth)
        if len(text) <= MAX_BYTES:
            with pytest.raises(TraceQLError, match="nested more than 100 deep"):
                parse(text)


def test_prefix_operators_and_parentheses_count_where_they_are_open() -> None:
    parse("{ " + " && ".join(["!!!(!(.a))"] * 1000) + " }")
    parse("{ " + " + ".join(["-(-(-1))"] * 1000) + " = .a }")
    parse(" || ".join(["(({ .a }))"] * 1000))


def test_nesting_of_spansets_is_bounded() -> None:
    parse("(" * 100 + "{ .a }" + ")" * 100)
    with pytest.raises(TraceQLError, match="nested more than 100 deep") as caught:
        parse("(" * 101 + "{ .a }" + ")" * 101)
    assert caught.value.offset == 100


@pytest.mark.parametrize(
    "text",
    [
        "{ " + " || ".join(f".a{i} = {i}" for i in range(3500)) + " }",
        "{ " + " && ".join(["!.a"] * 8000) + " }",
        " || ".join(["{ .a = 1 }"] * 4000),
        "{ .a = " + " + ".join(["1"] * 15_000) + " }",
        "{ " + "1 ^ " * 15_000 + "1 = .a }",
        "{ .a " + "= true " * 9000 + "}",
        '{ .a = "' + "x" * 65_000 + '" }',
        '{ .a = "' + "\\n" * 32_000 + '" }',
        "{ ." + '"a"' * 20_000 + " = 1 }",
        "{ .a } " + "/**/" * 16_000,
        "{ .a } //" + "/" * 65_000,
        '{ .a =~ "' + "(a|b)*" * 2000 + '" }',
    ],
    ids=lambda text: text[:20],
)
def test_long_flat_expressions_are_parsed(text: str) -> None:
    start = time.monotonic()
    parse(text)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    "text",
    [
        "{ " + ".a && .b || " * 5000 + ".c }",
        "{ " + ".a + " * 10_000 + ".a = 1 }",
        "{ " + ".a ^ " * 10_000 + ".a = 1 }",
        "{ .a " + "= .a " * 10_000 + "}",
        " > ".join(["{ .a }"] * 6000),
        " && { .a } || ".join(["{ .a }"] * 3000),
        "(" * 65_000,
        "{ " + "!" * 65_000,
        "{ " + "-" * 65_000 + "1 = .a }",
        "{ " * 20_000,
        '{ .a = "' + "\\n" * 32_000,
        "{ ." + '"a' * 20_000,
        "{ .a " + "/*" * 30_000,
        "{ .a = " + "9" * 65_000 + " }",
        "{ .a = " + "9" * 65_000 + "s }",
        "{ .a = 1" + ".1" * 30_000 + " }",
        "{ " + "a" * 65_000 + " = 1 }",
        "{ " + "a:" * 30_000 + " = 1 }",
        "{ .a = 10 ^ 10 ^ 10 }",
        '{ .a =~ "' + "(a{1,1000}){1,1000}" + '" }',
        '{ .a =~ "' + "(" * 30_000 + '" }',
        '{ .a =~ "' + "\\\\pL{1000}" * 4000 + '" }',
    ],
    ids=lambda text: text[:20],
)
def test_hard_input_is_refused_in_time(text: str) -> None:
    start = time.monotonic()
    with pytest.raises(TraceQLError) as caught:
        parse(text)
    assert time.monotonic() - start < 10
    assert 0 <= caught.value.offset <= len(text)
    assert len(caught.value.message) < 300


def test_the_tree_is_never_deeper_than_it_may_be() -> None:
    text = _nested("((.a = 1 || ", ".b", ") = true && .c)", 50)
    assert max(depth for _, depth in ast.walk(parse(text).root)) <= MAX_DEPTH


def test_the_size_limit_is_in_bytes() -> None:
    text = '{ .a = "' + "é" * 32_000 + '" }'
    parse(text)
    padding = " " * (MAX_BYTES - len(text.encode()))
    parse(text + padding)
    with pytest.raises(TraceQLError, match="split it") as caught:
        parse(text + padding + " ")
    assert caught.value.offset == 0


def test_surrogates_are_refused() -> None:
    with pytest.raises(TraceQLError, match="surrogate") as caught:
        parse('{ .a = "\ud800" }')
    assert caught.value.offset == 8


def attempt(text: str) -> ast.Expression | TraceQLError:
    try:
        return parse(text)
    except TraceQLError as error:
        return error


_TOKENS = [
    *[
        "{",
        "}",
        "(",
        ")",
        "|",
        "&&",
        "||",
        "!",
        "=",
        "!=",
        "<",
        "<=",
        ">",
        ">=",
        "=~",
        "!~",
        ">>",
        "<<",
        "~",
        "!>",
        "!<",
    ],
    *[
        "!>>",
        "!<<",
        "+",
        "-",
        "*",
        "/",
        "%",
        "^",
        ".a",
        "span.b",
        'resource."c d"',
        "event.e",
        "parent.x",
        "name",
        "status",
    ],
    *[
        "kind",
        "duration",
        "trace:id",
        "span:name",
        "rootName",
        "nil",
        "true",
        "false",
        "error",
        "server",
        "maxInt",
        "count()",
    ],
    *[
        "max(",
        "rate()",
        "by(",
        "1",
        "0",
        "2.5",
        "1h30m",
        '"s"',
        "`r`",
        '"["',
        '"',
        "`",
        "'",
        ".",
        ",",
        "&",
        "foo",
        "x:y",
        "and",
    ],
    *["//", "/*", "*/", "\n", "\u00a0", "\x00", "é", "😀"],
]


@settings(max_examples=400, deadline=None)
@given(
    st.one_of(
        st.text(),
        st.lists(st.sampled_from(_TOKENS), max_size=30).map(" ".join),
        st.lists(st.sampled_from(_TOKENS), max_size=30).map("".join),
    )
)
def test_random_text_is_parsed_or_refused(text: str) -> None:
    result = attempt(text)
    if isinstance(result, TraceQLError):
        assert 0 <= result.offset <= len(text)
        assert result.message
    else:
        assert result.text == text
        assert all(0 <= node.start < len(text) for node, _ in ast.walk(result.root))
        assert all(0 <= remark.offset < len(text) for remark in warnings(result))


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([text for text, _ in PARSED]),
    st.integers(0, 100),
    st.integers(0, 100),
    st.sampled_from(["", *_TOKENS]),
)
def test_random_edits_are_parsed_or_refused(text: str, start: int, length: int, insertion: str) -> None:
    edited = text[:start] + insertion + text[start + length :]
    result = attempt(edited)
    if isinstance(result, TraceQLError):
        assert 0 <= result.offset <= len(edited)
    else:
        assert dump(result.root)


def test_parser_is_thread_safe() -> None:
    def work(number: int) -> bool:
        return dump(parse(f"{{ .a = {number} && .b = 2 }}").root) == f"{{((.a = int:{number}) && (.b = int:2))}}"

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(400)))
