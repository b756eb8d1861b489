"""The proxy (and other programs) as real processes: started, watched, asked for its metrics, stopped, killed.

Nothing here sleeps for luck: `until` polls a condition against a deadline. Every process writes its stderr to a file,
so that it never blocks on a pipe; `STARTED` lists them all, for a fixture that ends them and a report that shows them.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from prometheus_client.parser import text_string_to_metric_families

import sampler_proxy

IMPORTED_FROM = str(Path(sampler_proxy.__file__).resolve().parent.parent)
PREFIX = "sampler_proxy_"
START_S = 30.0
RUN = (sys.executable, "-m", "sampler_proxy", "run")
LIMITED = (
    sys.executable,
    "-c",
    "import os, resource, sys; kind, soft, hard = map(int, sys.argv[1:4]);"
    "resource.setrlimit(kind, (soft, hard)); os.execv(sys.argv[4], sys.argv[4:])",
)
"""Becomes the command behind a kind of resource, its soft and its hard limit. They are set in the new process: between
fork and exec (`preexec_fn`) gRPC's handlers of a fork run there, and end it now and then."""
LOCAL = urllib.request.build_opener(urllib.request.ProxyHandler({}))

T = TypeVar("T")


def until(condition: Callable[[], T], seconds: float = 20.0, what: Callable[[], object] | str = "") -> T:
    """The first true value of `condition`; AssertionError with `what` when the time is up."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain: {what() if callable(what) else what}")
        time.sleep(0.01)
    return value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(**more: str) -> dict[str, str]:
    """Ours, without what would lead OpenTelemetry or gRPC astray."""
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith("OTEL_") and "proxy" not in key.lower()
    }
    paths = [IMPORTED_FROM, *filter(None, [kept.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", **more}


def with_free_ports(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with a free port for OTLP/HTTP, where it says nothing of that: the default port may be in use
    by another test."""
    receive = {"http": {"endpoint": "127.0.0.1:0"}, **config.get("receive", {})}
    return {**config, "receive": receive}


class Process:
    """Runs from its construction on. `folder` is where it runs and where its output goes."""

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, env: Mapping[str, str] | None = None, **options: Any
    ) -> None:
        self.name = name
        folder.mkdir(parents=True, exist_ok=True)
        log_folder = folder.parent / f"{folder.name}.log"  # beside it: a folder that is to be empty is
        log_folder.mkdir(exist_ok=True)
        self.out_path = log_folder / f"{name}-{len(STARTED)}.out"
        self.err_path = log_folder / f"{name}-{len(STARTED)}.err"
        with open(self.out_path, "wb") as out, open(self.err_path, "wb") as err:
            settings = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": err, **options}
            self.popen = subprocess.Popen(command, cwd=folder, env=env or environment(), **settings)
        STARTED.append(self)

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def running(self) -> bool:
        return self.popen.poll() is None

    def stdout(self) -> str:
        return self.out_path.read_text(errors="replace")

    def stderr(self) -> str:
        return self.err_path.read_text(errors="replace")

    def signal(self, number: int) -> None:
        self.popen.send_signal(number)

    def wait(self, seconds: float = 30.0) -> int:
        """Its exit code."""
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} still runs after {seconds} s\n{self.stderr()}") from None

    def terminate(self, seconds: float = 30.0) -> int:
        self.signal(signal.SIGTERM)
        return self.wait(seconds)

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()

    def rss_bytes(self) -> int:
        """Linux only."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def line(self, seconds: float = START_S) -> str:
        """The first line that it writes to stdout."""
        return until(
            lambda: self.stdout().partition("\n")[0] if "\n" in self.stdout() else self._must_run(),
            seconds,
            lambda: f"{self.name} said nothing\n{self.stderr()}",
        )

    def _must_run(self) -> str:
        assert self.running, f"{self.name} has ended with {self.popen.returncode}\n{self.stderr()}"
        return ""


STARTED: list[Process] = []


class Metrics:
    """One scrape."""

    def __init__(self, text: str) -> None:
        self.values: dict[tuple[str, frozenset[tuple[str, str]]], float] = {
            (sample.name.removeprefix(PREFIX), frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def total(self, name: str, **labels: str) -> int:
        """The sum over all series of a metric (named without prefix) that have these labels."""
        wanted = labels.items()
        return int(sum(value for (n, found), value in self.values.items() if n == name and wanted <= found))

    def by(self, name: str, label: str) -> dict[str, int]:
        found: dict[str, int] = {}
        for (n, labels), value in self.values.items():
            if n == name:
                key = dict(labels)[label]
                found[key] = found.get(key, 0) + int(value)
        return found

    def unbalanced(self) -> list[str]:
        """The equations of the ledger that do not hold, in numbers."""
        found = []
        left, right = (
            self.total("spans_received_total"),
            {name: self.total(name) for name in ("spans_sampled_out_total", "buffer_spans", "spans_kept_total")},
        )
        if left != sum(right.values()):
            found.append(f"received {left} != {sum(right.values())}: {right}")
        for name in self.by("spans_routed_total", "destination"):
            left = self.total("spans_routed_total", destination=name)
            right = {
                metric: self.total(metric, destination=name)
                for metric in ("spans_exported_total", "queue_spans", "spans_rejected_total", "spans_lost_total")
            }
            if left != sum(right.values()):
                found.append(f"{name}: routed {left} != {sum(right.values())}: {right}")
        return found + [fault for signal in ("logs", "metrics", "profiles") for fault in self._unbalanced_of(signal)]

    def _unbalanced_of(self, signal: str) -> list[str]:
        """The equations of what is passed on, for one signal."""
        found = []
        of = {"signal": signal}
        taken = self.total("passthrough_requests_received_total", **of)
        taken -= self.total("passthrough_requests_discarded_total", **of)
        for name in self.by("passthrough_requests_routed_total", "destination"):
            left = self.total("passthrough_requests_routed_total", destination=name, **of)
            parts = [f"passthrough_requests_{part}_total" for part in ("exported", "rejected", "unwanted", "lost")]
            right = {part: self.total(part, destination=name, **of) for part in (*parts, "passthrough_queue_requests")}
            if not taken == left == sum(right.values()):
                found.append(f"{name}: {signal}: taken {taken}, routed {left} != {sum(right.values())}: {right}")
        return found


class Proxy(Process):
    """`sampler-proxy run`, ready. `config` is written to a file as YAML (JSON is YAML); None runs without one. `run`:
    another command that does as much; `limit`: a kind of resource with its soft and hard limit; `options` are those of
    a Popen."""

    def __init__(
        self,
        config: Mapping[str, Any] | None,
        folder: Path,
        *,
        run: Sequence[str] = RUN,
        limit: tuple[int, tuple[int, int]] | None = None,
        **options: Any,
    ) -> None:
        arguments = []
        if config is not None:
            folder.mkdir(parents=True, exist_ok=True)
            file = folder / "sampler-proxy.yaml"
            file.write_text(yaml.safe_dump(with_free_ports(config), sort_keys=False))
            arguments = ["--config", str(file)]
        limited = [] if limit is None else [*LIMITED, *map(str, (limit[0], *limit[1]))]
        super().__init__("proxy", [*limited, *run, *arguments], folder, **options)
        ready = self.await_event("ready", START_S)
        self.port = _port(ready["grpc"])
        self.http_port = _port(ready.get("http", ""))
        self.admin_port = _port(ready["admin"])

    def log(self) -> list[dict[str, Any]]:
        """What it has logged. Every complete line must be JSON."""
        complete = self.stderr().rpartition("\n")[0]
        return [json.loads(line) for line in complete.splitlines()]

    def await_event(self, text: str, seconds: float = 20.0) -> dict[str, Any]:
        """The first log line whose event holds `text`."""

        def find() -> dict[str, Any] | None:
            ended = not self.running  # asked first: what it has said until then is all
            if ended and text not in self.stderr():
                raise AssertionError(f"{self.name} has ended with {self.popen.returncode}\n{self.stderr()}")
            return next((line for line in self.log() if text in line["event"]), None)

        found = until(find, seconds, lambda: f"no {text!r} in the log\n{self.stderr()}")
        assert found is not None
        return found

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of an answer of the admin port. OSError where nobody listens."""
        try:
            with LOCAL.open(f"http://127.0.0.1:{self.admin_port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metrics(self) -> Metrics:
        status, text = self.get("/metrics")
        assert status == 200, text
        return Metrics(text)

    def await_metrics(self, condition: Callable[[Metrics], object], seconds: float = 20.0) -> Metrics:
        last: list[Metrics] = []

        def check() -> Metrics | None:
            last[:] = [self.metrics()]
            return last[0] if condition(last[0]) else None

        def what() -> str:
            return "\n".join(f"{n} {dict(labels)} {v}" for (n, labels), v in last[0].values.items()) + self.stderr()

        found = until(check, seconds, what)
        assert found is not None
        return found

    def await_settled(self, seconds: float = 30.0) -> Metrics:
        """Nothing buffered, nothing queued."""
        return self.await_metrics(lambda m: not m.total("buffer_spans") and not m.total("queue_spans"), seconds)


def _port(address: str) -> int:
    """0 for a unix socket, and for none."""
    port = address.rpartition(":")[2]
    return int(port) if port.isdecimal() else 0


class Scraper:
    """Scrapes on a thread of its own, every `interval_s`, until `stop` or until the port is closed. Checks the ledger's
    equations and that no counter of spans runs backwards, each time."""

    MONOTONIC: Iterable[str] = (
        "spans_received_total",
        "spans_sampled_out_total",
        "spans_kept_total",
        "spans_routed_total",
        "spans_exported_total",
        "spans_lost_total",
        "spans_rejected_total",
        "passthrough_requests_received_total",
        "passthrough_requests_routed_total",
        "passthrough_requests_exported_total",
    )

    def __init__(self, proxy: Proxy, interval_s: float = 0.1) -> None:
        self.scrapes: list[Metrics] = []
        self.faults: list[str] = []
        self._proxy = proxy
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        last: Metrics | None = None
        while not self._stop.is_set():
            try:
                scraped = self._proxy.metrics()
            except OSError:
                if self._proxy.running and not self._stop.wait(self._interval_s):
                    continue
                return
            except Exception as error:
                self.faults.append(f"scrape {len(self.scrapes)}: {error!r}")
                return
            self.faults += [f"scrape {len(self.scrapes)}: {fault}" for fault in scraped.unbalanced()]
            for name in self.MONOTONIC:
                if last is not None and scraped.total(name) < last.total(name):
                    self.faults.append(f"scrape {len(self.scrapes)}: {name} ran backwards")
            self.scrapes.append(scraped)
            last = scraped
            self._stop.wait(self._interval_s)

    def stop(self) -> list[Metrics]:
        """All scrapes, every one of which was balanced."""
        self._stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()
        assert not self.faults, "\n".join(self.faults[:10])
        assert self.scrapes
        return self.scrapes
