"""What a run of measurements says: the check of what arrived, the conditions, and Markdown tables."""

from __future__ import annotations

import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import grpc

from benchmarks import corpus
from benchmarks.calibrate import calibrate


def conditions() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpu": f"{os.cpu_count()} x {models[0] if models else platform.machine()}",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "grpcio": grpc.__version__,
        "speed": calibrate(),
    }


def verdict(expected: corpus.Corpus, tally: dict[str, Any]) -> dict[str, Any]:
    """What arrived, compared with what a sampler of errors, slow traces and a fair 1 % of the rest keeps."""
    size, traces = expected.spans_per_trace, tally["traces"]
    must = {trace_id.hex() for trace_id in expected.must}
    chosen = {trace_id.hex() for trace_id in expected.random}
    return {
        "kept_spans": tally["spans"] - tally["duplicates"],
        "expected_spans": size * (len(must) + len(chosen)),
        "missing_must": sum(traces.get(trace_id) != size for trace_id in must),
        "missing_random": sum(traces.get(trace_id) != size for trace_id in chosen),
        "unexpected": len(traces.keys() - must - chosen),
        "duplicates": tally["duplicates"],
    }


def table(*rows: tuple[str, ...]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:], ""])


def throughput(rows: list[dict[str, Any]]) -> str:
    heads = "spans a request", "spans per CPU-s", "echo", "ratio of the best", "ratios", "busy", "kept / expected spans"
    lines: list[tuple[str, ...]] = [(*heads, "wrong traces (errors, slow)", "refused")]
    for row in rows:
        rounds = row["rounds"]
        best, echo = (max(r[who]["spans_per_cpu_s"] for r in rounds) for who in ("target", "echo"))
        kept = [r["kept"] for r in rounds]
        wrong = sum(k["missing_must"] + k["missing_random"] + k["unexpected"] for k in kept)
        lines.append((
            "512, single-span traces" if row["shape"] == "single" else row["shape"],
            f"{best:,.0f}",
            f"{echo:,.0f}",
            f"{best / echo:.3f}",
            " ".join(f"{r['ratio']:.3f}" for r in rounds),
            f"{statistics.median(r['target']['busy'] for r in rounds):.0%}",
            f"{sum(k['kept_spans'] for k in kept):,} / {sum(k['expected_spans'] for k in kept):,}",
            f"{wrong} ({sum(k['missing_must'] for k in kept)})",
            str(sum(r["target"]["refused"] for r in rounds)),
        ))  # fmt: skip
    return table(*lines)


def memory(rows: list[dict[str, Any]]) -> str:
    lines: list[tuple[str, ...]] = [("spans a request", "buffered spans", "RSS growth per span", "÷ bytes on the wire")]
    for row in rows:
        name = "512, single-span traces" if row["shape"] == "single" else row["shape"]
        per_span = row["rss_growth_bytes"] / row["spans"]
        lines.append((name, f"{row['spans']:,}", f"{per_span:.0f}", f"{row['ratio']:.2f}"))
    return table(*lines)


def latency(rounds: list[dict[str, Any]]) -> str:
    lines: list[tuple[str, ...]] = [("40 k spans/s, 512 a request", "p50 ms", "p99 ms", "best p99", "busy")]
    for who in ("target", "echo"):
        p50, p99 = ([r[who][key] for r in rounds] for key in ("p50_ms", "p99_ms"))
        busy = statistics.median(r[who]["busy"] for r in rounds)
        shown = (" ".join(f"{value:.2f}" for value in values) for values in (p50, p99))
        lines.append((who, *shown, f"{min(p99):.2f}", f"{busy:.0%}"))
    best = min(r["target"]["p99_ms"] for r in rounds) / min(r["echo"]["p99_ms"] for r in rounds)
    lines.append(("ratio", "", " ".join(f"{r['ratio']:.2f}" for r in rounds), f"{best:.2f}", ""))
    return table(*lines)
