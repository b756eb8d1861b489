"""What a long list of rules costs: the pipeline with 100 rules that name 30 attributes, beside the three default rules.

usage: python -m benchmarks.rules [--rounds N] [--spans N] [--list]

Both take the same spans (corpus.py, traces of 20, 512 spans a request) the whole way of in_process.py: scanned, filed,
decided when due, kept traces stamped. Each round measures both, one right after the other; the ratio is that
of the best rounds, which were disturbed least.

The list is what a platform team collects over the years (`--list` shows it): errors and slow traces first; for each
attribute one rule about a value that this traffic does not have, one about a value that it has together with a slow
span, one that orders numbers or matches a regular expression; a few about structure and aggregates, whose candidates
are in about one trace of ten; a baseline. Most traces match none of them but the last, so every rule is asked about
every trace. Rules that keep everything match only what the first two keep, and the others keep 1 %, as the default
baseline does: so both lists keep the same traces, which is checked.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Iterator

from benchmarks.in_process import SPANS_PER_REQUEST, Corpus, flow, generate
from sampler_proxy.config.model import Config, Rule

SPANS_PER_TRACE = 20
LAST = 1  # of the rules, the baseline

# Values that spans of the corpus have.
STRINGS = {
    "span.http.request.method": "POST",
    "span.http.route": "/api/checkout/{id}",
    "span.url.scheme": "https",
    "span.user_agent.original": "Mozilla/5.0 (X11; Linux)",
    "span.client.address": "10.12.7.23",
    "span.url.template": "/orders/{id}",
    "span.server.address": "payments.shop.svc.cluster.local",
    "span.rpc.service": "shop.Payments",
    "span.rpc.method": "Charge",
    "span.network.transport": "tcp",
    "span.thread.name": "grpc-executor-3",
    "span.db.system.name": "postgresql",
    "span.db.namespace": "shop",
    "span.db.operation.name": "SELECT",
    "span.db.collection.name": "orders",
    "span.cache.hit": "true",
    "span.code.function.name": "shop.pricing.price_order",
    ".shop.region": "eu-central-1",
    ".feature_flag.key": "new-pricing",
    "span.messaging.system": "kafka",
    "span.messaging.destination.name": "shop.charges.completed",
    "resource.service.name": "payments",
    "resource.deployment.environment.name": "production",
}
NUMBERS = {
    "span.http.response.status_code": 200,
    "span.server.port": 8080,
    "span.http.request.body.size": 1834,
    "span.http.response.body.size": 734,
    "span.rpc.grpc.status_code": 0,
    "span.db.response.returned_rows": 1,
    "span.cache.ttl_s": 300,
}
RELATED = [
    '{ span.http.route = "/api/checkout/{id}" && duration > 360ms } >> { span.cache.hit = "true" && duration > 2s }',
    '{ span.rpc.service = "shop.Payments" && duration > 200ms } > { .shop.region = "us-east-1" }',
    '{ span.db.collection.name = "orders" } ~ { span.rpc.method = "Refund" }',
    '{ resource.service.name = "payments" && duration > 200ms } | count() > 12',
    "{ span.http.response.body.size > 1000000 } | sum(span.http.response.body.size) > 10000000",
    '{ span.db.operation.name = "SELECT" && duration > 23ms } | avg(duration) > 1s',
    '({ span.cache.hit = "false" } && { span.db.response.returned_rows > 1000 }) | count() >= 2',
]


def matches() -> Iterator[tuple[str, float]]:
    """TraceQL and probability of each rule between the default ones."""
    for key, value in STRINGS.items():
        yield f'{{ {key} = "other" }}', 1.0
        yield f'{{ {key} = "{value}" && duration > 1s }}', 1.0
    for key, number in NUMBERS.items():
        yield f"{{ {key} = {number + 301} }}", 1.0
        yield f"{{ {key} = {number} && duration > 1500ms && kind = server }}", 1.0
    for text in RELATED:
        yield text, 0.01
    for key, value in STRINGS.items():
        yield f'{{ {key} =~ "{value[:3]}.*|other-.*" && (status = error || duration > 2s) }}', 0.01
    for key, number in NUMBERS.items():
        yield f"{{ {key} > {number + 1000} || {key} < 0 }}", 0.01


def many() -> Config:
    default = Config().rules
    between = [Rule(name=f"rule-{n}", match=match, keep=keep) for n, (match, keep) in enumerate(matches(), 1)]
    rules = (*default[:-LAST], *between, *default[-LAST:])
    assert len(rules) == 100
    assert len(STRINGS) + len(NUMBERS) == 30
    return Config(rules=rules)


def run(of: Corpus, config: Config) -> float:
    """Nanoseconds per span."""
    accepting, deciding, kept = flow(of, config)
    if {trace.trace_id for trace in kept} != of.expected or sum(trace.spans for trace in kept) != of.per_trace * len(
        of.expected
    ):
        raise SystemExit("what was kept is not what the rules have to keep")
    return (accepting + deciding) / of.spans * 1e9


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="benchmarks.rules", description="What 100 rules cost beside the default three."
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--spans", type=int, default=200_000)
    parser.add_argument("--list", action="store_true", help="show the rules instead")
    arguments = parser.parse_args()
    lists = {"the default three": Config(), "100 rules, 30 attributes": many()}
    if arguments.list:
        for rule in many().rules:
            print(f"{rule.name}: {rule.match or '(every trace)'} -> {rule.keep:.0%}")
        return
    of = generate(arguments.spans, SPANS_PER_TRACE)
    gc.collect()
    gc.freeze()  # as the service does
    times: dict[str, list[float]] = {}
    for _ in range(arguments.rounds):
        for name, config in lists.items():
            times.setdefault(name, []).append(run(of, config))
    print(f"{of.spans} spans, {SPANS_PER_TRACE} a trace, {SPANS_PER_REQUEST} a request\n")
    print("| rules | ns per span, best | rounds |\n|---|---|---|")
    for name, found in times.items():
        print(f"| {name} | {min(found):.0f} | {' '.join(f'{each:.0f}' for each in found)} |")
    few, long = times.values()
    print(f"\nratio {min(long) / min(few):.2f}")


if __name__ == "__main__":
    main()
