"""A page in Chromium that sends its traces to another origin, as the browser allows (CORS)."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.clients.known import NEXT_DOUBLE
from tests.clients.running import SENT, arrives, built, configuration, tool
from tests.support.processes import Process, Proxy, environment
from tests.support.sink import Sink

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
    "--no-proxy-server",
)


class Site:
    """A web server with one page, which tells what became of its trace."""

    def __init__(self, script: bytes) -> None:
        outcomes: queue.Queue[str] = queue.Queue()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.startswith("/?"):
                    self._answer("text/html", b'<!DOCTYPE html><script type="module" src="/page.js"></script>')
                elif self.path == "/page.js":
                    self._answer("text/javascript", script)
                else:
                    self.send_error(404)

            def do_POST(self) -> None:
                outcomes.put(self.rfile.read(int(self.headers["Content-Length"])).decode())
                self._answer("text/plain", b"")

            def _answer(self, content_type: str, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", f"{content_type}; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.outcomes = outcomes
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def site() -> Iterator[Site]:
    """Return the site of `page.mjs`."""
    site = Site(built("js", "page.js").read_bytes())
    thread = threading.Thread(target=site.server.serve_forever)
    thread.start()
    yield site
    site.server.shutdown()
    thread.join()
    site.server.server_close()


@contextmanager
def visited(site: Site, proxy: Proxy, folder: Path, how: str, header: str = "") -> Iterator[str]:
    """Open the page in a browser, and yield what it tells of its trace. The browser stays until the end."""
    url = f"http://127.0.0.1:{proxy.http_port}/v1/traces"
    page = f"{site.origin}/?{urlencode({'url': url, 'how': how, 'header': header})}"
    command = [tool("chromium"), *FLAGS, f"--user-data-dir={folder / 'profile'}", page]
    browser = Process("browser", command, folder / "browser", environment())
    try:
        yield site.outcomes.get(timeout=60)
    except queue.Empty:
        raise AssertionError(f"the page tells nothing\n{browser.stderr()}") from None
    finally:
        browser.terminate()


def allowing(sink: Sink, origin: str, *headers: str) -> dict[str, Any]:
    http = {"endpoint": "127.0.0.1:0", "cors": {"allowed_origins": [origin], "allowed_headers": list(headers)}}
    return configuration(sink, http=http)


@pytest.mark.parametrize("how", ["json", "protobuf", "gzip", "beacon"])
def test_a_page_of_an_origin_that_is_allowed(how: str, site: Site, sink: Sink, tmp_path: Path) -> None:
    proxy = Proxy(allowing(sink, site.origin), tmp_path)
    with visited(site, proxy, tmp_path, how) as outcome:
        assert outcome == SENT
        arrives(sink, integer=NEXT_DOUBLE)
    assert proxy.terminate() == 0


@pytest.mark.parametrize("allowed", [True, False])
def test_a_header_of_its_own(allowed: bool, site: Site, sink: Sink, tmp_path: Path) -> None:
    proxy = Proxy(allowing(sink, site.origin, *(["x-team"] if allowed else [])), tmp_path)
    with visited(site, proxy, tmp_path, "json", header="x-team") as outcome:
        assert (outcome == SENT) == allowed
    assert proxy.metrics().total("spans_received_total") == (3 if allowed else 0)


@pytest.mark.parametrize("how", ["json", "gzip"])
def test_a_page_of_another_origin(how: str, site: Site, sink: Sink, tmp_path: Path) -> None:
    proxy = Proxy(allowing(sink, "https://shop.example"), tmp_path)
    with visited(site, proxy, tmp_path, how) as outcome:
        assert outcome.startswith("failed")
    metrics = proxy.metrics()
    assert not metrics.total("requests_received_total")
    assert not metrics.total("spans_received_total")
