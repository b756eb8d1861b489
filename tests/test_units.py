"""Numbers with units: what is read, refused and written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampler_proxy.units import (
    Rate,
    format_duration,
    format_frequency,
    format_probability,
    format_size,
    parse_duration_ns,
    parse_frequency,
    parse_probability,
    parse_rate,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("0s", 0),
        ("1ns", 1),
        ("2us", 2_000),
        ("2µs", 2_000),
        ("500ms", 500_000_000),
        ("30s", 30_000_000_000),
        ("1.5s", 1_500_000_000),
        ("1h30m", 5_400_000_000_000),
        ("1.3s", 1_300_000_000),
        ("0.1ns", 0),
        ("9223372036854775807ns", (1 << 63) - 1),
    ],
)
def test_durations(text, ns):
    assert parse_duration_ns(text) == ns
    assert parse_duration_ns(format_duration(ns)) == ns


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "30",
        "-1s",
        "+1s",
        "1 s",
        "1S",
        "1d",
        "s",
        "1e3s",
        "1s ",
        "١s",
        ".5s",
        "9223372036854775808ns",
        "9" * 99,
    ],
)
def test_not_durations(text):
    with pytest.raises(ValueError, match=r"^not a duration with its unit: write|at most 292 years"):
        parse_duration_ns(text)


DURATIONS = "write for example 30s, 500ms or 1h30m"
SIZES = "write for example 1GiB, 512MB or a number of bytes"
RATES = "write for example 100 traces/s, 6000 spans/min or 5MB/s"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("30", DURATIONS),
        ("1h30", DURATIONS),
        ("9foo", DURATIONS),
        ("-5s", DURATIONS),
        ("1" * 400 + "!", DURATIONS),
        ("1m" * 400 + "!", DURATIONS),
        ("10min", "write for example 10m"),
        ("10 minutes", "write for example 10m"),
        ("1h30min", "write for example 10m"),
        ("5M", "write for example 10m"),
        ("5sec", "write for example 30s"),
        ("5S", "write for example 30s"),
        ("100msec", "write for example 500ms"),
        ("100 millis", "write for example 500ms"),
        ("1 hour", "write for example 24h"),
        ("1d", "write for example 24h"),
        ("2 weeks", "write for example 24h"),
        ("7usec", "write for example 500us"),
        ("5 s", f"write it without spaces, {DURATIONS.removeprefix('write ')}"),
        ("1h 30m", f"write it without spaces, {DURATIONS.removeprefix('write ')}"),
    ],
)
def test_a_duration_in_another_spelling(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match="not a duration") as refused:
        parse_duration_ns(text)
    assert str(refused.value) == f"not a duration with its unit: {hint}"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("1G", "write for example 1GB or 1GiB"),
        ("1g", "write for example 1GB or 1GiB"),
        ("512M", "write for example 1MB or 1MiB"),
        ("10m", "write for example 1MB or 1MiB"),
        ("64mb", "write for example 1MB or 1MiB"),
        ("5Mb", "write for example 1MB or 1MiB"),
        ("5 megabytes", "write for example 1MB or 1MiB"),
        ("64k", "write for example 1kB or 1KiB"),
        ("2T", "write for example 1TB or 1TiB"),
        ("1Gi", "write for example 1GiB"),
        ("1 gib", "write for example 1GiB"),
        ("512Mi", "write for example 1MiB"),
        ("10%", SIZES),
        ("1 fathom", SIZES),
    ],
)
def test_a_size_in_another_spelling(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match="not a size") as refused:
        parse_size(text)
    assert str(refused.value) == f"not a size: {hint}"


PERCENTAGE = "a percentage, all or none is written without target, as in keep: 1%"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("100", RATES),
        ("100/s", RATES),
        ("100 foos/s", RATES),
        ("100 trace/sec", "write for example 100 traces/s"),
        ("100 traces per second", "write for example 100 traces/s"),
        ("100 Traces/minute", "write for example 100 traces/min"),
        ("100 spans/m", "write for example 100 spans/min"),
        ("100 traces", "write for example 100 traces/s"),
        ("5M/s", "write for example 5MB/s or 5MiB/s"),
        ("5 mb/hour", "write for example 5MB/h or 5MiB/h"),
        ("5MB", "write for example 5MB/s"),
        ("1%", PERCENTAGE),
        ("all", PERCENTAGE),
    ],
)
def test_a_rate_in_another_spelling(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match="not a rate") as refused:
        parse_rate(text)
    assert str(refused.value) == f"not a rate: {hint}"


@pytest.mark.parametrize(
    ("text", "sizes", "hint"),
    [
        ("100", False, "write for example 100/s"),
        ("100/sec", False, "write for example 100/s"),
        ("100 spans/s", False, "write for example 100/s"),
        ("100 per minute", False, "write for example 100/min"),
        ("5MB/s", False, "write for example 100/s or 1/min"),
        ("100", True, "write for example 5MB/s"),
        ("5M/s", True, "write for example 5MB/s or 5MiB/s"),
        ("5MB/sec", True, "write for example 5MB/s"),
    ],
)
def test_a_frequency_in_another_spelling(text: str, sizes: bool, hint: str) -> None:
    with pytest.raises(ValueError, match="no number per") as refused:
        parse_frequency(text, sizes=sizes)
    assert str(refused.value) == f"no number per second, minute or hour: {hint}"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("17", 17),
        ("17B", 17),
        ("1kB", 1000),
        ("1KB", 1000),
        ("512MB", 512_000_000),
        ("1KiB", 1024),
        ("1.5MiB", 3 << 19),
        ("1 GiB", 1 << 30),
        ("2TiB", 2 << 40),
        ("9223372036854775807", (1 << 63) - 1),
    ],
)
def test_sizes(text, size):
    assert parse_size(text) == size
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize("text", ["", "-1", "1Gi", "1G", "1gib", "1.5", "GiB", "0x10", "1_000", "8388608TiB", "9" * 99])
def test_not_sizes(text):
    with pytest.raises(ValueError, match=r"write for example 1G|below 8388608TiB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "probability"),
    [
        ("all", 1.0),
        ("none", 0.0),
        ("100%", 1.0),
        ("0%", 0.0),
        ("1%", 0.01),
        ("0.01%", 0.0001),
        ("33.3 %", 0.333),
        ("0.0000000000000013877787807814457%", 2.0**-56),
    ],
)
def test_probabilities(text, probability):
    assert parse_probability(text) == probability
    assert parse_probability(format_probability(probability)) == probability


@pytest.mark.parametrize("text", ["", "1", "0.5", "-1%", "100.1%", "0.0000000000000013%", "1e-3%", "All", "%", "nan%"])
def test_not_probabilities(text):
    with pytest.raises(ValueError, match="write"):
        parse_probability(text)


@pytest.mark.parametrize(
    ("probability", "text"),
    [(1.0, "all"), (0.0, "none"), (0.01, "1%"), (0.07, "7%"), (0.5, "50%"), (1e-7, "0.00001%"), (0.125, "12.5%")],
)
def test_probabilities_are_written_as_a_file_has_them(probability: float, text: str) -> None:
    assert format_probability(probability) == text


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100 traces/s", Rate(100, "traces")),
        ("1trace/s", Rate(1, "traces")),
        ("6000 spans/min", Rate(100, "spans")),
        ("1.5 span/h", Rate(1.5 / 3600, "spans")),
        ("5MB/s", Rate(5e6, "bytes")),
        ("1 MiB/min", Rate((1 << 20) / 60, "bytes")),
        ("100 bytes/s", Rate(100, "bytes")),
    ],
)
def test_rates_with_units(text: str, rate: Rate) -> None:
    assert parse_rate(text) == rate
    assert parse_rate(str(rate)) == rate


@pytest.mark.parametrize("text", ["", "100", "100/s", "traces/s", "100 traces/d", "100 foos/s", "-1 traces/s"])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ValueError, match="not a rate: write for example 100 traces/s"):
        parse_rate(text)


def test_frequencies() -> None:
    assert parse_frequency("5000/s") == 5000
    assert parse_frequency("3/min") == 0.05
    assert parse_frequency("36/h") == 0.01
    assert parse_frequency("5MB/s", sizes=True) == 5e6
    assert parse_frequency("5/s", sizes=True) == 5
    for text in ("5MB/s", "5", "/s", "5/d", "5 traces/s"):
        with pytest.raises(ValueError, match="no number per second"):
            parse_frequency(text)
    for text, what in (("0/s", "less than once"), ("0.003/h", "less than once"), ("9999999999999999/s", "too large")):
        with pytest.raises(ValueError, match=what):
            parse_frequency(text)
        with pytest.raises(ValueError, match=what):
            parse_rate(text.replace("/", " traces/"))


@given(st.floats(1e-6, 1e15))
def test_a_frequency_is_written_as_it_is_read(per_second: float) -> None:
    assert parse_frequency(format_frequency(per_second)) == pytest.approx(per_second, rel=1e-12)


def test_frequencies_are_written_in_short() -> None:
    for text in ("5000/s", "1/min", "7/h", "0.5/s", "2.5/min"):
        assert format_frequency(parse_frequency(text)) == text
    assert str(parse_rate("6 spans/min")) == "0.1 spans/s"
    assert str(parse_rate("1 span/h")) == "1 spans/h"
