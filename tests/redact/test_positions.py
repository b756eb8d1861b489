"""No place in a request is forgotten: a secret of each kind in every string and bytes field of the descriptors."""

from __future__ import annotations

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sampler_proxy.redact.detectors.catalogue import DETECTORS
from tests.support.positions import name, plant, positions
from tests.support.redacting import Redacting
from tests.support.secrets import CONFIG, OTHERS, SECRETS

POSITIONS = positions()


def test_the_walk_finds_what_there_is() -> None:
    """What the other tests stand on."""
    found = set(map(name, POSITIONS))
    span = "resource_spans.scope_spans.spans."
    assert {
        "resource_spans.schema_url",
        "resource_spans.resource.attributes.key",
        "resource_spans.resource.entity_refs.id_keys",
        "resource_spans.scope_spans.schema_url",
        "resource_spans.scope_spans.scope.name",
        "resource_spans.scope_spans.scope.version",
        "resource_spans.scope_spans.scope.attributes.value.bytes_value",
        span + "name",
        span + "status.message",
        span + "events.name",
        span + "events.attributes.value.string_value",
        span + "links.attributes.value.kvlist_value.values.key",
        span + "attributes.value.array_value.values.kvlist_value.values.value.bytes_value",
    } <= found
    assert len(found) > 100
    assert set(SECRETS) == set(DETECTORS)


@pytest.mark.parametrize("kind", [*SECRETS, *OTHERS])
def test_no_secret_comes_out_of_any_position(kind: str) -> None:
    secret = (SECRETS | OTHERS)[kind]
    redacting = Redacting(CONFIG)
    for number, position in enumerate(POSITIONS):
        request = plant(position, secret.text, (number + 1).to_bytes(16), noise=kind in SECRETS)
        assert secret.part.encode() in request.SerializeToString(), name(position)
        out = redacting.run([request])
        assert len(ExportTraceServiceRequest.FromString(out).resource_spans) == 1
        assert secret.part.encode() not in out, name(position)
    assert not any(label in redacting.counts() for label in [("failure", "mask"), ("oversize", "mask")])
