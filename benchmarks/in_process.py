"""Measures the pipeline itself, without gRPC, threads or a second process: nanoseconds per span.

usage: python -m benchmarks.in_process [--rounds N] [--spans N]

scan                 one pass over the bytes of a request, into fragments, and those freed again
accept + decide      the same, placed in the buffer, decided by the default rules when due, kept traces stamped
single-span traces   both again where every trace is a single span
decide + stamp all   of `keep: all`: the decisions alone, with every span made ready to leave
assemble             of `keep: all`: stamped traces joined into requests of 1 MiB

The corpus is the other benchmarks' (corpus.py): 440-byte spans with 11 attributes, 512 a request from one process, so
that a trace is spread over requests. Time is an argument of the pipeline: requests come at 100 000 spans/s of its time,
it decides every 50 ms and holds a trace for 1 s after its root, so that what is decided has long left the caches. What
is kept is compared with what has to be kept.

Every round measures everything, each beside a calibration (calibrate.py). A neighbour makes either longer and nothing
makes it shorter, so the best round is scaled by the best calibration of all, which can only overstate. The result is
for a core of 2.4 GHz: the calibration's reference is one of 2.6 GHz, and clocks are taken to be all the difference.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from benchmarks import corpus
from benchmarks.calibrate import calibrate
from sampler_proxy.config.check import load_config
from sampler_proxy.config.model import Config, Rule
from sampler_proxy.operate.learned_rates import Rates
from sampler_proxy.otlp.fragments import KeptTrace
from sampler_proxy.pipeline.pipeline import Pipeline
from sampler_proxy.pipeline.scanner import Scanner
from sampler_proxy.pipeline.stamp import assemble
from sampler_proxy.rules.plan import Plan

SPANS_PER_TRACE = 10
SPANS_PER_REQUEST = 512
SPANS_PER_S = 100_000
TICK_NS = 50_000_000
WAIT_NS = 2_000_000_000
WAIT_AFTER_ROOT_NS = 1_000_000_000
BATCH_BYTES = 1 << 20
REFERENCE_GHZ = 2.6  # calibrate.py's
STATED_GHZ = 2.4


class Corpus(NamedTuple):
    requests: list[corpus.Request]
    expected: set[bytes]  # ids of the traces that the default rules keep
    spans: int
    per_trace: int


class Destination:
    """Takes everything."""

    def __init__(self) -> None:
        self.traces: list[KeptTrace] = []

    def offer(self, trace: KeptTrace) -> bool:
        self.traces.append(trace)
        return True


def generate(spans: int, per_trace: int) -> Corpus:
    of = corpus.Corpus(spans // (100 * per_trace) * 100 * per_trace, per_trace, SPANS_PER_REQUEST, seed=1)
    requests = list(corpus.generate(of))
    return Corpus(requests, {*of.must, *of.random}, of.spans, per_trace)


def pipeline(config: Config, destination: Destination) -> Pipeline:
    loaded = load_config(config)
    return Pipeline(
        rules=(
            [rule.name for rule in config.rules],
            Rates(seed=1).prepare(loaded).keeps,
            loaded.compiled,
        ),
        destinations=[destination],
        max_bytes=8 << 30,
        max_trace_bytes=config.buffer.max_trace_bytes,
        wait_ns=WAIT_NS,
        wait_after_root_ns=WAIT_AFTER_ROOT_NS,
        decision_memory_bytes=config.buffer.decision_memory_bytes,
        stamp_decision=True,
        stamp_adjusted_count=False,
        seed=1,
    )


def scan(of: Corpus) -> float:
    """Scan all requests; return the seconds."""
    compiled = load_config(Config()).compiled
    scanner = Scanner(Plan(compiled.conditions, compiled.filters))
    start = time.perf_counter()
    for message, _ in of.requests:
        scanner.scan(message)
    return time.perf_counter() - start


def flow(of: Corpus, config: Config) -> tuple[float, float, list[KeptTrace]]:
    """Accept all requests and decide all traces; return the seconds of each, and the kept traces."""
    destination = Destination()
    proxy = pipeline(config, destination)
    accept = proxy.intake("grpc").accept
    deciding = 0.0
    now_ns = next_tick_ns = 1

    def tick() -> float:
        start = time.perf_counter()
        while proxy.tick(now_ns):
            pass
        return time.perf_counter() - start

    begin = time.perf_counter()
    for message, spans in of.requests:
        accept(message, now_ns)
        now_ns += spans * 1_000_000_000 // SPANS_PER_S
        if now_ns >= next_tick_ns:
            next_tick_ns = now_ns + TICK_NS
            deciding += tick()
    for _ in range((WAIT_NS + TICK_NS) // TICK_NS + 1):
        now_ns += TICK_NS
        deciding += tick()
    return time.perf_counter() - begin - deciding, deciding, destination.traces


def accept_and_decide(of: Corpus) -> float:
    accepting, deciding, kept = flow(of, Config())
    if {trace.trace_id for trace in kept} != of.expected or sum(trace.spans for trace in kept) != of.per_trace * len(
        of.expected
    ):
        raise SystemExit("what was kept is not what the default rules have to keep")
    return accepting + deciding


def keep_all(of: Corpus) -> tuple[float, float]:
    """Keep everything; return the seconds for deciding and stamping, and for assembling, every span."""
    # An exception that never applies keeps the traces from being decided early, each span as it comes.
    everything = Rule(name="everything", unless='{ name = "no span has this name" }', keep=1.0)
    _, deciding, kept = flow(of, Config(rules=(everything, Rule(name="rest", keep=0.0))))
    if sum(trace.spans for trace in kept) != of.spans:
        raise SystemExit("not everything was kept")
    begin = time.perf_counter()
    batch: list[KeptTrace] = []
    held = 0
    for trace in kept:
        if batch and held + trace.nbytes > BATCH_BYTES:
            assemble(batch)
            batch, held = [], 0
        batch.append(trace)
        held += trace.nbytes
    assemble(batch)
    return deciding, time.perf_counter() - begin


def measure(rounds: int, spans: int) -> tuple[dict[str, list[float]], list[float]]:
    """Run all rounds; return nanoseconds per span of each on a core of STATED_GHZ, and the calibrations' speeds."""
    usual, single = generate(spans, SPANS_PER_TRACE), generate(spans // 2, 1)
    work: Sequence[tuple[tuple[str, ...], Corpus, Callable[[Corpus], tuple[float, ...]]]] = (
        (("scan",), usual, lambda of: (scan(of),)),
        (("accept + decide",), usual, lambda of: (accept_and_decide(of),)),
        (("scan, single-span traces",), single, lambda of: (scan(of),)),
        (("accept + decide, single-span traces",), single, lambda of: (accept_and_decide(of),)),
        (("decide + stamp all", "assemble"), usual, keep_all),
    )
    gc.collect()
    gc.freeze()  # as the service does
    speeds: list[float] = []
    times: dict[str, list[float]] = {}
    for _ in range(rounds):
        for names, of, run in work:
            speeds.append(calibrate())
            for name, seconds in zip(names, run(of), strict=True):
                times.setdefault(name, []).append(seconds / of.spans * 1e9)
    scale = max(speeds) * REFERENCE_GHZ / STATED_GHZ
    return {name: [each * scale for each in found] for name, found in times.items()}, speeds


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="benchmarks.in_process", description="Nanoseconds per span, without I/O, on a core of 2.4 GHz."
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--spans", type=int, default=300_000)
    arguments = parser.parse_args()
    times, speeds = measure(arguments.rounds, arguments.spans)
    print(f"speed of this machine {min(speeds):.2f} to {max(speeds):.2f} of the reference\n")
    print(f"| work | ns per span at {STATED_GHZ} GHz, best | rounds |\n|---|---|---|")
    for name, found in times.items():
        print(f"| {name} | {min(found):.0f} | {' '.join(f'{each:.0f}' for each in found)} |")


if __name__ == "__main__":
    main()
