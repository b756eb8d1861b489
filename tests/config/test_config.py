"""The configuration: references to the environment, positions of faults of every kind, the shipped file, the schema."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from sampler_proxy.config import model as config
from sampler_proxy.config import unknown_keys
from sampler_proxy.config.check import check
from sampler_proxy.config.file import contents, read
from sampler_proxy.config.model import (
    Adaptive,
    Config,
    ConsoleExport,
    FileExport,
    GrpcExport,
    HttpExport,
    Limit,
    Retry,
    Rule,
)
from sampler_proxy.config.yaml_positions import parse
from sampler_proxy.errors import ConfigError
from sampler_proxy.settings import Endpoint

DEPLOYED = Path(__file__).parents[2] / "deploy" / "sampler-proxy.yaml"
SECRET = "s3cret-value"
ENVIRON = {
    "SECRET": SECRET,
    "WAIT": "12s",
    "EMPTY": "",
    "INJECT": "x\nshutdown_timeout: 1s",
    "REF": "${env:SECRET}",
    "BIG": "x" * 100_000,
    "HASH_KEY": "0123456789abcdef",
}


def load_file(path: str, environ: dict[str, str]) -> Config:
    """The file as configuration, TraceQL unseen; ConfigError with every fault."""
    parsed = read(path, contents(path), environ)
    if parsed.config is None:
        raise ConfigError(parsed.faults)
    return parsed.config


def load(tmp_path: Path, text: str | bytes) -> Config:
    file = tmp_path / "c.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_file(str(file), ENVIRON)


def faults(tmp_path: Path, text: str | bytes) -> list[tuple[int, int, str]]:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, text)
    assert all(fault.path == str(tmp_path / "c.yaml") for fault in refused.value.faults)
    assert SECRET not in str(refused.value)
    return [(fault.line, fault.column, fault.message) for fault in refused.value.faults]


RULE = "rules:\n  - {name: all, keep: all}\n"
GRPC = "export:\n  - name: a\n    endpoint: http://h:1\n"
HTTP = "export:\n  - name: a\n    protocol: http/protobuf\n"

BAD = {
    # YAML itself
    "syntax": ("receive: {\n", [(2, 1, "expected the node content")]),
    "mapping where none can be": ("a: b: c\n", [(1, 5, "mapping values are not allowed here")]),
    "tab": ("buffer:\n\tmax_bytes: 1GiB\n", [(2, 1, "write spaces instead of the tab")]),
    "expression after an expression": (
        "rules:\n  - match: '{a}' && '{b}'\n    name: x\n",
        [(2, 19, "quotes round the whole value")],
    ),
    "two documents": ("a: 1\n---\nb: 1\n", [(2, 1, "a second document")]),
    "not a mapping": ("- a\n", [(1, 1, "a mapping is wanted here")]),
    "a word": ("hello\n", [(1, 1, "a mapping is wanted here")]),
    "control character": ("admin: {}\nstamp: '\x01'\n", [(2, 9, "a character that YAML does not allow")]),
    "not UTF-8": (b"admin: {}\nn: \xfc\n", [(2, 4, "not UTF-8")]),
    "too large": (b"#" * (1 << 20) + b"\n", [(0, 0, "larger than 1MiB")]),
    "a rate where a share is wanted": (
        "rules: [{name: a, keep: 100 traces/s}]\n",
        [(1, 25, "a rate is a target: write {target: 100 traces/s}")],
    ),
    "what is wrong with targets": (
        "rules:\n"
        "  - name: a\n"
        "    keep: {target: 0 traces/s, per: x, at_least: 50%, at_most: 1%, minimum: }\n"
        "  - name: b\n"
        "    keep: {per: [], tarrget: 1 traces/s, at_most: 0%}\n",
        [
            (3, 20, "less than once in eleven days"),
            (3, 37, "a list is wanted here"),
            (3, 64, "at_most (100% if not set) is below at_least"),
            (3, 68, "no value: write for example 1/min"),
            (5, 11, "'target' is missing: write for example `target: 100 traces/s`"),
            (5, 21, "unknown key 'tarrget': did you mean 'target'?"),
            (5, 51, "nothing would be kept"),
        ],
    ),
    "too many fields": (
        f"rules: [{{name: a, keep: {{target: 1 traces/s, per: [{', '.join('abcdefghi')}]}}}}]\n",
        [(1, 51, "more than 8 fields")],
    ),
    "two limits": ("limit: {spans: 1/s, traces: 1/s}\n", [(1, 8, "either traces, spans or bytes")]),
    "limits that are none": (
        "limit: {spans: , bytes: , traces: }\nstorage: {path: }\n",
        [
            (1, 9, "no value: write for example 10000/s"),
            (1, 18, "no value: write for example 5MB/s"),
            (1, 27, "no value: write for example 500/s"),
            (2, 11, "no value: write a folder"),
        ],
    ),
    "a limit in sizes": ("limit: {spans: 5MB/s}\n", [(1, 16, "no number per second, minute or hour")]),
    "duplicate key": (
        "admin: {}\nbuffer: {}\nadmin: {}\n",
        [(3, 1, "duplicate key 'admin', first written in line 1")],
    ),
    "key that is no text": ("? [a]\n: 1\n", [(1, 3, "a key must be plain text")]),
    "merge key": ("buffer:\n  <<: {max_bytes: 1GiB}\n", [(2, 3, "merge keys (<<) are not supported")]),
    "tag": ("buffer: {max_bytes: !big 1}\n", [(1, 21, "tags are not supported")]),
    "binary": ("buffer: {max_bytes: !!binary MQ==}\n", [(1, 21, "tags are not supported")]),
    "unknown alias": ("admin: *a\n", [(1, 8, "found undefined alias")]),
    "too deep": ("a: " + "[" * 40 + "]" * 40 + "\n", [(1, 35, "nested too deeply")]),
    "far too deep": ("[" * 100_000, [(1, 33, "nested too deeply")]),
    "alias of what it stands in": ("rules: &a [*a]\n", [(1, 8, "a mapping"), (1, 8, "an alias inside")]),
    "billion laughs": (
        "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}' if i else 'lol'] * 9)}]" for i in range(10)),
        [(1, 15, "more than 100000 values")],
    ),
    "as many values without an alias": ("- a\n" * 200_001, [(200_000, 3, "more than 100000 values")]),
    "one text in many places": (
        f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 1000)}]\n",
        [(1, 7, "more than 4MiB once references and aliases are expanded")],
    ),
    "references to a large value": (
        "a: b\nrules: [" + "{name: '${env:BIG}'}, " * 1000 + "]\n",
        [(2, 918, "more than 4MiB once references and aliases are expanded")],
    ),
    "a text of references to a large value": (
        "a: 'b" + "${env:BIG}" * 1000 + "'\n",
        [(1, 4, "more than 4MiB once references and aliases are expanded")],
    ),
    "references that are none": (
        "a: |\n" + " ${x}\n" * 50_000,
        [(line + 2, 2, "not a reference") for line in range(20)],
    ),
    "a zero byte": ("admin: {}\n\0", [(2, 1, "a character that YAML does not allow")]),
    # keys
    "unknown key": ("recieve: {}\n", [(1, 1, "unknown key 'recieve': did you mean 'receive'?")]),
    "unknown key inside": (
        "buffer:\n  max_byte: 1\n",
        [(2, 3, "unknown key 'max_byte': did you mean 'max_bytes'?")],
    ),
    "unknown key, nothing near": (
        "stamp: {zzz: 1}\n",
        [(1, 9, "unknown key 'zzz': known here are decision, adjusted_count")],
    ),
    "unknown key of an export": (
        GRPC + "    header: {}\n",
        [(4, 5, "unknown key 'header': did you mean 'headers'?")],
    ),
    "unknown key deep in an export": (
        GRPC + "    retry: {maximum: 1s}\n",
        [(4, 13, "unknown key 'maximum': did you mean 'max'?")],
    ),
    "name of the field instead of the key": (
        "buffer: {decision_wait_ns: 30s}\n",
        [(1, 10, "unknown key 'decision_wait_ns': did you mean 'decision_wait'?")],
    ),
    # values
    "duration without a unit": (
        "shutdown_timeout: 30\n",
        [(1, 19, "not a duration with its unit: write for example 30s")],
    ),
    "duration missing": ("shutdown_timeout:\n", [(1, 18, "not a duration")]),
    "duration that is a list": ("shutdown_timeout: [1s]\n", [(1, 19, "not a duration")]),
    "size": ("buffer: {max_bytes: 1Gi}\n", [(1, 21, "not a size: write for example 1GiB")]),
    "size too small": ("buffer: {max_bytes: 1kB, max_trace_bytes: 1kB}\n", [(1, 21, "too small: write 1MiB or more")]),
    "size too large": ("receive: {max_request_bytes: 2GiB}\n", [(1, 30, "too large: write 2147483647 or less")]),
    "traces larger than the buffer": (
        "buffer:\n  max_bytes: 1MiB\n  max_trace_bytes: 2MiB\n",
        [(3, 20, "larger than max_bytes")],
    ),
    "flag": ("stamp: {decision: yes}\n", [(1, 19, "write true or false")]),
    "listen address with scheme": (
        "admin: {endpoint: 'http://h:1'}\n",
        [(1, 19, "write host:port, without a scheme")],
    ),
    "listen address without port": ("admin: {endpoint: localhost}\n", [(1, 19, "write host:port")]),
    "listen address, bare IPv6": ("admin: {endpoint: '::1:80'}\n", [(1, 19, "in brackets: [::1]:80")]),
    "listen address, bare wildcard": ("receive: {grpc: {endpoint: ':::4317'}}\n", [(1, 28, "brackets: [::]:4317")]),
    "listen address, IPv6 without port": ("admin: {endpoint: 'fe80::a'}\n", [(1, 19, "in brackets: [::]:4317")]),
    "unix socket, relative": ("receive: {grpc: {endpoint: 'unix:x.sock'}}\n", [(1, 28, "path from the root")]),
    "unix socket, a folder": ("receive: {http: {endpoint: 'unix:/run/'}}\n", [(1, 28, "path from the root")]),
    "unix socket, too long": (
        f"receive: {{http: {{endpoint: 'unix:/{'x' * 107}'}}}}\n",
        [(1, 28, "at most 107 bytes")],
    ),
    "unix socket of admin": ("admin: {endpoint: 'unix:/run/x.sock'}\n", [(1, 19, "write host:port")]),
    "keep-alive": ("receive: {grpc: {keepalive: {time: 10ms}}}\n", [(1, 36, "too short: write 1s or more")]),
    "port": ("admin: {endpoint: 'h:65536'}\n", [(1, 19, "a port is at most 65535")]),
    "mapping wanted": ("receive: {grpc: 4317}\n", [(1, 17, "a mapping is wanted here")]),
    "list wanted": ("rules: {}\n", [(1, 8, "a list is wanted here")]),
    # rules
    "no rules": ("rules: []\n", [(1, 8, "an empty list: write at least one entry")]),
    "missing keep": (
        RULE + "  - name: b\n",
        [(3, 5, "'keep' is missing: write for example `keep: 1%`")],
    ),
    "missing name": ("rules:\n  - keep: all\n", [(2, 5, "'name' is missing: write for example `name: errors`")]),
    "empty name": ("rules: [{name: '', keep: all}]\n", [(1, 16, "no value: write a name")]),
    "unprintable name": ('rules: [{name: "a\\n", keep: all}]\n', [(1, 16, "not usable as a name")]),
    "keep a number": (
        "rules: [{name: a, keep: 0.5}]\n",
        [(1, 25, "write all, none, a percentage such as 1% or 0.01%, or a target such as {target: 100 traces/s}")],
    ),
    "keep one": ("rules: [{name: a, keep: 1}]\n", [(1, 25, "a percentage such as 1% or 0.01%, or a target such as")]),
    "keep a word": ("rules: [{name: a, keep: true}]\n", [(1, 25, "write all, none, a percentage")]),
    "keep a rate": ("rules: [{name: a, keep: 10/s}]\n", [(1, 25, "a rate is a target: write {target: 100 traces/s}")]),
    "at_least takes no target": (
        "rules: [{name: a, keep: {target: 1 traces/s, at_least: 1}}]\n",
        [(1, 56, "write all, none or a percentage such as 1% or 0.01%")],
    ),
    "keep too much": ("rules: [{name: a, keep: 101%}]\n", [(1, 25, "more than 100%")]),
    "keep too little": ("rules: [{name: a, keep: 0.000000000000001%}]\n", [(1, 25, "smaller than one in 2^56")]),
    "expression without quotes": (
        "rules:\n  - {name: e, match: { status = error }, keep: all}\n  - {name: r, keep: 1%}\n",
        [(2, 22, "put the expression in quotes")],
    ),
    "expression empty": (
        "rules:\n  - name: e\n    match:\n    keep: all\n  - {name: r, keep: 1%}\n",
        [(3, 5, "no value: write a TraceQL expression")],
    ),
    "same name twice": (
        "rules:\n  - {name: a, match: '{ }', keep: all}\n  - {name: a, keep: 1%}\n",
        [(3, 12, "this name is taken by the entry in line 2")],
    ),
    "last rule with match": (
        "rules:\n  - name: a\n    keep: all\n    match: '{ }'\n",
        [(4, 5, "the last rule must match everything: add one without match, or remove `match`")],
    ),
    "last rule with unless": (
        "rules:\n  - name: a\n    unless: '{ }'\n    keep: all\n",
        [(3, 5, "or remove `unless`")],
    ),
    # export
    "no export": ("export: []\n", [(1, 9, "an empty list")]),
    "unknown protocol": (
        "export:\n  - {name: a, protocol: grcp}\n",
        [(2, 25, "write grpc, http/protobuf, file or console")],
    ),
    "protocol that is no word": (
        "export:\n  - {name: a, protocol: [grpc]}\n",
        [(2, 25, "write grpc, http/protobuf, file or console")],
    ),
    "export that is no mapping": ("export:\n  - tempo\n", [(2, 5, "a mapping is wanted here")]),
    "file without path": (
        "export:\n  - {name: a, protocol: file}\n",
        [(2, 5, "'path' is missing: write for example `path: traces.jsonl`")],
    ),
    "missing endpoint": (
        "export:\n  - name: a\n",
        [(2, 5, "'endpoint' is missing: write for example `endpoint: http:")],
    ),
    "endpoint without scheme": (
        "export:\n  - {name: a, endpoint: 'h:4317'}\n",
        [(2, 25, "write http://host:port, or https://")],
    ),
    "endpoint without port": ("export:\n  - {name: a, endpoint: 'http://h'}\n", [(2, 25, "the port is missing")]),
    "endpoint with path": ("export:\n  - {name: a, endpoint: 'http://h:1/v1'}\n", [(2, 25, "gRPC knows no path")]),
    "endpoint with credentials": (
        f"export:\n  - {{name: a, endpoint: 'http://u:{SECRET}@h:1'}}\n",
        [(2, 25, "credentials do not belong into a URL")],
    ),
    "compression": (GRPC + "    compression: deflate\n", [(4, 18, "write gzip or none")]),
    "zstd over gRPC": (GRPC + "    compression: zstd\n", [(4, 18, "no zstd here: write gzip, or protocol: http/pro")]),
    "no endpoint over HTTP": (HTTP, [(2, 5, "'endpoint' is missing: write for example `endpoint: https://")]),
    "two endpoints": (
        HTTP + "    endpoint: http://h\n    traces_endpoint: http://h/t\n",
        [(2, 5, "write either endpoint or traces_endpoint, not both")],
    ),
    "a whole URL as endpoint": (HTTP + "    endpoint: http://h/v1/traces/\n", [(4, 15, "/v1/traces is added")]),
    "a query in an endpoint": (
        HTTP + "    endpoint: http://h/?key=x\n",
        [(4, 15, "write the whole as")],
    ),
    "a fragment": (HTTP + "    traces_endpoint: http://h/#x\n", [(4, 22, "a fragment (#) is not sent")]),
    "credentials in the URL of HTTP": (
        HTTP + "    endpoint: https://user:${env:SECRET}@h\n",
        [(4, 15, "credentials do not belong into a URL")],
    ),
    "no URL over HTTP": (HTTP + "    endpoint: h:4318\n", [(4, 15, "write http://host:port/path")]),
    "a port that is none": (HTTP + "    endpoint: http://h:99999\n", [(4, 15, "not a URL: write http://host")]),
    "ca_file over plain HTTP": (
        HTTP + "    endpoint: http://h\n    tls: {ca_file: /x}\n",
        [(5, 10, "this endpoint is reached without TLS")],
    ),
    "traces_endpoint over gRPC": (
        GRPC + "    traces_endpoint: http://h\n",
        [(4, 5, "did you mean 'endpoint'?")],
    ),
    "headers and file of HTTP": (
        "export:\n  - {name: a, protocol: http/protobuf, endpoint: 'http://h', path: x}\n",
        [(2, 62, "it is known with `protocol: file`")],
    ),
    "concurrency": (GRPC + "    concurrency: 0\n", [(4, 18, "write a whole number from 1 to 1000")]),
    "no retry": (GRPC + "    retry: {initial: 0s}\n", [(4, 22, "too short: write 1ms or more")]),
    "retry turned round": (GRPC + "    retry: {initial: 2s, max: 1s}\n", [(4, 31, "shorter than initial")]),
    "reserved header": (GRPC + "    headers: {grpc-timeout: 1}\n", [(4, 15, "reserved")]),
    "binary header": (GRPC + "    headers: {a-bin: x}\n", [(4, 15, "binary headers")]),
    "header name": (GRPC + "    headers: {'a b': x}\n", [(4, 15, "not a header name")]),
    "header twice": (GRPC + "    headers: {A: x, a: y}\n", [(4, 14, "a header is written twice")]),
    "header value": (GRPC + '    headers: {a: "ü${env:SECRET}"}\n', [(4, 18, "one line of printable ASCII")]),
    "same export twice": (
        GRPC + "  - {name: a, endpoint: 'http://h:2'}\n",
        [(4, 12, "this name is taken by the entry in line 2")],
    ),
    # destinations of rules
    "unknown destination": (
        "rules: [{name: a, keep: all, to: [tempp, sentry]}]\n" + GRPC.replace("name: a", "name: tempo"),
        [
            (1, 35, "no destination has this name: did you mean 'tempo'?"),
            (1, 42, "no destination has this name: there are tempo"),
        ],
    ),
    "destination named twice": (
        "rules: [{name: a, keep: all, to: [local, local]}]\n",
        [(1, 42, "this destination is named already: remove it")],
    ),
    "metadata named twice": (
        "receive: {metadata: [x-a, X-A]}\n",
        [(1, 21, "a header is named twice: write each once")],
    ),
    "metadata of every request": (
        "receive: {metadata: [Content-Type]}\n",
        [(1, 22, "content-type says how a request is sent")],
    ),
    "destination beside the default": (
        "rules: [{name: a, keep: all, to: [tempo]}]\n",
        [(1, 35, "no destination has this name: there are local")],
    ),
    "no destination": ("rules: [{name: a, keep: all, to: []}]\n", [(1, 34, "no destination: write their names")]),
    "empty destination": ("rules: [{name: a, keep: all, to: }]\n", [(1, 30, "no destination: write their names")]),
    "destination that is no list": ("rules: [{name: a, keep: all, to: local}]\n", [(1, 34, "a list is wanted here")]),
    # references
    "variable not set": (
        GRPC + '    headers: {authorization: "Bearer ${env:NOPE}"}\n',
        [(4, 38, "environment variable NOPE is not set: set it, or write ${env:NOPE:-default}")],
    ),
    "variable not set, after one that is": (
        "shutdown_timeout: '${env:SECRET}${env:NOPE}'\n",
        [(1, 33, "environment variable NOPE is not set")],
    ),
    "two not set": ("shutdown_timeout: ${env:A} ${env:B}\n", [(1, 19, "A is not set"), (1, 28, "B is not set")]),
    "variable with a wrong value": ("shutdown_timeout: ${env:SECRET}\n", [(1, 19, "not a duration")]),
    "not the environment": ("shutdown_timeout: ${file:x}\n", [(1, 19, "not a reference: write ${env:NAME}")]),
    "shell's way": ("shutdown_timeout: ${WAIT}\n", [(1, 19, "not a reference: write ${env:NAME}")]),
    "unclosed": ("shutdown_timeout: '${env:WAIT'\n", [(1, 20, "without its `}`")]),
    "nested": ("shutdown_timeout: '${env:A:-${env:B}}'\n", [(1, 20, "a reference inside a default")]),
    "of one that is not expanded again": ("shutdown_timeout: ${env:REF}\n", [(1, 19, "not a duration")]),
    "variable that would inject": (
        "rules: [{name: '${env:INJECT}', keep: all}]\n",
        [(1, 16, "not usable as a name")],
    ),
}


@pytest.mark.parametrize(("text", "expected"), BAD.values(), ids=BAD.keys())
def test_a_fault_has_its_position_and_says_what_to_write(tmp_path, text, expected):
    found = faults(tmp_path, text)
    assert [(line, column) for line, column, _ in found] == [(line, column) for line, column, _ in expected], found
    for (_, _, message), (_, _, fragment) in zip(found, expected, strict=True):
        assert fragment in message


def test_all_faults_come_at_once_in_file_order(tmp_path):
    text = """\
receive: {grcp: {}}
buffer:
  decision_wait: 30
  max_bytes: 1GB
  max_bytes: 2GB
rules:
  - {name: a, kep: 1%}
  - {name: a, match: '{ }', keep: "${env:NOPE}"}
export:
  - {name: t, endpoint: h, batch: {max_wait: 1}}
"""
    assert [(line, column) for line, column, _ in faults(tmp_path, text)] == [
        (1, 11),
        (3, 18),
        (5, 3),
        (7, 5),
        (7, 15),
        (8, 12),
        (8, 15),
        (8, 36),
        (10, 25),
        (10, 46),
    ]


@pytest.mark.parametrize(
    "text",
    ["".join(f"reciev{i}: 1\n" for i in range(70_000)), "rules: 1\n" * 70_000],
    ids=["unknown keys", "duplicate keys"],
)
def test_so_many_faults_that_nobody_reads_them_are_counted(tmp_path, monkeypatch, text):
    """Nearest keys are sought for those that may be shown: for all of them it took half a minute."""
    sought = []
    monkeypatch.setattr(
        unknown_keys.difflib, "get_close_matches", lambda *arguments, **_: sought.append(arguments) or []
    )
    found = faults(tmp_path, text)
    assert len(found) == 1001
    assert found[-1] == (1001, 1, "and 69000 more faults from here on: mend those above first")
    assert len(sought) <= 1000


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"^.*/none\.yaml: cannot be read: No such file or directory$"):
        load_file(str(tmp_path / "none.yaml"), {})


@pytest.mark.parametrize(
    "text", ["", "# only a comment\n", "buffer:\n  # max_bytes: 2GiB\n", "\ufeffadmin: {}\r\n", "{}"]
)
def test_what_is_not_written_has_its_default(tmp_path, text):
    assert load(tmp_path, text) == Config()


def test_everything_set(tmp_path):
    text = """\
receive: {grpc: {endpoint: "[::1]:0"}, max_request_bytes: 4MB}
buffer:
  {decision_wait: 1m, decision_wait_after_root: 0s, max_bytes: 2097152, max_trace_bytes: 1MiB, decision_memory: 1MiB}
rules:
  - {name: health checks, match: '{ name =~ "/h.*$" }', unless: '{ status = error }', keep: none}
  - {name: on, keep: 0.01%}
stamp: {decision: False, adjusted_count: "true"}
export:
  - name: tempo
    endpoint: https://tempo.example:4317/
    headers: {Authorization: "Bearer ${env:SECRET}", x-n: 1}
    compression: none
    timeout: 1.5s
    batch: &small {max_bytes: 1kB, max_wait: 0s}
    concurrency: 1
    queue: {max_bytes: 1MB}
    retry: {initial: 10ms, max: 1s}
  - {name: file, protocol: file, path: /tmp/x, max_bytes: 1GB, batch: *small}
admin: {endpoint: localhost:1}
shutdown_timeout: ${env:WAIT}
"""
    loaded = load(tmp_path, text)
    assert loaded.receive.grpc.endpoint == Endpoint("::1", 0)
    assert str(loaded.receive.grpc.endpoint) == "[::1]:0"
    assert loaded.receive.max_request_bytes == 4_000_000
    assert loaded.buffer.decision_wait_ns == 60_000_000_000
    assert loaded.buffer.decision_wait_after_root_ns == 0
    assert (loaded.buffer.max_bytes, loaded.buffer.max_trace_bytes) == (2 << 20, 1 << 20)
    assert loaded.buffer.decision_memory_bytes == 1 << 20
    assert loaded.rules == (
        Rule(name="health checks", match='{ name =~ "/h.*$" }', unless="{ status = error }", keep=0.0),
        Rule(name="on", keep=0.0001),
    )
    assert (loaded.stamp.decision, loaded.stamp.adjusted_count) == (False, True)
    tempo, file = loaded.export
    assert isinstance(tempo, GrpcExport)
    assert tempo.endpoint == "https://tempo.example:4317"
    assert tempo.headers == {"authorization": f"Bearer {SECRET}", "x-n": "1"}
    assert (tempo.compression, tempo.timeout_ns, tempo.concurrency) == ("none", 1_500_000_000, 1)
    assert (tempo.batch.max_bytes, tempo.batch.max_wait_ns, tempo.queue.max_bytes) == (1000, 0, 1_000_000)
    assert tempo.retry == Retry(initial_ns=10_000_000, max_ns=1_000_000_000)
    assert isinstance(file, FileExport)
    assert (file.path, file.max_bytes, file.batch) == ("/tmp/x", 10**9, tempo.batch)
    assert str(loaded.admin.endpoint) == "localhost:1"
    assert loaded.shutdown_timeout_ns == 12_000_000_000
    assert SECRET not in repr(loaded)
    # What it writes is what it reads.
    dumped = loaded.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert load(tmp_path, json.dumps(dumped).replace("$", "$$")) == loaded


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("${env:SECRET}", SECRET),
        ("a${env:SECRET}b${env:WAIT}", f"a{SECRET}b12s"),
        ("${env:NOPE:-x y}", "x y"),
        ("${env:NOPE:-}", ""),
        ("${env:NOPE:-a:-$$b}", "a:-$b"),
        ("${env:EMPTY:-x}", ""),
        ("${env:REF}", "${env:SECRET}"),
        ("$${env:SECRET}", "${env:SECRET}"),
        ("$$$$", "$$"),
        ("$", "$"),
        ("^a$", "^a$"),
        ("$HOME", "$HOME"),
        ("{}", "{}"),
    ],
)
def test_references(written, value):
    document = parse(json.dumps({"k": written}), ENVIRON)
    assert document.data == {"k": value}
    assert not document.problems


@pytest.mark.parametrize(
    ("text", "offset", "position"),
    [
        ("m: abc", 2, (1, 6)),
        ("m: 'abc'", 0, (1, 5)),
        ("m: 'abc'", 3, (1, 8)),  # its end
        ("m: 'a''bc'", 3, (1, 9)),
        (r'm: "a\"b\u00e9c"', 4, (1, 15)),
        ("m: &anchor 'abc'", 1, (1, 14)),
        ("m: '${env:WAIT}bc'", 1, (1, 5)),  # inside of the reference
        ("m: '${env:WAIT}bc'", 4, (1, 17)),
        ("m: 'a$$bc'", 3, (1, 9)),
        ("m: '${env:WAIT}'", 3, (1, 16)),  # its end
        ("m: |\n  ab\n\n  cd\n", 4, (4, 3)),
        ("m: |-\n  ab\n   cd", 5, (3, 5)),
        ("m: >\n  ab\n  cd\n", 4, (1, 4)),
        ("m: 'ab\n  cd'", 4, (1, 4)),
        ("é: 'é€b'", 2, (1, 7)),
    ],
)
def test_position_of_a_character(text, offset, position):
    document = parse(text, ENVIRON)
    (key,) = document.data
    assert document.positions.value((key,), offset) == position


def test_excerpt_shows_what_is_written_and_not_what_a_variable_holds():
    document = parse("m: |\n  { a }\n  { \tb = ${env:SECRET} && c }\n", ENVIRON)
    offset = document.data["m"].rindex("c")
    assert document.positions.excerpt(("m",), offset) == (
        "    { \tb = ${env:SECRET} && c }\n      \t                     ^"
    )


def with_examples(text: str) -> str:
    """The shipped file with its commented-out entries: `#- `, `#  ` and `#key:`, where prose is `# `."""
    return re.sub(r"(?m)^( +)#(- |  |(?=\w+:))", r"\1\2", text)


def without_alternatives(text: str) -> str:
    """Of the shipped file: one limit, one endpoint, no credentials, no files of certificates (they are not there)."""
    text = re.sub(r"(?m)^( +)(?:tls|auth):.*\n(?:\1 +.*\n)*", "", text)
    return re.sub(r"(?m)^ +(traces|bytes|traces_endpoint):.*\n", "", text)


def test_the_shipped_file_is_the_default():
    assert load_file(str(DEPLOYED), {}) == Config()


def test_the_shipped_file_shows_every_key(tmp_path):
    text = with_examples(DEPLOYED.read_text())
    data = yaml.safe_load(text)
    for path, model in config.sections():
        node = data
        for key in path:
            if key == "adaptive":
                continue
            if isinstance(node, list):
                node = next(entry for entry in node if entry.get("protocol") == key or isinstance(entry.get(key), dict))
                node = node.get(key, node)
            else:
                node = node[key]
        shown = {key for entry in node for key in entry} if isinstance(node, list) else set(node)
        keys = {config.key_of(model, field) for field in model.model_fields}
        assert keys <= shown, (path, keys - shown)
    # What it shows of an export over gRPC are the defaults too.
    loaded = load(tmp_path, without_alternatives(text))
    _, tempo, collector, console = loaded.export
    assert console == ConsoleExport(name="console", protocol="console")
    assert tempo == GrpcExport(name="tempo", endpoint="http://localhost:14317")
    assert collector == HttpExport(name="collector", protocol="http/protobuf", endpoint="http://localhost:14318")
    # And so is what it shows of a target, but for what has no default.
    keep = loaded.rules[3].keep
    assert keep == Adaptive(target=keep.target, per=keep.per, minimum=keep.minimum)
    assert loaded.limit == Limit(spans=10000.0)


def test_a_configuration_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Config().admin.endpoint = Endpoint("h", 1)


def test_schema_describes_the_file():
    schema = config.json_schema()
    definitions = schema["$defs"]
    assert set(schema["properties"]) == {
        *(
            "receive",
            "passthrough",
            "buffer",
            "rules",
            "limit",
            "redact",
            "stamp",
            "export",
            "storage",
            "admin",
            "shutdown_timeout",
        )
    }
    assert schema["additionalProperties"] is False
    buffer = definitions["Buffer"]["properties"]
    assert set(buffer) == {
        "decision_wait",
        "decision_wait_after_root",
        "root",
        "max_bytes",
        "max_trace_bytes",
        "decision_memory",
    }
    assert (buffer["decision_wait"]["default"], buffer["max_bytes"]["default"]) == ("30s", "1GiB")
    assert "first" in buffer["decision_wait"]["description"]
    assert definitions["Rule"]["required"] == ["name", "keep"]
    json.dumps(schema)


def test_schema_allows_the_shipped_values():
    """Every scalar of the shipped file matches the pattern, type or choice that the schema has for it."""
    schema = config.json_schema()

    def allows(rule: dict, value: object) -> bool:
        if "$ref" in rule:
            return allows(schema["$defs"][rule["$ref"].rsplit("/", 1)[1]], value)
        if alternatives := rule.get("anyOf") or rule.get("oneOf"):
            return any(allows(alternative, value) for alternative in alternatives)
        if "const" in rule or "enum" in rule:
            return value in rule.get("enum", [rule.get("const")])
        kinds = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "null": type(None)}
        if not isinstance(value, kinds.get(rule["type"], type(None))):
            return False
        if isinstance(value, dict) and "properties" in rule:
            known, required = rule["properties"], set(rule.get("required", ()))
            return required <= set(value) <= set(known) and all(allows(known[key], value[key]) for key in value)
        if isinstance(value, list):
            return all(allows(rule["items"], item) for item in value)
        return not isinstance(value, str) or re.search(rule.get("pattern", ""), value) is not None

    assert allows(schema, yaml.safe_load(without_alternatives(with_examples(DEPLOYED.read_text()))))
    assert not allows(schema, {"buffer": {"decision_wait": "30"}})
    assert not allows(schema, {"rules": [{"name": "a", "keep": "2"}]})
    assert allows(schema, {"rules": [{"name": "a", "keep": "${env:KEEP}"}]})


@pytest.mark.parametrize(
    ("endpoint", "ca_file", "at", "message"),
    [
        ("https://tempo:4317", "ca.pem", None, None),
        ("http://tempo:4317", "ca.pem", "4:10", "this endpoint is reached without TLS: write https://host:port there"),
        ("https://tempo:4317", "missing.pem", "4:20", "cannot be read: No such file or directory"),
        ("https://tempo:4317", "", "4:20", "cannot be read: Is a directory"),
        ("https://tempo:4317", "key.pem", "4:20", "holds no certificates: write the path of a file in PEM"),
        ("https://tempo:4317", "torn.pem", "4:20", "holds no certificates"),
        ("https://tempo:4317", "second torn.pem", "4:20", "holds a damaged certificate: copy the file anew"),
        ("https://tempo:4317", "damaged.pem", "4:20", "holds a damaged certificate: copy the file anew"),
        ("https://tempo:4317", "no certificate.pem", "4:20", "holds a damaged certificate: copy the file anew"),
        ("https://tempo:4317", "second is none.pem", "4:20", "holds a damaged certificate: copy the file anew"),
        ("https://tempo:4317", "blank.pem", "4:20", "holds a damaged certificate: copy the file anew"),
        ("https://tempo:4317", "trusted.pem", None, None),
        ("https://tempo:4317", "two with comments.pem", None, None),
        ("https://tempo:4317", "empty.pem", "4:20", "holds no certificates"),
        ("https://tempo:4317", "large.pem", "4:20", "larger than 4MiB: not a file of certificates"),
    ],
)
def test_own_authorities(tmp_path, endpoint, ca_file, at, message):
    """A wrong file is found with the configuration, at its place, and nothing of it is shown."""
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=own"
    files = ["-keyout", tmp_path / "key.pem", "-out", tmp_path / "ca.pem"]
    subprocess.run([*command.split(), *files], check=True, capture_output=True)
    certificate = (tmp_path / "ca.pem").read_text()
    (tmp_path / "torn.pem").write_text(certificate[: len(certificate) // 2])
    (tmp_path / "second torn.pem").write_text(certificate + certificate[: len(certificate) // 2])
    lines = certificate.splitlines(keepends=True)
    (tmp_path / "damaged.pem").write_text("".join([lines[0], *lines[2:]]))
    number = f"{lines[0]}MAMCAQU=\n{lines[-1]}"  # a SEQUENCE, whole, but that of a number
    (tmp_path / "no certificate.pem").write_text(number)
    (tmp_path / "second is none.pem").write_text(certificate + number)
    (tmp_path / "blank.pem").write_text(lines[0] + lines[-1])
    command = "openssl x509 -trustout -addtrust serverAuth"
    files = ["-in", tmp_path / "ca.pem", "-out", tmp_path / "trusted.pem"]
    subprocess.run([*command.split(), *files], check=True, capture_output=True)
    (tmp_path / "two with comments.pem").write_text(f"# Nürnberg\n{certificate}\r\n# anew\r\n{certificate}")
    (tmp_path / "empty.pem").write_text("")
    (tmp_path / "large.pem").write_text("# comment\n" * 500_000 + certificate)
    path = tmp_path / "c.yaml"
    path.write_text(
        f"export:\n  - name: tempo\n    endpoint: {endpoint}\n    tls: {{ca_file: '{tmp_path / ca_file}'}}\n"
    )
    if at is None:
        (export,) = check(str(path), {}).config.export
        assert export.tls.ca_file == str(tmp_path / ca_file)
        return
    with pytest.raises(ConfigError) as refused:
        check(str(path), {})
    (fault,) = refused.value.faults
    assert str(fault).startswith(f"{path}:{at}: {message}")


def test_json_writes_characters_beyond_the_first_plane_in_two_halves(tmp_path):
    document = {"rules": [{"name": "a 😀", "match": '{ name = "😀" }', "keep": "all"}, {"name": "b", "keep": "1%"}]}
    written = json.dumps(document)
    assert r"\ud83d\ude00" in written
    assert load(tmp_path, written) == load(tmp_path, json.dumps(document, ensure_ascii=False))
    document["rules"][0]["match"] = '{ name = "😀é😀" && wrong }'
    for text in (json.dumps(document), json.dumps(document, ensure_ascii=False)):
        (tmp_path / "c.yaml").write_text(text)
        with pytest.raises(ConfigError) as caught:
            check(str(tmp_path / "c.yaml"), {})
        (fault,) = caught.value.faults
        assert fault.column == text.index("wrong") + 1


@pytest.mark.parametrize("half", [r"\ud83d", r"\ude00", r"\ude00\ud83d"])
def test_half_a_character_is_none(tmp_path, half):
    (tmp_path / "c.yaml").write_text(f'{{"rules": [{{"name": "{half}", "keep": "1%"}}]}}')
    with pytest.raises(ConfigError, match="not usable as a name"):
        check(str(tmp_path / "c.yaml"), {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Endpoint("::", 4318)),
        ("receive: {http: {endpoint: 'unix:/run/x.sock'}}\n", Endpoint("", 0, "/run/x.sock")),
        ("receive: {http: {endpoint: 'unix:///run/x.sock'}}\n", Endpoint("", 0, "/run/x.sock")),
        ("receive: {http: {endpoint: '[::1]:0'}}\n", Endpoint("::1", 0)),
        ("receive: {http: {endpoint: off}}\n", None),
        ("receive: {http: {endpoint: 'off'}}\n", None),
    ],
)
def test_the_http_port(tmp_path: Path, text: str, expected: Endpoint | None) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    assert check(str(file), {}).config.receive.http.endpoint == expected


@pytest.mark.parametrize("origin", ["shop.example", "https://shop.example/", "https://a b", "https://u@shop.example"])
def test_origins_that_are_none(tmp_path: Path, origin: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"receive: {{http: {{cors: {{allowed_origins: ['{origin}']}}}}}}\n")
    with pytest.raises(ConfigError, match="not an origin"):
        check(str(file), {})
