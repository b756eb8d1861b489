"""What holds of redaction whatever is sent: beside the official classes, twice over, where there is nothing to do."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sampler_proxy.errors import MalformedRequest
from sampler_proxy.redact.detectors.catalogue import DETECTORS
from sampler_proxy.redact.policy import Policy
from tests.support import reference, strategies, wire
from tests.support.positions import EXEMPT
from tests.support.redact_reference import Reference
from tests.support.redacting import Redacting, policy
from tests.support.secrets import CARD_NUMBER, OTHERS, SECRETS

SETTINGS: dict[str, Any] = {
    "preset": "common",
    "keys": [
        {"match": "drop*", "action": "delete"},
        {"match": "last", "action": {"keep_last": 4}},
        {"match": "/hash(ed)?/", "action": "hash"},
        {"match": "é", "action": "mask"},
    ],
    "values": [
        {"detect": "ipv4", "action": "mask"},
        {"detect": "card", "action": {"keep_last": 4}},
        {"name": "ticket", "pattern": "TICKET-([0-9]+)", "action": "mask"},
    ],
    "except": ["n-1"],
    "allow_only": {"event": ["a", "drop*", "k"], "resource": ["service.*", "a", "é", "drop*", "hash"]},
    "hash_key": "0123456789abcdef",
}
UNHASHED = {**SETTINGS, "keys": [rule for rule in SETTINGS["keys"] if rule["action"] != "hash"]}
KEYS = ["drop.me", "last", "hash", "db.password", "db.query.text", "db.system", "k", SECRETS["email"].text]
TEXTS = [secret.text for secret in (*SECRETS.values(), *OTHERS.values())]
TEXTS += ["redis", "mysql", "SET x = zebra"]
TEXTS += [f"see {secret.text}, and more" for secret in SECRETS.values()]


def made(settings: dict[str, Any]) -> Policy:
    """Once: what a policy compiles takes longer than an example."""
    found = policy(settings)
    assert found is not None
    return found


ALL, ALL_UNHASHED = made(SETTINGS), made(UNHASHED)
PLAIN = made({"values": [{"name": "never", "pattern": "this does not occur", "action": "mask"}]})
PRESETS = [made({"preset": "common", "marker": True}), made({"preset": "strict", "marker": True, "urls": []})]


def sprinkle(message: Message, random: Random) -> None:
    """Put secrets here and there."""
    for descriptor in message.DESCRIPTOR.fields:
        value = getattr(message, descriptor.name)
        present = descriptor.is_repeated or descriptor.message_type is None or message.HasField(descriptor.name)
        if descriptor.message_type is not None:
            for each in value if descriptor.is_repeated else [value] * present:
                sprinkle(each, random)
        elif descriptor.containing_oneof is not None and not message.HasField(descriptor.name):
            continue
        elif descriptor.name in ("key", "id_keys", "description_keys"):
            if random.random() < 0.5:
                key = random.choice(KEYS)
                if descriptor.is_repeated:
                    value[:] = [*value, key]
                else:
                    setattr(message, descriptor.name, key)
        elif descriptor.name == "int_value" and random.random() < 0.2:
            setattr(message, descriptor.name, CARD_NUMBER)
        elif descriptor.name == "double_value" and random.random() < 0.2:
            setattr(message, descriptor.name, float(CARD_NUMBER))
        elif descriptor.name in EXEMPT or descriptor.is_repeated:
            continue
        elif isinstance(value, str | bytes) and random.random() < 0.3:
            text = random.choice(TEXTS)
            setattr(message, descriptor.name, text if isinstance(value, str) else text.encode() + b"\xff")


@st.composite
def secrets(draw: st.DrawFn, keys: bool = True) -> tuple[ExportTraceServiceRequest, bytes]:
    message = draw(strategies.requests())
    random = draw(strategies.seeds)
    sprinkle(message, random)
    return message, wire.encode(message, random, replace(draw(strategies.noises), keys=keys))


def spans(request: ExportTraceServiceRequest) -> Counter[reference.SpanKey]:
    return Counter(reference.spans_of(request))


@given(secrets(keys=False))  # of several the strictest counts, which the official classes do not see
def test_the_walker_agrees_with_the_reference(pair: tuple[ExportTraceServiceRequest, bytes]) -> None:
    message, raw = pair
    out = ExportTraceServiceRequest.FromString(Redacting(ALL).run([raw]))
    # What pipelines do beside is left to one that has nothing to redact: spans without ids, tracestates.
    passed = ExportTraceServiceRequest.FromString(Redacting(PLAIN).run([message.SerializeToString()]))
    assert spans(out) == spans(Reference(ALL.view(0)).request(passed))


@given(secrets())
def test_redaction_is_idempotent(pair: tuple[ExportTraceServiceRequest, bytes]) -> None:
    once = Redacting(ALL_UNHASHED).run([pair[1]])
    twice = Redacting(ALL_UNHASHED).run([once])
    # Joined under their resources, traces may have changed places.
    assert spans(ExportTraceServiceRequest.FromString(twice)) == spans(ExportTraceServiceRequest.FromString(once))


@given(secrets())
def test_cache_does_not_change_results(pair: tuple[ExportTraceServiceRequest, bytes]) -> None:
    used, fresh = Redacting(ALL), Redacting(ALL, seed=2)
    first = used.run([pair[1]])
    assert Redacting.run(fresh, [pair[1]]) == first
    renamed = ExportTraceServiceRequest.FromString(pair[1])
    for number, span in enumerate(s for r in renamed.resource_spans for c in r.scope_spans for s in c.spans):
        if len(span.trace_id) == 16 and any(span.trace_id):
            span.trace_id = (number + 1).to_bytes(8) + span.trace_id[8:]
    second = ExportTraceServiceRequest.FromString(used.run([renamed]))
    assert second == ExportTraceServiceRequest.FromString(Redacting(ALL).run([renamed]))


@given(secrets(), strategies.seeds)
def test_what_comes_out_always_parses(pair: tuple[ExportTraceServiceRequest, bytes], random: Random) -> None:
    """Also of bytes that were damaged on their way, where they are taken."""
    raw = strategies.damage(pair[1], random)
    redacting = Redacting(ALL)
    try:
        out = redacting.run([raw])
    except MalformedRequest:
        return
    parsed = ExportTraceServiceRequest.FromString(out)
    everything = ExportTraceServiceRequest.FromString(out)
    everything.DiscardUnknownFields()
    assert parsed == everything


def looks_like_a_card(message: Message) -> bool:
    return any(
        DETECTORS["card"].find(str(int(value)).encode())
        for value in numbers(message)
        if value == value and abs(value) < 2**63
    )


def numbers(message: Message) -> list[Any]:
    found: list[Any] = []
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None:
            for each in value if descriptor.is_repeated else [value]:
                found += numbers(each)
        elif descriptor.name in ("int_value", "double_value"):
            found.append(value)
    return found


@given(strategies.requests(), strategies.seeds, strategies.noises)
def test_without_secrets_nothing_changes(message: ExportTraceServiceRequest, random: Random, noise: wire.Noise) -> None:
    if looks_like_a_card(message):  # one in ten of those that begin like one
        return
    raw = wire.encode(message, random, replace(noise, unknown=False))
    for preset in PRESETS:
        redacting = Redacting(preset)
        untouched = Redacting(PLAIN)
        untouched.pipeline.replace_redaction(None)
        assert redacting.run([raw]) == untouched.run([raw])
        assert redacting.counts() == {}
