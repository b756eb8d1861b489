"""Sends requests to one OTLP back end, whatever the protocol: addresses, headers, certificates, the time of a try.

A transport sends bytes once and says how that went; queues, retries and counters belong to whoever sends. One transport
is shared by all who send to its destination: the exporter starts and closes it, others use it in between and add
themselves to `on_renewal`. On one event loop. A back end in trouble is an outcome (`retry`), never an exception.

Any try may have been stored by the back end although no answer came, so duplicates are possible, as OTLP allows.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from sampler_proxy.config.model import OtlpExport
from sampler_proxy.errors import StartError
from sampler_proxy.export.exporter import Dependencies
from sampler_proxy.export.headers import Headers, UnusableError
from sampler_proxy.export.lasting import Lasting
from sampler_proxy.export.peers import Link, Peers
from sampler_proxy.export.proxies import GRPC, Variables, proxy_for, usable, without_credentials
from sampler_proxy.export.reasons import NO_NAME, UNCONNECTED
from sampler_proxy.export.reporter import Reporter
from sampler_proxy.export.retry import Accepted, Backoff, Failed, Fault
from sampler_proxy.export.tls import Certificates
from sampler_proxy.otlp.metadata import Metadata
from sampler_proxy.otlp.signals import Signal

FILES_EVERY_S = 1.0
"""How often the files of headers and certificates are looked at."""

NOT_REACHED, TIMED_OUT = "UNAVAILABLE", "DEADLINE_EXCEEDED"
"""The codes of a try without an answer, over any protocol."""

log = logging.getLogger(__name__)

L = TypeVar("L", bound=Link)


class Transport(ABC, Generic[L]):
    """The way to one back end, over links of its own, one for each address. `place` stands before a reason in the
    log."""

    default_ports: tuple[int, int]  # of http:// and https://

    def __init__(self, config: OtlpExport, dependencies: Dependencies) -> None:
        """Create a transport that is not started yet."""
        self.name = config.name
        self.place = f"{config.url}: "
        self.on_renewal: list[Callable[[], object]] = []  # called when headers or certificates have changed
        self._host, self._port, self._secure = address_of(config.url, self.default_ports)
        named = proxy_for(self._host, self._port, dependencies.environ, self._proxy_variables())
        self._proxy = named if named and usable(named) else None
        self._unusable_proxy = None if self._proxy else named
        self._timeout = config.timeout_ns / 1e9
        self._clock = dependencies.clock
        self._report = Reporter(config.name, dependencies.clock)
        self._lasting = Lasting(
            config.name, Backoff(config.retry.initial_ns, config.retry.max_ns, dependencies.random), self._report
        )
        self._headers = Headers(config.headers)
        self._headers_in_use: list[tuple[str, str]] = []
        self.certificates = Certificates(config.tls)
        self._peers: Peers[L] | None = None

    def start(self) -> None:
        """Read the files, and begin to follow them and the addresses of the name; connects to nothing yet. On the loop.
        Raises StartError."""
        try:
            self._headers.read()
        except UnusableError as error:
            raise StartError(f"export {self.name}: {error}") from error
        self._use_headers()
        if self._secure:
            self.certificates.open(self.name)
        self._log_proxy()
        self._peers = Peers(
            self._host,
            self._port,
            self._open_link,
            self._clock,
            linger_s=self._timeout + 1,
            by_name=self._proxy is not None,
        )
        self._lasting.begin(self._peers.follow)
        if self._headers.from_files:
            self._lasting.begin(self._follow_headers)
        if self._secure and self.certificates.files:
            self._lasting.begin(self._follow_certificates)

    async def close(self) -> None:
        """End every connection, at once."""
        await self._lasting.end()
        self._report.final()
        if self._peers is not None:
            await self._peers.close()

    async def send(self, signal: Signal, request: bytes, metadata: Metadata = ()) -> Accepted | Failed:
        """Try once to deliver an encoded request of a signal, at one address after the other until one can be reached,
        within the time-out. `metadata` go before headers of the same names."""
        assert self._peers is not None
        deadline_ns = self._clock() + int(self._timeout * 1e9)
        peers = []
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout):  # the name may have to be resolved
                peers = await self._peers.candidates()
        failed = Failed(Fault.UNREACHABLE, NOT_REACHED, UNCONNECTED if peers else NO_NAME)
        for peer in peers:
            if not self._peers.uses(peer):  # given up while another one was tried
                continue
            left_s = (deadline_ns - self._clock()) / 1e9
            if left_s <= 0:
                break
            link = peer.link
            outcome = await self._send_over(link, signal, request, metadata, left_s)
            if outcome is None:
                continue
            if isinstance(outcome, Accepted):
                self._peers.answered(peer, link)
                return outcome
            failed = outcome
            if failed.fault is Fault.TIMEOUT and left_s < self._timeout / 2:
                pass  # most of the time went to other addresses: that is not this one's fault
            elif failed.fault in (Fault.UNREACHABLE, Fault.LOST, Fault.TIMEOUT):
                self._peers.failed(peer, link, timeout=failed.fault is Fault.TIMEOUT)
            else:
                self._peers.answered(peer, link)
            if failed.fault is not Fault.UNREACHABLE:  # else nothing was sent: another address may be better
                break
        return failed

    @abstractmethod
    def _open_link(self, address: str | None) -> L:
        """Make a link to one address of the name; None: to the name, behind a proxy. Nothing is sent yet."""

    @abstractmethod
    async def _send_over(
        self, link: L, signal: Signal, request: bytes, metadata: Metadata, timeout_s: float
    ) -> Accepted | Failed | None:
        """Send over one link; None: it was given up before anything was sent."""

    def _proxy_variables(self) -> Variables:
        """Return the variables of the environment that name HTTP proxies for this protocol."""
        return GRPC

    def _use_headers(self) -> None:
        """Take the headers as they were read last."""
        self._headers_in_use = self._headers.items()

    def _log_proxy(self) -> None:
        if self._unusable_proxy:
            log.warning(
                "export %s: %s:%d is reached without the proxy of the environment, %s: only http://HOST:PORT is "
                "supported",
                self.name,
                self._host,
                self._port,
                without_credentials(self._unusable_proxy),
            )
        if self._proxy:
            log.info(
                "export %s: %s:%d is reached through the HTTP proxy %s",
                self.name,
                self._host,
                self._port,
                without_credentials(self._proxy),
            )

    async def _follow_headers(self) -> None:
        """Read the files of headers again when they change. What was refused for its credentials is tried at once."""
        while True:
            await asyncio.sleep(FILES_EVERY_S)
            try:
                await asyncio.to_thread(self._headers.read)
            except UnusableError as error:  # of some of the files
                self._report.complain("headers", 0, f"headers stay as they were: {error}")
            if changed := self._headers.changed_since(self._headers_in_use):
                self._use_headers()
                log.info("export %s: headers read again from %s", self.name, ", ".join(changed))
                self._renewed()

    async def _follow_certificates(self) -> None:
        """Read the files of certificates again and again; when one has changed, connect anew and try at once."""
        assert self._peers is not None
        while True:
            await asyncio.sleep(FILES_EVERY_S)
            try:
                changed = await asyncio.to_thread(self.certificates.read)
            except ValueError as error:
                self._report.complain("certificates", 0, str(error))
                continue
            if changed:
                self._peers.renew()
                log.info("export %s: certificates read again from %s", self.name, ", ".join(self.certificates.files))
                self._renewed()

    def _renewed(self) -> None:
        for listener in self.on_renewal:
            listener()


def address_of(endpoint: str, default_ports: tuple[int, int]) -> tuple[str, int, bool]:
    """Split `http[s]://host[:port]...` into host and port, and whether it is TLS."""
    url = urlsplit(endpoint)
    secure = url.scheme == "https"
    return url.hostname or "", url.port or default_ports[secure], secure
