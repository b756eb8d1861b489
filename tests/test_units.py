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
    with pytest.raises(ValueError, match=r"write for example 30s|at most 292 years"):
        parse_duration_ns(text)


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
    with pytest.raises(ValueError, match=r"write for example 1GiB|below 8388608TiB"):
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


@pytest.mark.parametrize(
    "text", ["", "100", "100/s", "traces/s", "100 traces", "100 traces/d", "100 foos/s", "-1 traces/s"]
)
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
