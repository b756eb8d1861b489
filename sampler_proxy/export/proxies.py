"""Decides whether a destination is reached through an HTTP proxy, by the environment: variables in either case.

    grpc_proxy, https_proxy, http_proxy    the first that is set names the proxy: http://[user:password@]host:port
    no_grpc_proxy, no_proxy                the first that is set lists what is reached without it

These are gRPC's. Over HTTP, `https_proxy` is for https://, `http_proxy` for http://, and `no_proxy` for both.

The list is separated by commas or spaces. An entry is `*` (everything), a name (also the end of one, at a dot: with or
without `.` or `*.` in front), an address or a network (10.0.0.0/8), each with `:port` where only that port is meant.

gRPC's core reads `no_proxy` again by itself where it is given a proxy, and then may connect directly: whatever it takes
for an exception is one here, too. Where this module says "directly", core is not given a proxy.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit


class Variables(NamedTuple):
    """The variables that a protocol goes by: in lower case, the first that is set counts."""

    proxy: tuple[str, ...]
    exceptions: tuple[str, ...]


GRPC = Variables(("grpc_proxy", "https_proxy", "http_proxy"), ("no_grpc_proxy", "no_proxy"))
HTTP = Variables(("http_proxy",), ("no_proxy",))
HTTPS = Variables(("https_proxy",), ("no_proxy",))


def proxy_for(host: str, port: int, environ: Mapping[str, str], variables: Variables = GRPC) -> str | None:
    """Return the URL of the proxy in front of a destination; None: it is reached directly. The URL may be of a kind
    that is not `usable`."""
    proxy = _first(variables.proxy, environ)
    exceptions = re.split(r"[,\s]+", _first(variables.exceptions, environ) or "")
    if proxy is None or any(_matches(entry, host.lower().rstrip("."), port) for entry in exceptions if entry):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def usable(proxy: str) -> bool:
    """Tell whether a proxy can be used: gRPC's core has CONNECT by plain HTTP only, and passes all others by."""
    url = urlsplit(proxy)
    return url.scheme == "http" and bool(url.hostname)


def without_credentials(proxy: str) -> str:
    """Return a proxy's URL as a log may show it: HOST:PORT. A password may hold any character, `@` and `/` too, so
    everything up to the last `@` goes; and what then is no host and port may be part of one."""
    rest = proxy.rpartition("@")[2] if "@" in proxy else proxy.rpartition("://")[2]
    shown = re.fullmatch(r"((?:\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::[0-9]+)?)/?", rest)
    return shown[1] if shown else "(not HOST:PORT)"


def _first(names: tuple[str, ...], environ: Mapping[str, str]) -> str | None:
    keys = (key for name in names for key in (name, name.upper()))
    return next((value for key in keys if (value := environ.get(key, "").strip())), None)


def _matches(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    name, _, only_port = entry.rpartition(":") if re.fullmatch(r"(?:[^:]+|\[.*\]):[0-9]+", entry) else (entry, "", "")
    if only_port and int(only_port) != port:
        return False
    name = name.strip("[]").lower()
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        suffix = name.removeprefix("*").strip(".")
        return bool(suffix) and (host == suffix or host.endswith(f".{suffix}"))
    try:
        return address in ipaddress.ip_network(name, strict=False)
    except ValueError:
        return bool(name) and host.endswith(name)  # as core has it
