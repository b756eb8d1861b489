"""Which key was meant by one that a section does not know: slips, words of other programs, keys of other sections."""

from __future__ import annotations

from pathlib import Path

import pytest

from sampler_proxy.config.check import check
from sampler_proxy.config.model import sections
from sampler_proxy.config.unknown_keys import _BY_WORD, keys_of
from sampler_proxy.errors import ConfigError

RULE = "rules: [{name: a, keep: 1%, KEY}]"
ADAPTIVE = "rules: [{name: a, keep: {target: 1 traces/s, KEY}}]"
GRPC = "export: [{name: a, endpoint: 'http://h:1', KEY}]"
RETRY = "export: [{name: a, endpoint: 'http://h:1', retry: {KEY}}]"
QUEUE = "export: [{name: a, endpoint: 'http://h:1', queue: {KEY}}]"
TLS = "export: [{name: a, endpoint: 'https://h:1', tls: {KEY}}]"

SPELLING = [
    ("KEY", "rule: []", "did you mean 'rules'?"),
    ("KEY", "exporters: {}", "did you mean 'export'?"),
    ("buffer: {KEY}", "decisionWait: 1s", "did you mean 'decision_wait'?"),
    ("buffer: {KEY}", "decision-wait: 1s", "did you mean 'decision_wait'?"),
    ("stamp: {KEY}", "adjusted.count: true", "did you mean 'adjusted_count'?"),
    (QUEUE, "whenFull: drop", "did you mean 'when_full'?"),
    (RETRY, "initial_interval: 1s", "did you mean 'initial'?"),
    (RETRY, "max_interval: 1s", "did you mean 'max'?"),
    (ADAPTIVE, "min: 1/min", "did you mean 'minimum'?"),
]
OTHER_WORDS = [
    ("KEY", "policies: []", "did you mean 'rules'?"),
    ("KEY", "destinations: []", "did you mean 'export'?"),
    (RULE, "query: x", "did you mean 'match'?"),
    (RULE, "filter: x", "did you mean 'match'?"),
    (RULE, "except: x", "did you mean 'unless'?"),
    (RULE, "sample: 1%", "did you mean 'keep'?"),
    (RULE, "rate: 1%", "did you mean 'keep'?"),
    (RULE, "percentage: 10", "a percentage is written without target, as in keep: 1%"),
    (ADAPTIVE, "percentage: 10", "a percentage is written without target, as in keep: 1%"),
    (ADAPTIVE, "group_by: x", "did you mean 'per'?"),
    ("buffer: {KEY}", "num_traces: 5", "did you mean 'max_bytes'?"),
    ("buffer: {KEY}", "size: 1GB", "did you mean 'max_bytes'?"),
    ("buffer: {KEY}", "wait: 1s", "did you mean 'decision_wait'?"),
    ("admin: {KEY}", "port: 1", "did you mean 'endpoint'?"),
    ("limit: {KEY}", "rate: 1/s", "did you mean 'traces'?"),
    ("storage: {KEY}", "dir: x", "did you mean 'path'?"),
    (GRPC, "url: x", "did you mean 'endpoint'?"),
    (GRPC, "type: grpc", "did you mean 'protocol'?"),
    (TLS, "ca: x", "did you mean 'ca_file'?"),
    (RETRY, "max_elapsed_time: 5m", "did you mean 'give_up'?"),
]
ELSEWHERE = [
    ("KEY", "decision_wait: 1s", "it belongs into buffer"),
    ("KEY", "per: [name]", "it belongs into rules.keep"),
    ("receive: {KEY}", "endpoint: 'h:1'", "it belongs into receive.grpc or receive.http"),
    (GRPC, "ca_file: x", "it belongs into export.tls"),
    (GRPC, "when_full: drop", "it belongs into export.queue"),
    (GRPC, "give_up: 1m", "it belongs into export.retry"),
    (GRPC, "path: x", "it is known with `protocol: file`"),
    ("export: [{name: a, protocol: file, path: x, KEY}]", "endpoint: x", "it is known with `protocol: grpc`"),
    ("buffer: {KEY}", "shutdown_timeout: 1s", "it belongs to the first level of the file"),
]
NOT_HERE = [
    ("KEY", "log_level: debug", "write it into the command"),
    ("KEY", "logging: {}", "write it into the command"),
    (GRPC, "insecure: true", "http://host:port is without TLS"),
    (TLS, "insecure: true", "http://host:port is without TLS"),
    ("receive: {grpc: {KEY}}", "cert_file: x", "it belongs into receive.grpc.tls"),
    ("receive: {grpc: {tls: {KEY}}}", "certificate: x", "did you mean 'cert_file'?"),
    ("receive: {grpc: {auth: {KEY}}}", "tokens: []", "did you mean 'bearer_tokens'?"),
    ("receive: {KEY}", "otlp: {}", "write grpc here"),
    ("admin: {KEY}", "zzz: 1", "known here are endpoint, insecure, tls, auth"),
    (RULE, "zzz: 1", "known here are name, match, unless, keep"),
]


@pytest.mark.parametrize(("text", "key", "answer"), [*SPELLING, *OTHER_WORDS, *ELSEWHERE, *NOT_HERE])
def test_an_unknown_key_gets_the_answer_that_helps(tmp_path: Path, text: str, key: str, answer: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text.replace("KEY", key))
    with pytest.raises(ConfigError) as caught:
        check(str(file), {})
    name = key.partition(":")[0]
    messages = [fault.message for fault in caught.value.faults if fault.message.startswith(f"unknown key '{name}': ")]
    assert len(messages) == 1, caught.value.faults
    assert answer in messages[0]


def test_all_words_lead_to_keys_that_there_are() -> None:
    known = {key for path, _ in sections() for key in keys_of(path)}
    assert {ours for keys in _BY_WORD.values() for ours in keys} <= known


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("admin: 8888\n", "lines of `key: value`, with keys such as endpoint, insecure, tls"),
        ("redact: common\n", "with keys such as preset, keys, values"),
        ("limit: 100/s\n", "with keys such as traces, spans, bytes"),
        ("export: [{name: a, endpoint: 'http://h:1', headers: x}]\n", "lines of `name: value`"),
        ("export: [{name: a, endpoint: 'http://h:1', headers: [x]}]\n", "lines of `name: value`"),
    ],
)
def test_what_must_be_a_mapping_names_its_keys(tmp_path: Path, text: str, answer: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        check(str(file), {})
    (fault,) = caught.value.faults
    assert answer in fault.message
