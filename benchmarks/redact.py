"""What redaction adds to a kept span, in the pipeline itself: nanoseconds per span; and what a statement costs.

usage: python -m benchmarks.redact [--rounds N] [--spans N]

common               the preset, on the other benchmarks' corpus (corpus.py): 440-byte spans with 11 attributes, of
                     which the user id, the URL path (or another key) and the pod differ
every value differs  the same, on spans each of whose attribute values is there once
single-span traces   `common` where every trace is one span, so that less is asked about in one go
strict               the preset with ipv4, ipv6, more keys, and URLs stripped, on the usual spans

Statements are left alone in these (`sql: keep`); what one costs that is not in the cache is measured by itself, and
stands at the end. What is measured is the decisions of `keep: all` (see in_process.py), once without and once with
redaction in each round, beside a calibration; the result is the best of either, scaled as in_process.py says, the one
subtracted from the other.
"""

from __future__ import annotations

import argparse
import gc
import random
import time
from collections.abc import Iterable

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from benchmarks import corpus
from benchmarks.calibrate import calibrate
from benchmarks.in_process import (
    REFERENCE_GHZ,
    SPANS_PER_S,
    SPANS_PER_TRACE,
    STATED_GHZ,
    TICK_NS,
    WAIT_NS,
    Corpus,
    Destination,
    generate,
    pipeline,
)
from sampler_proxy import metrics
from sampler_proxy.config.check import load_config
from sampler_proxy.config.model import Config, Rule
from sampler_proxy.redact.lanes import Family
from sampler_proxy.redact.section import Redact
from sampler_proxy.redact.texts.stores import obfuscate

LETTERS = "abcdefghijklmnopqrstuvwxyz"
STATEMENT = "SELECT id, total FROM orders WHERE user_id = {} AND state IN ('open', 'paid') ORDER BY created_at LIMIT 20"
STATEMENTS = 2000


def all_different(of: Corpus) -> Corpus:
    """Give the same spans attribute values of the same length and type, no two alike."""
    rng = random.Random(1)
    requests = []
    for message, spans in of.requests:
        request = ExportTraceServiceRequest.FromString(message)
        for resource_spans in request.resource_spans:
            for scope_spans in resource_spans.scope_spans:
                for span in scope_spans.spans:
                    for attribute in span.attributes:
                        value = attribute.value
                        if value.HasField("int_value"):
                            value.int_value = rng.randrange(1 << 14, 1 << 21)
                        else:
                            size = max(6, len(value.string_value))
                            value.string_value = "".join(rng.choices(LETTERS, k=size))
        requests.append(corpus.Request(request.SerializeToString(), spans))
    return of._replace(requests=requests)


def deciding(of: Corpus, redact: Redact) -> float:
    """Measure the seconds for deciding all traces, with every span kept, redacted and stamped."""
    everything = Rule(name="everything", unless='{ name = "no span has this name" }', keep=1.0)
    config = Config(rules=(everything, Rule(name="rest", keep=0.0)), redact=redact)
    destination = Destination()
    proxy = pipeline(config, destination)
    proxy.replace_redaction(load_config(config).redact)
    accept = proxy.intake("grpc").accept
    seconds = 0.0
    now_ns = next_tick_ns = 1

    def tick() -> float:
        start = time.perf_counter()
        while proxy.tick(now_ns):
            pass
        return time.perf_counter() - start

    for message, spans in of.requests:
        accept(message, now_ns)
        now_ns += spans * 1_000_000_000 // SPANS_PER_S
        if now_ns >= next_tick_ns:
            next_tick_ns = now_ns + TICK_NS
            seconds += tick()
    for _ in range((WAIT_NS + TICK_NS) // TICK_NS + 1):
        now_ns += TICK_NS
        seconds += tick()
    if sum(trace.spans for trace in destination.traces) != of.spans:
        raise SystemExit("not everything was kept")
    if redact.active and not redact.urls and redact.preset == "common" and unexpected(proxy.instant(now_ns).values()):
        raise SystemExit("something was redacted in spans without secrets")
    return seconds


def unexpected(snapshot: metrics.Snapshot) -> bool:
    """Whether more than the parameters of statements was redacted, which the corpus has."""
    return any(label != ("key", "mask") for label in snapshot[metrics.REDACTIONS])


def statement_s() -> float:
    """Measure the seconds for one statement that is not in the cache."""
    statements = [STATEMENT.format(number).encode() for number in range(STATEMENTS)]
    start = time.perf_counter()
    for statement in statements:
        obfuscate(Family.SQL, statement)
    return (time.perf_counter() - start) / STATEMENTS


def measure(rounds: int, spans: int) -> tuple[dict[str, list[float]], list[float]]:
    """Measure nanoseconds per span, and per statement, of each round on a core of STATED_GHZ; and the speeds found."""
    usual, single = generate(spans, SPANS_PER_TRACE), generate(spans // 2, 1)
    different = all_different(usual)
    none, common = Redact(), Redact(preset="common", sql="keep")
    strict = Redact(preset="strict", sql="keep")
    work: Iterable[tuple[str, Corpus, Redact]] = (
        ("without", usual, none),
        ("common", usual, common),
        ("strict", usual, strict),
        ("without, single-span traces", single, none),
        ("common, single-span traces", single, common),
        ("without, every value differs", different, none),
        ("common, every value differs", different, common),
    )
    gc.collect()
    gc.freeze()
    speeds: list[float] = []
    times: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, of, redact in work:
            speeds.append(calibrate())
            times.setdefault(name, []).append(deciding(of, redact) / of.spans * 1e9)
        times.setdefault("a statement", []).append(statement_s() * 1e9)
    scale = max(speeds) * REFERENCE_GHZ / STATED_GHZ
    return {name: [each * scale for each in found] for name, found in times.items()}, speeds


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="benchmarks.redact", description="Nanoseconds that redaction adds to a span, on a core of 2.4 GHz."
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--spans", type=int, default=100_000)
    arguments = parser.parse_args()
    times, speeds = measure(arguments.rounds, arguments.spans)
    print(f"speed of this machine {min(speeds):.2f} to {max(speeds):.2f} of the reference\n")
    print(f"| work | ns at {STATED_GHZ} GHz, best | more than without | rounds |\n|---|---|---|---|")
    for name, found in times.items():
        without = times[f"without{name[name.index(',') :]}" if "," in name else "without"]
        more = "" if name.startswith("without") or name == "a statement" else f"{min(found) - min(without):.0f}"
        print(f"| {name} | {min(found):.0f} | {more} | {' '.join(f'{each:.0f}' for each in found)} |")


if __name__ == "__main__":
    main()
