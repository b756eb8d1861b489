"""Names what a port asks of those who come (TLS, credentials, both or nothing), and what it notes of them."""

from __future__ import annotations

from typing import NamedTuple

from sampler_proxy.receive.credentials import Credentials
from sampler_proxy.receive.metadata import SenderMetadata
from sampler_proxy.receive.tls import Tls


class Door(NamedTuple):
    """The demands of one port; None: it does not ask for that, or notes nothing."""

    tls: Tls | None = None
    credentials: Credentials | None = None
    metadata: SenderMetadata | None = None


OPEN = Door()
