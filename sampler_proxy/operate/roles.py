"""Asks for credentials at the admin port, and lets each do what its role may.

Probes need none: /healthz and /readyz are open, but details of /readyz are for those who show a credential. Reading
takes the role `view`; whatever changes something (any method but GET and HEAD) takes `operate`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from sampler_proxy.errors import Unauthenticated
from sampler_proxy.receive.credentials import Credentials

OPEN_PATHS = ("/healthz", "/readyz")


def require_role(credentials: Credentials | None) -> Any:
    """Return a middleware that refuses who has no credential, or none for what is asked; None: everybody may ask."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if credentials is None or request.path in OPEN_PATHS:
            return await handler(request)
        try:
            role = credentials.role_of(request.headers.get("Authorization"), request.remote or "unknown")
        except Unauthenticated as error:
            challenge = {"WWW-Authenticate": credentials.challenge}
            return web.json_response({"error": str(error)}, status=401, headers=challenge)
        if request.method not in ("GET", "HEAD") and role != "operate":
            return web.json_response({"error": "this credential may read only: its role is view"}, status=403)
        return await handler(request)

    return guard


def may_see_details(credentials: Credentials | None, request: web.Request) -> bool:
    """Tell whether who asks at an open path may see more than its status."""
    if credentials is None:
        return True
    authorization = request.headers.get("Authorization")
    if authorization is None:  # a probe
        return False
    with suppress(Unauthenticated):  # which is counted: nobody guesses in the dark
        credentials.role_of(authorization, request.remote or "unknown")
        return True
    return False
