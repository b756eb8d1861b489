"""Retryability of statuses, RetryInfo in trailers, and backoff."""

from __future__ import annotations

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, RetryInfo

from sampler_proxy.export.retry import (
    MAX_RETRY_AFTER_NS,
    Backoff,
    Fault,
    MadeUp,
    classify,
    made_up,
    retry_after_ns,
)
from tests.export.support import retry_info, status_details

MS = 10**6
CODES = grpc.StatusCode

# The table of the OTLP specification ("Failures"), and for what is not retryable what it is about.
TABLE = {
    "CANCELLED": Fault.OVERLOAD,
    "UNKNOWN": Fault.BYTES,
    "INVALID_ARGUMENT": Fault.BYTES,
    "DEADLINE_EXCEEDED": Fault.TIMEOUT,
    "NOT_FOUND": Fault.UNWANTED,
    "ALREADY_EXISTS": Fault.UNWANTED,
    "PERMISSION_DENIED": Fault.CREDENTIALS,
    "UNAUTHENTICATED": Fault.CREDENTIALS,
    "RESOURCE_EXHAUSTED": Fault.EXHAUSTED,
    "FAILED_PRECONDITION": Fault.UNWANTED,
    "ABORTED": Fault.OVERLOAD,
    "OUT_OF_RANGE": Fault.OVERLOAD,
    "UNIMPLEMENTED": Fault.UNWANTED,
    "INTERNAL": Fault.BYTES,
    "UNAVAILABLE": Fault.OVERLOAD,
    "DATA_LOSS": Fault.OVERLOAD,
}


def test_the_table_is_complete():
    assert {code.name for code in grpc.StatusCode} - {"OK"} == set(TABLE)


@pytest.mark.parametrize(("name", "expected"), TABLE.items())
def test_classification_of_statuses(name, expected):
    code = grpc.StatusCode[name]
    for text in (None, "", "whatever", "bad request: Stream removed", "the Socket closed", "404", "the queue is full"):
        assert classify(code, text, 1000, None).fault is expected
    with_hint = Fault.OVERLOAD if name == "RESOURCE_EXHAUSTED" else expected
    for delay_ns in (0, 5 * MS):  # a RetryInfo without a delay is one, too
        assert classify(code, None, 1000, delay_ns).fault is with_hint
        if with_hint in (Fault.OVERLOAD, Fault.TIMEOUT):
            assert classify(code, None, 1000, delay_ns).retry_after_ns == delay_ns


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
        ("Received http2 header with status: 401", 401),
        ("Received http2 header with status: 403", 403),
        ("Received http2 header with status: 413", 413),
    ],
)
def test_statuses_that_nobody_wrote(text, http):
    assert made_up(text) == MadeUp(http)
    expected = {None: Fault.LOST, 404: Fault.OVERLOAD, 413: Fault.SIZE}.get(http, Fault.CREDENTIALS)
    for code in set(grpc.StatusCode) - {CODES.OK, CODES.DEADLINE_EXCEEDED}:
        assert classify(code, text, 1000, None).fault is expected


MIB = 1 << 20


@pytest.mark.parametrize(
    ("text", "nbytes", "fault", "limit"),
    [
        ("SERVER: Received message larger than max (5242880 vs. 4194304)", 5 * MIB, Fault.SIZE, 4 * MIB),
        ("grpc: received message larger than max (52428 vs. 20000)", 52428, Fault.SIZE, 20_000),
        ("grpc: received message after decompression larger than max 4194304", 5 * MIB, Fault.SIZE, 4 * MIB),
        ("Decompressed message larger than max", 50_000, Fault.SIZE, None),
        ("gRPC message exceeds maximum size 4194304: 5242880", 5 * MIB, Fault.SIZE, 4 * MIB),
        ("Decompressed gRPC message exceeds maximum size 20000", 30_000, Fault.SIZE, 20_000),
        ("rpc error: message larger than max (900 vs. 800)", 700, Fault.SIZE, None),  # about another message
        ("message larger than max (900 vs. 99999999999999999999)", 700, Fault.SIZE, None),
        ("", 4 * MIB + 1, Fault.SIZE, 4 * MIB),
        ("data refused due to high memory usage", 4 * MIB + 1, Fault.SIZE, 4 * MIB),
        ("data refused due to high memory usage", 4 * MIB, Fault.EXHAUSTED, None),
        ("ingestion rate limit (15000000 bytes) exceeded while adding 10 bytes", 10, Fault.EXHAUSTED, None),
        ("number of connections larger than max (9 vs. 8)", 700, Fault.EXHAUSTED, None),
    ],
)
def test_exhaustion_by_size(text, nbytes, fault, limit):
    answer = classify(CODES.RESOURCE_EXHAUSTED, text, nbytes, None)
    assert (answer.fault, answer.limit_bytes) == (fault, limit)
    assert classify(CODES.RESOURCE_EXHAUSTED, text, nbytes, 0).fault is Fault.OVERLOAD  # it said when to come again


@pytest.mark.parametrize(
    "text",
    [
        "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Connection refused",
        "errors resolving nowhere.invalid:4317: [field:hostname lookup error:address lookup failed]",
        "DNS resolution failed for nowhere.invalid:4317",
    ],
)
def test_what_has_not_even_been_sent(text):
    assert classify(CODES.UNAVAILABLE, text, 1, None).fault is Fault.UNREACHABLE


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
