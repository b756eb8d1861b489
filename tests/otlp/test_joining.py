"""Requests that may be joined are one request when they are: the official classes have the last word."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.profiles.v1development.profiles_service_pb2 import ExportProfilesServiceRequest

from sampler_proxy.errors import MalformedRequest
from sampler_proxy.otlp.joining import joinable


def logs(*bodies: str) -> bytes:
    request = ExportLogsServiceRequest()
    for body in bodies:
        request.resource_logs.add().scope_logs.add().log_records.add().body.string_value = body
    return request.SerializeToString()


def test_requests_of_one_repeated_field_are_joined() -> None:
    parts = [logs("a", "b"), logs(), logs("c" * 300)]
    assert all(map(joinable, parts))
    joined = ExportLogsServiceRequest.FromString(b"".join(parts))
    assert joined == ExportLogsServiceRequest.FromString(logs("a", "b", "c" * 300))


def test_what_is_there_once_is_not_joined() -> None:
    profiles = ExportProfilesServiceRequest()
    profiles.resource_profiles.add()
    assert joinable(profiles.SerializeToString())
    profiles.dictionary.string_table.append("")
    assert not joinable(profiles.SerializeToString())


@pytest.mark.parametrize(
    "other",
    [b"\x08\x01", b"\x0d\0\0\0\0", b"\x09\0\0\0\0\0\0\0\0", b"\x0b\x0c", b"\x10\x01", b"\x82\x01\x00"],
    ids=["varint", "fixed32", "fixed64", "group", "field 2", "field 16"],
)
def test_anything_else_is_not_joined(other: bytes) -> None:
    assert not joinable(other)
    assert not joinable(logs("a") + other + logs("b"))


def test_every_truncation_is_refused_or_ends_between_elements() -> None:
    whole, first = logs("a", "b" * 200), logs("a")
    for end in range(len(whole) + 1):
        if end in (0, len(first), len(whole)):
            assert joinable(whole[:end])
        else:
            with pytest.raises(MalformedRequest):
                joinable(whole[:end])


@given(st.binary(max_size=40))
def test_damage_is_what_the_official_parser_refuses_at_that_level(data: bytes) -> None:
    """What it takes whole is taken here, and what is refused here, it refuses, too."""
    try:
        ExportLogsServiceRequest.FromString(data)
    except DecodeError:
        return
    joinable(data)
