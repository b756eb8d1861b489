"""Retryability of statuses, RetryInfo in trailers, and backoff."""

from __future__ import annotations

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, RetryInfo

from sampler_proxy.export.retry import (
    MAX_RETRY_AFTER_NS,
    Backoff,
    MadeUp,
    Retryability,
    classify,
    made_up,
    retry_after_ns,
)
from tests.export.support import retry_info, status_details

MS = 10**6
CODES = grpc.StatusCode

# The table of the OTLP specification ("Failures"), and for what is not retryable whether it is about the bytes.
TABLE = {
    "CANCELLED": Retryability.RETRY,
    "UNKNOWN": Retryability.SPLIT,
    "INVALID_ARGUMENT": Retryability.SPLIT,
    "DEADLINE_EXCEEDED": Retryability.RETRY,
    "NOT_FOUND": Retryability.DROP,
    "ALREADY_EXISTS": Retryability.DROP,
    "PERMISSION_DENIED": Retryability.DROP,
    "UNAUTHENTICATED": Retryability.DROP,
    "RESOURCE_EXHAUSTED": Retryability.SPLIT,
    "FAILED_PRECONDITION": Retryability.DROP,
    "ABORTED": Retryability.RETRY,
    "OUT_OF_RANGE": Retryability.RETRY,
    "UNIMPLEMENTED": Retryability.DROP,
    "INTERNAL": Retryability.SPLIT,
    "UNAVAILABLE": Retryability.RETRY,
    "DATA_LOSS": Retryability.RETRY,
}


def test_the_table_is_complete():
    assert {code.name for code in grpc.StatusCode} - {"OK"} == set(TABLE)


@pytest.mark.parametrize(("name", "expected"), TABLE.items())
def test_classification_of_statuses(name, expected):
    code = grpc.StatusCode[name]
    assert classify(code, None) is expected
    with_hint = Retryability.RETRY if name == "RESOURCE_EXHAUSTED" else expected
    assert classify(code, 0) is with_hint  # a RetryInfo without a delay is one, too
    assert classify(code, 5 * MS) is with_hint


@pytest.mark.parametrize(
    ("text", "http"),
    [
        ("Stream removed (RST_STREAM (Received RST_STREAM with error code 1))", None),
        ("Received RST_STREAM with error code 2", None),
        ("Stream removed", None),
        ("Stream removed (Data frame with END_STREAM flag received)", None),
        ("Stream removed (GOAWAY received; Error code: 11; Debug Text: too_many_pings)", None),
        ("GOAWAY received", None),
        ("Socket closed", None),
        ("Connection reset by peer", None),
        ("recvmsg:Connection reset by peer", None),
        ("No status received", None),
        ("Received http2 header with status: 404", 404),
        ("Received http2 header with status: 413", 413),
    ],
)
def test_statuses_that_nobody_wrote(text, http):
    assert made_up(text) == MadeUp(http)
    for code in set(grpc.StatusCode) - {CODES.OK}:
        assert classify(code, None, text) is (Retryability.SPLIT if http == 413 else Retryability.RETRY)


@pytest.mark.parametrize("text", [None, "", "bad request: Stream removed", "the Socket closed", "404", "Exception"])
def test_statuses_that_came_in_trailers(text):
    assert made_up(text) is None
    assert classify(CODES.INTERNAL, None, text) is Retryability.SPLIT


DETAILS, BARE = "grpc-status-details-bin", "google.rpc.retryinfo-bin"


@pytest.mark.parametrize(
    ("trailers", "expected"),
    [
        (None, None),
        ([], None),
        ([("content-type", "application/grpc")], None),
        ([(DETAILS, status_details(retry_info(0.25)))], 250 * MS),
        ([(BARE, retry_info(0.25).SerializeToString())], 250 * MS),
        ([(DETAILS, status_details(BadRequest(), retry_info(2)))], 2000 * MS),
        ([(DETAILS, status_details(BadRequest()))], None),
        ([(DETAILS, status_details())], None),
        ([(DETAILS, status_details(BadRequest())), (BARE, retry_info(1).SerializeToString())], 1000 * MS),
        ([(DETAILS, status_details(RetryInfo()))], 0),
        ([(BARE, b"")], 0),
        ([(BARE, retry_info(-3).SerializeToString())], 0),
        ([(BARE, retry_info(86400).SerializeToString())], MAX_RETRY_AFTER_NS),
        ([(DETAILS, b"\xff\xff")], None),
        ([(BARE, b"\x0a\x7f")], None),
        ([(DETAILS, status_details(retry_info(1))[:-2])], None),
        ([(BARE, "text")], None),
    ],
)
def test_retry_after(trailers, expected):
    assert retry_after_ns(trailers) == expected


def test_retry_after_of_a_damaged_detail():
    """The envelope is sound, the RetryInfo inside is not."""
    status = status_details(retry_info(1)).replace(retry_info(1).SerializeToString(), b"\x0a\x7f\x08\x01")
    assert retry_after_ns([(DETAILS, status), (BARE, retry_info(3).SerializeToString())]) == 3000 * MS


@pytest.mark.parametrize(
    ("random", "failures", "expected"),
    [
        (0.0, 0, 0),
        (0.5, 0, 500 * MS),
        (0.5, 1, 1000 * MS),
        (0.5, 4, 8000 * MS),
        (0.5, 5, 15000 * MS),
        (0.5, 1000, 15000 * MS),
        (1 - 2**-53, 9, 30000 * MS - 1),
    ],
)
def test_backoff(random, failures, expected):
    assert Backoff(1000 * MS, 30000 * MS, lambda: random).delay_ns(failures) == pytest.approx(expected, abs=1)
