"""Tells which hosts are this machine, for warnings: without a question to DNS, so that no command waits for it."""

from __future__ import annotations

import os
import socket


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
