"""Tells of this machine what warnings are about: which hosts it is, without a question to DNS, so that no command waits
for it, and its memory."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def is_here(host: str) -> bool:
    """Tell whether a host, a name in lower case or an address without brackets, is this machine: its own name, or an
    address that a socket can be bound to."""
    if host == os.uname().nodename.lower():
        return True
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.inet_pton(family, host)
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except (OSError, ValueError):
        return False
    return True


def memory_bytes() -> int | None:
    """Return the memory of this machine; None where the system does not say."""
    with suppress(OSError, ValueError):
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
        return pages * size if pages > 0 else None
    return None
