"""Compares addresses as they are written in a configuration: which of them lead to this process, which exclude others.

Nothing is resolved: a name stands for itself, save `localhost`, and the caller says what else is this machine. What
cannot be known is taken as different.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address

from sampler_proxy.settings import Endpoint

Address = IPv4Address | IPv6Address


def address_of(host: str) -> Address | str:
    """Return the address that a host is written as; a name in lower case without its last dot."""
    host = host.strip("[]").partition("%")[0].lower().removesuffix(".")
    if re.fullmatch(r"127(?:\.[0-9]+){1,2}", host):  # 127.1, as connect() takes it
        host = "127.0.0.1"
    try:
        address = ip_address(host)
    except ValueError:
        return host
    return getattr(address, "ipv4_mapped", None) or address


def _is_local_name(address: Address | str) -> bool:
    return isinstance(address, str) and (address in ("localhost", "ip6-loopback") or address.endswith(".localhost"))


def _is_loopback(address: Address | str) -> bool:
    return _is_local_name(address) if isinstance(address, str) else address.is_loopback


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach a host that is listened on."""
    return _is_loopback(address_of(host))


def _is_wildcard(address: Address | str) -> bool:
    return not isinstance(address, str) and address.is_unspecified


def leads_to(listening: Endpoint, host: str, port: int | None, is_here: Callable[[str], bool]) -> bool:
    """Tell whether who connects to `host` and `port` reaches the process that listens there; `is_here` tells of a name
    or address whether it is this machine."""
    if not port or port != listening.port:
        return False
    at, to = address_of(listening.host), address_of(host)
    if at == to:
        return True
    if _is_wildcard(at):
        return _is_wildcard(to) or _is_loopback(to) or is_here(str(to))
    if not (_is_loopback(at) and (_is_wildcard(to) or _is_loopback(to))):
        return False
    # Both are the loopback of their family; connecting to a wildcard address means that one.
    return isinstance(at, str) or isinstance(to, str) or at.version == to.version


def collide(one: Endpoint, other: Endpoint) -> bool:
    """Tell whether only one process, and one server in it, can listen on both."""
    if one.path or other.path:
        return one.path == other.path
    if not one.port or one.port != other.port:
        return False
    at, to = address_of(one.host), address_of(other.host)
    if at == to or _is_wildcard(at) or _is_wildcard(to):  # wildcards are those of both families
        return True
    return (_is_local_name(at) and _is_loopback(to)) or (_is_local_name(to) and _is_loopback(at))
