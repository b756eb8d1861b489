"""The sender: feeds a corpus to an OTLP endpoint over real connections and measures the answers.

Requests are read into memory before the first is sent. Each request in flight has a thread that makes plain blocking
calls with the bytes as they are: over gRPC through grpcio's public API, every connection a channel with a subchannel
pool of its own; over HTTP by a socket, each thread with a connection of its own. As JSON, the bytes are translated
before the first is sent. Requests start in the order of the file.

It is driven by lines of JSON. When it is connected it prints `{"ready": true}`; each line it reads says what to send,
    {"requests": N}                 the next N requests, or all that are left if absent
    {"rate": SPANS_PER_SECOND}      open loop: by schedule; if absent closed loop: as fast as they are answered
and is answered by a line when that is done. It ends at the end of its input.
    {"spans": …, "requests": …, "bytes": …, "seconds": …,
     "p50_ms": …, "p99_ms": …, "max_ms": …,   of the answers that were an OK
     "late": …,                               requests that started over 1 ms late: all threads were waiting for answers
     "refused": …,                            answers that said: later; their requests are sent again until taken
     "failed": {"STATUS": …}}                 answers that said no; these are not sent again

The clock of an answer starts when its request is due, so waiting behind others counts. Only where a thread stood ready
and overslept does it start at the sending. A refused request waits as long as its RetryInfo says, else 100 ms; then its
clock starts anew.

usage: python -m benchmarks.load --endpoint HOST:PORT --corpus FILE [--protocol grpc|http|http/json] [--connections 4]
    [--in-flight 8] [--method NAME]
for example: echo '{}' | python -m benchmarks.load --endpoint localhost:4317 --corpus spans.bin
"""

from __future__ import annotations

import argparse
import collections
import gc
import json
import math
import sys
import threading
import time
from typing import Any

from benchmarks import corpus, senders
from benchmarks.senders import Failed, Refused, Sender
from sampler_proxy.otlp.json import json_line

_LATE_S = 0.001
_SWITCH_S = 0.0005  # an answer that has come must not wait 5 ms, the default, for a thread that prepares a request


def quantile(ordered: list[float], q: float) -> float:
    """The smallest value that at least the share q does not exceed; 0 of nothing."""
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)] if ordered else 0.0


class Phase:
    """One stretch of sending: what is to be sent when, and what came of it."""

    def __init__(self, requests: list[corpus.Request], rate: float | None) -> None:
        self._requests = requests
        self._rate = rate
        self._next = 0
        self._due_s = 0.0  # of the next request, after the start
        self._lock = threading.Lock()
        self._start = time.perf_counter()
        self.latencies_s: list[float] = []
        self.late = 0
        self.refused = 0
        self.failed: collections.Counter[str] = collections.Counter()

    def _take(self) -> tuple[bytes, float] | None:
        """The next request and when it is due."""
        with self._lock:
            if self._next == len(self._requests):
                return None
            request, due_s = self._requests[self._next], self._due_s
            self._next += 1
            if self._rate:
                self._due_s += request.spans / self._rate
            return request.message, self._start + due_s

    def send(self, sender: Sender) -> None:
        """Send requests until there are none left; what each of the threads does."""
        now = time.perf_counter
        while (taken := self._take()) is not None:
            message, due = taken
            start = now()
            if self._rate:
                if start < due:
                    time.sleep(due - start)
                    start = now()
                else:
                    self.late += start - due > _LATE_S
                    start = due
            while True:
                try:
                    sender(message)
                except Failed as error:
                    self.failed[str(error)] += 1
                    break
                except Refused as refused:
                    self.refused += 1
                    time.sleep(refused.pause_s)
                    start = now()
                else:
                    self.latencies_s.append(now() - start)
                    break

    def report(self) -> dict[str, Any]:
        seconds = time.perf_counter() - self._start
        ordered = sorted(self.latencies_s)
        return {
            "spans": sum(request.spans for request in self._requests),
            "requests": len(self._requests),
            "bytes": sum(len(request.message) for request in self._requests),
            "seconds": seconds,
            "p50_ms": 1e3 * quantile(ordered, 0.5),
            "p99_ms": 1e3 * quantile(ordered, 0.99),
            "max_ms": 1e3 * quantile(ordered, 1),
            "late": self.late,
            "refused": self.refused,
            "failed": dict(self.failed),
        }


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.load", description="Send a corpus to an OTLP endpoint.")
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--protocol", choices=("grpc", *senders.TYPES), default="grpc")
    parser.add_argument("--connections", type=int, default=4, help="of gRPC")
    parser.add_argument("--in-flight", type=int, default=8)
    parser.add_argument("--method", default=senders.METHOD)
    arguments = parser.parse_args()
    requests = list(corpus.requests(arguments.corpus))
    if arguments.protocol == "http/json":
        requests = [request._replace(message=json_line(request.message)) for request in requests]
    gc.freeze()
    sys.setswitchinterval(_SWITCH_S)
    connected = senders.connect(
        arguments.protocol, arguments.endpoint, arguments.connections, arguments.in_flight, arguments.method
    )
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        wanted = json.loads(line)
        count = wanted.get("requests", len(requests))
        phase = Phase(requests[:count], wanted.get("rate"))
        threads = [threading.Thread(target=phase.send, args=(sender,)) for sender in connected]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(json.dumps(phase.report()), flush=True)
        del requests[:count]


if __name__ == "__main__":
    main()
