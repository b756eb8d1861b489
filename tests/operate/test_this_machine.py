"""Which hosts are this machine."""

from __future__ import annotations

import socket

import pytest

from sampler_proxy.operate.this_machine import is_here


def own_address() -> str:
    """The address from which this machine reaches others, loopback where it reaches none. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


@pytest.mark.parametrize("host", [socket.gethostname().lower(), "127.0.0.1", own_address()])
def test_this_machine(host: str) -> None:
    assert is_here(host)


@pytest.mark.parametrize(
    "host", ["192.0.2.1", "2001:db8::1", "tempo", "tempo.example", "", "127.0.0.1:4317", "1.2.3", "a" * 300, "\0"]
)
def test_another(host: str) -> None:
    assert not is_here(host)
