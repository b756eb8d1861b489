"""What stands around a secret in telemetry: texts of every syntax that programs print, with a place for name and value.

`$N` is the name, in the carrier's way of writing names; `$V` the value, escaped as the carrier does it; `$M` and `$L`
are their lengths.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import quote

Escape = Callable[[str], str]


def _as_is(value: str) -> str:
    return value


def _json(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)[1:-1]


def _single_quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")


def _percent(value: str) -> str:
    return quote(value, safe="")


def _times(escape: Escape, times: int) -> Escape:
    def escaped(value: str) -> str:
        for _ in range(times):
            value = escape(value)
        return value

    return escaped


def _unicode(value: str) -> str:
    """Every third character, and each control character, as JSON's escape."""
    return "".join(f"\\u{ord(each):04x}" if at % 3 == 1 or each < " " else each for at, each in enumerate(value))


class Carrier(NamedTuple):
    """A syntax. `style` of names: see `named`; `accepts`: what a value may hold, which stands there as it is."""

    name: str
    group: str
    templates: tuple[str, ...]
    style: str = "snake"
    escape: Escape = _as_is
    accepts: str = r"[^\s\"'<>(){}\[\],;&|`\\]+"
    gentle: bool = False
    keys: tuple[str, ...] = ("message", "log.message", "exception.message", "http.response.body", "note")

    @property
    def announces(self) -> bool:
        return "$N" in self.templates[0]

    def takes(self, value: str) -> bool:
        return re.fullmatch(self.accepts, value) is not None

    def text(self, template: str, name: str, value: str) -> str:
        text = named(name, self.style)
        template = template.replace("$M", str(len(text))).replace("$L", str(len(value.encode())))
        return template.replace("$N", text).replace("$V", self.escape(value))


def named(words: str, style: str) -> str:
    """Write a name of several words in a style."""
    parts = words.replace("-", " ").split()
    match style:
        case "camel":
            return parts[0] + "".join(part.title() for part in parts[1:])
        case "kebab":
            return "-".join(parts)
        case "upper":
            return "_".join(parts).upper()
        case "header":
            return "-".join(part.title() for part in parts)
        case "pascal":
            return "".join(part.title() for part in parts)
        case "dotted":  # `api_key` is one word there; and `session.id` names no secret in the semantic conventions
            if parts[-1] in ("key", "token", "id", "code", "secret"):
                parts[-2:] = ["_".join(parts[-2:])]
            return ".".join(parts)
        case "words":
            return " ".join(parts)
        case _:
            return "_".join(parts)


ANY = r"[\s\S]+"
LINE = r"[^\r\n]+"
NO_QUOTE = r"[^\"\r\n\\]+"
NO_SINGLE = r"[^'\r\n\\]+"
WORD = r"\S+"
NO_ESCAPE = r"[^\"'\\\r\n]+"
TOKEN = r"[A-Za-z0-9_.:+/=~$%@!#*-]+"


def _many(group: str, templates: dict[str, str], **settings: object) -> list[Carrier]:
    return [Carrier(name, group, (template,), **settings) for name, template in templates.items()]  # type: ignore[arg-type]


def _prose() -> list[Carrier]:
    texts = {
        "prose": "could not reach the upstream with $V after 3 tries",
        "prose at the end": "request to billing failed for $V",
        "prose at the start": "$V was not accepted by the upstream",
        "sentence": "Incorrect value provided: $V. You can find yours in the dashboard.",
        "in quotes": 'invalid argument "$V" in call to charge',
        "in single quotes": "invalid argument '$V' in call to charge",
        "in backquotes": "cannot parse `$V` here",
        "in brackets": "rejected [$V] by policy",
        "in parentheses": "rejected ($V) by policy",
        "in angle brackets": "rejected <$V> by policy",
        "before a comma": "got $V, wanted another",
        "in typographic quotes": "abgelehnt: „$V“ ist ungültig",
        "between Chinese characters": "无效的值$V。请重试",
    }
    found = _many("prose", texts, accepts=r"[^\"'`\r\n\\]+", gentle=True)
    names = {
        "name is value": "the $N is $V",
        "name is value, goes on": "your $N is $V and it expires soon",
        "name value rejected": "$N $V rejected",
        "name quoted value": "invalid $N '$V' for user bob",
        "bad name: value": "Invalid $N: $V",
        "wrong name given": "wrong $N given ($V)",
        "rejected value": "Field error in object 'user' on field '$N': rejected value [$V]; codes [Size]",
        "duplicate entry": "Duplicate entry '$V' for key 'users.$N'",
    }
    found += _many("prose", names, style="words", accepts=TOKEN)
    fields = ("rejected value", "duplicate entry")
    return [one._replace(style="snake") if one.name in fields else one for one in found]


def _json_like() -> list[Carrier]:
    quoted = {
        "json member": '{"user": "bob", "$N": "$V", "id": 7}',
        "json nested": '{"event": "login", "data": {"user": {"id": 7, "$N": "$V"}}, "ok": true}',
        "json in an array": '[{"id": 1}, {"id": 2, "$N": "$V"}]',
        "json in prose": 'HTTP 400 from upstream: {"error": "bad", "$N": "$V"} after 3 tries',
        "json behind a bracket": '[ERROR] login failed {"user": "bob", "$N": "$V"}',
        "ndjson": '{"id": 1, "msg": "first"}\n{"id": 2, "$N": "$V"}\n{"id": 3}',
        "raw tab": '{"msg": "a\tb", "$N": "$V"}',
        "raw line end": '{"msg": "first\nsecond", "$N": "$V", "id": 3}',
        "nan": '{"n": NaN, "$N": "$V"}',
        "infinity": '{"n": -Infinity, "$N": "$V"}',
        "none": '{"n": None, "ok": True, "$N": "$V"}',
        "undefined": '{"n": undefined, "$N": "$V"}',
        "constructor": '{"_id": ObjectId("65a1b2c3d4e5f6a7b8c9d0e1"), "$N": "$V"}',
        "constructor with a date": '{"at": new Date(1700000000), "n": Decimal("1.5"), "$N": "$V"}',
        "call": '{"at": datetime.datetime(2026, 1, 2, 3, 4), "$N": "$V"}',
        "plus": '{"n": +5, "$N": "$V"}',
        "point": '{"n": .5, "m": 5., "$N": "$V"}',
        "hexadecimal": '{"n": 0x1F, "$N": "$V"}',
        "leading zero": '{"n": 007, "$N": "$V"}',
        "dots": '{"items": [1, 2, ...], "$N": "$V"}',
        "placeholder": '{"user": <redacted>, "$N": "$V"}',
        "object placeholder": '{"user": <User: bob>, "next": <object at 0x7f3a>, "$N": "$V"}',
        "variable": '{"user": ${USER}, "$N": "$V"}',
        "template": '{"user": {{ user }}, "$N": "$V"}',
        "byte string": '{"raw": b\'abc\', "$N": "$V"}',
        "no comma": '{"user": "bob" "$N": "$V"}',
        "no value": '{"user": , "$N": "$V"}',
        "no colon": '{"user" "bob", "$N": "$V"}',
        "trailing comma": '{"user": "bob", "$N": "$V",}',
        "two commas": '{"user": "bob",, "$N": "$V"}',
        "comment": '{"user": "bob", /* why */ "$N": "$V" // so\n}',
        "unclosed string": '{"user": "bob, "$N": "$V"}',
        "quote in a string": '{"msg": "he said "hi" there", "$N": "$V"}',
        "invalid escape": '{"path": "C:\\app\\x", "$N": "$V"}',
        "unquoted key before": '{user: "bob", "$N": "$V"}',
        "single quotes before": "{'user': 'bob', \"$N\": \"$V\"}",
        "cut before": 'user": "bob", "$N": "$V"}',
        "cut behind": '{"user": "bob", "$N": "$V", "items": [1, 2',
        "cut in the value": '{"user": "bob", "$N": "$V',
        "elided": '{"user": "bob", ... "$N": "$V"}',
        "byte order mark": '\ufeff{"user": "bob", "$N": "$V"}',
        "guard against hijacking": ')]}\',\n{"user": "bob", "$N": "$V"}',
        "callback": 'cb({"user": "bob", "$N": "$V"});',
        "array of pairs": '[["user", "bob"], ["$N", "$V"]]',
        "name and value": '{"headers": [{"name": "accept", "value": "a"}, {"name": "$N", "value": "$V"}]}',
        "key and value": '{"tags": [{"Key": "$N", "Value": "$V"}]}',
        "value and name": '{"value": "$V", "name": "$N"}',
        "otlp json": '{"key": "$N", "value": {"stringValue": "$V"}}',
        "list in a member": '{"user": "bob", "$N": ["$V"]}',
        "object in a member": '{"user": "bob", "$N": {"value": "$V"}}',
        "hash rocket": '{"user" => "bob", "$N" => "$V"}',
        "log with hash rocket": '[f3a1] Parameters: {"user"=>{"$N"=>"$V"}, "commit"=>"Log in"}',
        "backquotes": "{`user`: `bob`, `$N`: `$V`}",
        "typed": '{"$N": {"S": "$V"}, "id": {"N": "7"}}',
    }
    found = _many("json", quoted, escape=_json, accepts=ANY)
    for name in ("key and value", "name and value"):
        found = [one._replace(style="header") if one.name == name else one for one in found]
    strings = {"camel-case member": '{"user": "bob", "$N": "$V"}', "compact": '{"id":7,"$N":"$V"}'}
    found += _many("json", strings, style="camel", escape=_json, accepts=ANY)
    found += [
        Carrier(
            "json in json",
            "json",
            ('{"message": "{\\"user\\": \\"bob\\", \\"$N\\": \\"$V\\"}"}',),
            escape=_times(_json, 2),
            accepts=ANY,
        ),
        Carrier(
            "json in json in json",
            "json",
            ('{"a": "{\\"b\\": \\"{\\\\\\"$N\\\\\\": \\\\\\"$V\\\\\\"}\\"}"}',),
            escape=_times(_json, 3),
            accepts=ANY,
        ),
        Carrier(
            "escaped quotes",
            "json",
            ('body was {\\"user\\": \\"bob\\", \\"$N\\": \\"$V\\"}',),
            escape=_times(_json, 2),
            accepts=ANY,
        ),
        Carrier("json with escapes", "json", ('{"user": "bob", "$N": "$V"}',), escape=_unicode, accepts=r"[^\"\\]+"),
        Carrier("number in json", "json", ('{"user": "bob", "$N": $V, "id": 7}',), accepts=r"[1-9][0-9]{2,15}"),
        Carrier(
            "json text",
            "json",
            ('{"level": "error", "msg": "upstream said $V", "id": 7}',),
            escape=_json,
            accepts=ANY,
            gentle=True,
        ),
        Carrier("json list", "json", ('["a", "$V", "b"]',), escape=_json, accepts=ANY, gentle=True),
        Carrier(
            "nearly json text",
            "json",
            ('{"n": NaN, "msg": "upstream said $V", "id": 7}',),
            escape=_json,
            accepts=ANY,
            gentle=True,
        ),
    ]
    return found


def _nested() -> list[Carrier]:
    """One syntax in another."""
    twice, thrice = _times(_json, 2), _times(_json, 3)
    texts = {
        "json in a log line": ('2026-01-02 03:04:05 INFO body={"user":"bob","$N":"$V"} took 3 ms', _json),
        "json in logfmt": ('level=info msg="got {\\"user\\":\\"bob\\",\\"$N\\":\\"$V\\"}" dur=3ms', twice),
        "json in single quotes": ('payload: \'{"user": "bob", "$N": "$V"}\' rejected', _json),
        "json in a form": ('id=7&data={"user":"bob","$N":"$V"}&a=1', _json),
        "json in xml": ('<body>{"user":"bob","$N":"$V"}</body>', _json),
        "xml in json": ('{"id": 7, "body": "<login><$N>$V</$N></login>"}', _json),
        "form in json": ('{"id": 7, "body": "user=bob&$N=$V&a=1"}', _percent),
        "url in json": ('{"id": 7, "url": "https://api.acme.io/a?$N=$V&page=2"}', _percent),
        "log line in json": ('{"level": "info", "msg": "login failed user=bob $N=$V"}', _as_is),
        "command in json": ('{"cmd": "app serve --$N $V", "id": 7}', _as_is),
        "python dictionary in json": ("{\"msg\": \"bad payload {'user': 'bob', '$N': '$V'}\"}", _as_is),
        "nearly json in json": ('{"msg": "{\\"n\\": NaN, \\"$N\\": \\"$V\\"}", "id": 7}', twice),
        "json deep in json": (
            '{"a":[{"b":"{\\"c\\":[{\\"d\\":\\"{\\\\\\"$N\\\\\\":\\\\\\"$V\\\\\\"}\\"}]}"}]}',
            thrice,
        ),
        "nearly json, deep": ('{"a": {"b": [1, undefined, {"user": "bob", "$N": "$V"}]}}', _json),
        "nearly json, first in a list": ('[NaN, {"user": "bob", "$N": "$V"}]', _json),
        "value in single quotes": ('{"user": "bob", "$N": \'$V\'}', _single_quoted),
        "value without quotes": ('{"user": "bob", "$N": $V}', _as_is),
        "value as bytes": ("{'user': 'bob', '$N': b'$V'}", _single_quoted),
        "value in a constructor": ("{'user': 'bob', '$N': SecretStr('$V')}", _single_quoted),
    }
    plain = ("log line in json", "command in json", "value without quotes")
    found = [
        Carrier(name, "nested", (text,), escape=escape, accepts=TOKEN if name in plain else NO_ESCAPE)
        for name, (text, escape) in texts.items()
    ]
    return [one._replace(style="kebab") if one.name == "command in json" else one for one in found]


def _dumps() -> list[Carrier]:
    single = {
        "python dictionary": "{'user': 'bob', '$N': '$V', 'id': 7}",
        "python in prose": "bad payload {'user': None, '$N': '$V'}",
        "tuple": "[('user', 'bob'), ('$N', '$V')]",
        "keyword": "User(name='bob', $N='$V')",
        "javascript": "{ user: 'bob', $N: '$V', tags: [Array] }",
        "php array": "array ( 'user' => 'bob', '$N' => '$V', )",
        "ruby symbol": "{:user=>'bob', :$N=>'$V'}",
        "java with quotes": "User{name='bob', $N='$V'}",
    }
    double = {
        "rust": 'User { name: "bob", $N: "$V" }',
        "rust option": 'Config { user: Some("bob"), $N: Some("$V") }',
        "rust newtype": 'Config { $N: Secret("$V") }',
        "go syntax": 'User{Name:"bob", $N:"$V"}',
        "ruby keyword": '{user: "bob", $N: "$V"}',
        "elixir": '%{"user" => "bob", "$N" => "$V"}',
        "clojure": '{:user "bob", :$N "$V"}',
        "erlang": '[{user,<<"bob">>},{$N,<<"$V">>}]',
        "php var_dump": 'array(1) {\n  ["$N"]=>\n  string($L) "$V"\n}',
        "php serialized": 'a:1:{s:$M:"$N";s:$L:"$V";}',
        "protobuf text": 'user: "bob" $N: "$V" id: 7',
        "protobuf text nested": 'auth { user: "bob" $N: "$V" }',
        "csharp": '{ User = "bob", $N = "$V" }',
        "graphql": 'mutation { login(user: "bob", $N: "$V") { id } }',
        "terraform": 'resource "x" "y" {\n  $N = "$V"\n}',
        "properties list": '{ "$N" = "$V"; user = bob; }',
    }
    bare = {
        "php print_r": "Array\n(\n    [user] => bob\n    [$N] => $V\n)",
        "go map": "map[$N:$V user:bob]",
        "go struct": "{User:bob $N:$V ID:7}",
        "java": "User(name=bob, $N=$V, id=7)",
        "java map": "{user=bob, $N=$V}",
        "scala map": "Map(user -> bob, $N -> $V)",
        "brackets": "user=[bob] $N=[$V]",
        "braces": "user={bob} $N={$V}",
        "postgres detail": "Key ($N)=($V) already exists.",
        "postgres detail of two": "Key (user_id, $N)=(7, $V) already exists.",
    }
    found = _many("dumps", single, style="camel", escape=_single_quoted, accepts=ANY)
    found += _many("dumps", double, escape=_json, accepts=ANY)
    found += _many("dumps", bare, accepts=TOKEN)
    snake = ("python dictionary", "python in prose", "tuple", "php array", "ruby symbol")
    pascal = ("go struct", "go syntax", "csharp", "brackets")
    styled = {**dict.fromkeys(snake, "snake"), **dict.fromkeys(pascal, "pascal"), "graphql": "camel", "java": "camel"}
    return [one._replace(style=styled.get(one.name, one.style)) for one in found]


def _pairs() -> list[Carrier]:
    names = {
        "equals": "login failed user=bob $N=$V from 10.0.0.7",
        "equals at the end": "login failed: $N=$V",
        "equals alone": "$N=$V",
        "colon": "login failed user: bob $N: $V",
        "colon, a line": "user: bob\n$N: $V\nid: 7",
        "colon without space": "login failed $N:$V",
        "walrus": "$N := $V",
        "plus equals": "$N += $V",
        "arrow": "$N -> $V",
        "double arrow": "$N => $V",
        "two equals": "$N == $V",
        "spaced equals": "$N = $V",
        "value on the next line": "$N:\n  $V\n",
        "in angle brackets by name": "$N=<$V>",
        "semicolons": "user=bob;$N=$V;id=7",
        "commas": "user=bob, $N=$V, id=7",
        "pipe": "user=bob|$N=$V|id=7",
        "tabs": "user\tbob\n$N\t$V",
        "logfmt": "ts=2026-01-02T03:04:05Z level=info msg=login user=bob $N=$V dur=3ms",
        "log line": "2026-01-02 03:04:05,678 ERROR [main] c.a.Login - user=bob $N=$V",
        "log line with a bracket": "[2026-01-02 03:04:05] ERROR: login failed, $N=$V",
        "ansi": "\x1b[36m$N\x1b[0m=\x1b[32m$V\x1b[0m",
        "ansi name": "\x1b[36m$N=\x1b[0m$V ok",
    }
    found = _many("pairs", names, accepts=TOKEN)
    quoted = {
        "equals quoted": 'login failed user="bob" $N="$V" id=7',
        "logfmt quoted": 'level=info msg="log in" $N="$V" dur=3ms',
        "colon quoted": '$N: "$V"',
        "walrus quoted": '$N := "$V"',
        "constant": 'const $N = "$V";',
        "compared": 'if $N == "$V" then',
        "fails to match": '"$N" with value "$V" fails to match the required pattern',
        "diff": '+  $N = "$V"\n   port = 80\n',
        "hexadecimal quote": "login failed: {\\x22$N\\x22:\\x22$V\\x22}",
        "ansi quoted": '\x1b[34m"$N"\x1b[0m: \x1b[32m"$V"\x1b[0m',
    }
    found += _many("pairs", quoted, accepts=NO_QUOTE)
    environment = {
        "environment": "PATH=/usr/bin\nHOME=/root\n$N=$V\nLANG=C",
        "environment in a line": "PATH=/usr/bin HOME=/root $N=$V LANG=C",
        "export": "export $N=$V",
        "docker -e": "docker run -e $N=$V -p 80:80 acme/shop:1.4",
        "dotenv": "PORT=80\n$N='$V'\n",
        "environment list": '["PATH=/usr/bin", "$N=$V"]',
        "declare": 'declare -x $N="$V"',
    }
    found += _many("environment", environment, style="upper", accepts=TOKEN)
    options = {
        "option": "app serve --port 80 --$N $V --verbose",
        "option with equals": "app serve --$N=$V --verbose",
        "option at the end": "/usr/bin/app --user bob --$N $V",
        "argument array": '["app", "--port", "80", "--$N", "$V"]',
        "argument array with equals": '["app", "--$N=$V", "-v"]',
        "single-quoted arguments": "['app', '--$N', '$V']",
        "options in prose": "exec failed: app --$N '$V': exit status 1",
    }
    found += _many("command line", options, style="kebab", accepts=TOKEN)
    data = {
        "curl -d": "curl -d 'user=bob&$N=$V' https://api.acme.io/login",
        "curl --data of json": 'curl --data \'{"user":"bob","$N":"$V"}\' https://api.acme.io/login',
        "curl -F": "curl -F user=bob -F $N=$V https://api.acme.io/login",
    }
    found += _many("command line", data, accepts=r"[A-Za-z0-9_.:/~-]+")
    found += _many(
        "command line",
        {"java property": "java -D$N=$V -jar shop.jar", "helm set": "helm upgrade shop --set $N=$V"},
        style="dotted",
        accepts=TOKEN,
    )
    found.append(
        Carrier("powershell", "command line", ("Connect-App -User bob -$N $V",), style="pascal", accepts=TOKEN)
    )
    return found


def _markup() -> list[Carrier]:
    xml = {
        "xml element": "<login><user>bob</user><$N>$V</$N></login>",
        "xml element with attributes": '<ns:$N type="text">$V</ns:$N>',
        "xml attribute": '<login user="bob" $N="$V"/>',
        "xml setting": '<add key="$N" value="$V" />',
        "xml entry": '<entry key="$N">$V</entry>',
        "xml property": '<property name="$N" value="$V"/>',
        "xml name and value": "<Name>$N</Name><Value>$V</Value>",
        "plist": "<key>$N</key><string>$V</string>",
        "soap": '<s:Envelope><s:Body><m:$N xmlns:m="urn:a">$V</m:$N></s:Body></s:Envelope>',
        "cdata": "<login><$N><![CDATA[$V]]></$N></login>",
        "html input": '<input type="hidden" name="$N" value="$V">',
        "html entities": "{&quot;user&quot;:&quot;bob&quot;,&quot;$N&quot;:&quot;$V&quot;}",
        "html entities, numeric": "{&#34;user&#34;:&#34;bob&#34;,&#34;$N&#34;:&#34;$V&#34;}",
        "html table": "<tr><td>$N</td><td>$V</td></tr>",
    }
    found = _many("xml", xml, style="pascal", escape=lambda value: html.escape(value), accepts=ANY)
    lower = ("html input", "html entities", "html entities, numeric", "xml property", "xml entry", "html table")
    found = [one._replace(style="snake") if one.name in lower else one for one in found]
    found = [one._replace(escape=_as_is) if one.name == "cdata" else one for one in found]
    yaml = {
        "yaml": "user: bob\ndb:\n  host: db1\n  $N: $V\nid: 7\n",
        "yaml list": "- name: a\n  $N: $V\n",
        "yaml name and value": "env:\n  - name: $N\n    value: $V\n",
        "toml": 'user = "bob"\n$N = "$V"\n',
        "ini": "[db]\nuser = bob\n$N = $V\n",
        "java properties": "db.user=bob\ndb.$N=$V\n",
        "markdown table": "| user | bob |\n| $N | $V |",
    }
    found += _many("yaml", yaml, accepts=TOKEN)
    found += [
        Carrier("yaml quoted", "yaml", ("user: bob\n$N: '$V'\n",), accepts=NO_SINGLE),
        Carrier("yaml block", "yaml", ("user: bob\n$N: |\n  $V\nid: 7\n",), accepts=LINE),
        Carrier(
            "xml text",
            "xml",
            ("<log><msg>upstream said $V</msg></log>",),
            escape=lambda value: html.escape(value, quote=False),
            accepts=ANY,
            gentle=True,
        ),
        Carrier("yaml text", "yaml", ("level: error\nmsg: upstream said $V\n",), accepts=LINE, gentle=True),
    ]
    return found


def _web() -> list[Carrier]:
    headers = {
        "header": "$N: $V",
        "header dump": "GET /orders HTTP/1.1\r\nHost: api.acme.io\r\n$N: $V\r\nAccept: */*\r\n\r\n",
        "header dump of curl": "> Host: api.acme.io\n> $N: $V\n> Accept: */*",
        "header list": "[Host: api.acme.io, $N: $V, Accept: */*]",
        "header map": 'Headers { "host": "api.acme.io", "$N": "$V" }',
        "header map of lists": "{Host=[api.acme.io], $N=[$V], Accept=[*/*]}",
        "go header": "map[Accept:[*/*] $N:[$V]]",
        "curl -H": "curl -H '$N: $V' https://api.acme.io/orders",
    }
    found = _many("header", headers, style="header", accepts=r"[A-Za-z0-9_.:+/=~$% -]+")
    form = {
        "form": "user=bob&$N=$V&id=7",
        "form, first": "$N=$V&user=bob",
        "form, last": "user=bob&id=7&$N=$V",
        "url query": "https://api.acme.io/v1/orders?$N=$V&page=2",
        "url query, last": "https://api.acme.io/v1/orders?page=2&$N=$V",
        "url fragment": "https://app.acme.io/cb#$N=$V&state=ab",
        "path with query": "/v1/orders?page=2&$N=$V",
        "url in prose": "GET https://api.acme.io/v1/orders?page=2&$N=$V returned 500",
        "form of objects": "user[name]=bob&user[$N]=$V",
        "escaped url": "https://acme.io/login?next=%2Fcb%3F$N%3D$V%26a%3D1",
        "html url": "https://api.acme.io/a?page=2&amp;$N=$V&amp;b=1",
        "access log": '10.0.0.7 - - [02/Jan/2026:03:04:05 +0000] "GET /a?page=2&$N=$V HTTP/1.1" 200 51',
        "pseudo-header": ":method: GET\n:path: /a?$N=$V\n:authority: api.acme.io",
        "referer": "Referer: https://app.acme.io/a?$N=$V\r\nAccept: */*",
        "websocket": "wss://ws.acme.io/socket?$N=$V",
    }
    found += _many(
        "form and query",
        form,
        escape=_percent,
        accepts=ANY,
        keys=("url.full", "url.query", "message", "http.request.body", "http.target"),
    )
    found = [one._replace(escape=_times(_percent, 2)) if one.name == "escaped url" else one for one in found]
    part = 'Content-Disposition: form-data; name="'
    multipart = f'--b42\r\n{part}user"\r\n\r\nbob\r\n--b42\r\n{part}$N"\r\n\r\n$V\r\n--b42--'
    found += [
        Carrier("multipart", "form and query", (multipart,), accepts=LINE),
        Carrier(
            "percent-escaped json",
            "form and query",
            ("data=%7B%22user%22%3A%22bob%22%2C%22$N%22%3A%22$V%22%7D",),
            escape=_percent,
            accepts=r"[^\"\\]+",
        ),
        Carrier(
            "url path",
            "url",
            ("https://api.acme.io/v1/items/$V/details",),
            accepts=r"[A-Za-z0-9_.~:-]+",
            keys=("url.full", "url.path", "message"),
        ),
        Carrier(
            "url path, last",
            "url",
            ("/v1/items/$V",),
            accepts=r"[A-Za-z0-9_.~:-]+",
            keys=("url.path", "http.target", "message"),
        ),
        Carrier(
            "url parameter",
            "url",
            ("https://api.acme.io/v1/items?ref=$V&page=2",),
            escape=_percent,
            accepts=ANY,
            keys=("url.full", "http.url", "message"),
        ),
        Carrier(
            "url user",
            "url",
            ("https://$V@git.acme.io/shop.git", "https://x-access-token:$V@git.acme.io/shop.git"),
            accepts=r"[A-Za-z0-9_.~-]+",
            keys=("url.full", "message"),
        ),
    ]
    return found


def _others() -> list[Carrier]:
    texts = {
        "log line, text": "2026-01-02 03:04:05,678 ERROR [main] c.a.Login - upstream said $V",
        "log line with a bracket, text": "[2026-01-02T03:04:05Z] [warn] upstream said $V (3 tries)",
        "stack trace": 'Traceback (most recent call last):\n  File "/app/a.py", line 7, in call\nValueError: $V',
        "java exception": "java.lang.IllegalStateException: $V\n\tat com.acme.A.b(A.java:42)",
        "equals, text": "upstream=billing ref=$V tries=3",
        "escaped lines": "upstream said\\n$V\\nand closed",
        "tabs, text": "7\t$V\tbob",
    }
    found = _many("log line", texts, accepts=r"[^\"\r\n\\]+", gentle=True)
    glued = {
        "ansi, text": "\x1b[32m$V\x1b[0m ok",
        "underscore before": "upload_$V",
        "underscores around": "mandate_$V_v2",
        "name of a file": "/tmp/$V.csv",
        "colon before": "ref:$V",
        "csv": "7,bob,$V,2026-01-02",
        "pipes": "7|bob|$V|x",
        "sql literal": "SELECT id FROM t WHERE ref = '$V'",
        "escaped quote": 'upstream said \\"$V\\" and closed',
        "html": "<p>value <b>$V</b> refused</p>",
    }
    found += _many("glued", glued, accepts=r"[^\s\"'<>|,;&\\]+")
    # Only before what begins unlike a word: hexadecimal digits would go on in letters.
    starts = r"(?:[A-Z]{2}|[a-z][a-z0-9]{1,8}[-_.]|eyJ|AIza|\$)[^\s\"'<>|,;&@\\]+"
    found.append(Carrier("letters before", "glued", ("upload$V",), accepts=starts))
    sql = {
        "sql where": "SELECT id FROM users WHERE $N = '$V'",
        "sql insert": "INSERT INTO users (id, $N) VALUES (7, '$V')",
        "sql update": "UPDATE users SET $N='$V' WHERE id=7",
        "sql in prose": "query failed: SELECT id FROM users WHERE $N = '$V' LIMIT 1",
    }
    found += _many(
        "sql",
        sql,
        escape=lambda value: value.replace("'", "''"),
        accepts=NO_QUOTE,
        keys=("db.query.text", "db.statement", "message"),
    )
    return [one._replace(keys=("message", "exception.message")) if one.name == "sql in prose" else one for one in found]


# What stands there may be prose as well: a word is a secret in none of them.
LOOSE = frozenset(
    (
        *("name is value", "name is value, goes on", "name value rejected", "name quoted value", "bad name: value"),
        *("wrong name given", "rejected value", "duplicate entry", "fails to match", "value on the next line", "tabs"),
        *("arrow", "double arrow", "two equals", "spaced equals", "plus equals", "walrus", "compared", "html table"),
        *("markdown table", "colon", "colon without space", "ansi", "ansi name", "option", "options in prose"),
    )
)


def carriers() -> list[Carrier]:
    """Those of texts, and those of names with values."""
    return [*_prose(), *_json_like(), *_nested(), *_dumps(), *_pairs(), *_markup(), *_web(), *_others()]
