"""Compares the bytes that the buffer reports with the growth of a process of its own (measure_memory.py).

Measured on glibc: within 4 %, save where several spans of a trace come in small requests. There the allocator cannot
always fill the gap that the bytes of a request leave between the fragments, and the process grows by up to 20 % more
than anybody asked for.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("spans_per_trace", "span_bytes", "spans_per_request", "spans", "unaccounted"),
    [
        (20, 440, 512, 60_000, 0.10),
        (20, 440, 8, 60_000, 0.25),
        (20, 100, 512, 150_000, 0.10),
        (1, 100, 512, 100_000, 0.10),
        (1, 100, 8, 100_000, 0.10),
        (1, 1024, 512, 30_000, 0.10),
    ],
)
def test_reported_bytes_are_the_growth_of_the_process(
    spans_per_trace: int, span_bytes: int, spans_per_request: int, spans: int, unaccounted: float
) -> None:
    arguments = map(str, (spans_per_trace, span_bytes, spans_per_request, spans))
    out = subprocess.run(
        [sys.executable, "-m", "tests.pipeline.measure_memory", *arguments],
        cwd=TOP,
        env={**os.environ, "PYTHONPATH": str(TOP)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    first, second = json.loads(out.stdout)
    assert first["spans"] >= spans
    assert first["reported"] > first["wire"]
    # As a share of what it has really grown by: reported too much, or too little.
    assert -0.10 < (first["grown"] - first["reported"]) / first["grown"] < unaccounted
    # Decided and gone, it has all been given back: only the table of traces has grown. A second filling costs nothing.
    assert first["left"] < 0.2 * first["reported"]
    assert second["left"] == 0
    assert second["grown"] < 0.1 * first["grown"]
