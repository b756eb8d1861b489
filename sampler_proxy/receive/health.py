"""Answers gRPC's health checks (grpc/doc/health-checking.md, grpc/health/v1/health.proto) for the services of one port.

A service is SERVING from the start of its port on, and NOT_SERVING from `drain` on, which is before the port closes. So
is the server as a whole, whose name is the empty one. A full buffer makes nobody NOT_SERVING: its refusals say when to
come back, and another proxy would not have the traces.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from sampler_proxy.errors import MalformedRequest
from sampler_proxy.receive.grpc_status import UNKNOWN_SERVICE, Refusal

SERVICE = "grpc.health.v1.Health"
CHECK, LIST, WATCH = (f"/{SERVICE}/{method}" for method in ("Check", "List", "Watch"))

NOTICE_S = 1.0
"""How long a port that drains stays open, where anybody has ever asked how it is. Who watches hears of it at once."""

_Status = health_pb2.HealthCheckResponse.ServingStatus


class Health:
    """The states of a port's services, with a method for each of the protocol's: request and response are bytes. From
    any thread."""

    def __init__(self, services: Iterable[str]) -> None:
        self._states = dict.fromkeys(("", *services), _Status.SERVING)
        self._asked = False
        self._draining = False
        self._hurry = threading.Event()

    def methods(self) -> dict[str, Callable[..., bytes | Refusal]]:
        """Return the methods that answer once; List only where the installed protocol has it."""
        has_list = "List" in health_pb2.DESCRIPTOR.services_by_name["Health"].methods_by_name
        return {CHECK: self.check, **({LIST: self.list} if has_list else {})}

    def drain(self, grace_s: float, tell: Callable[[], None]) -> None:
        """Say from now on that nothing is served, have `tell` tell those who watch, and give whoever asks time to hear
        it: NOTICE_S, but not more than `grace_s`. A second call ends the wait of the first."""
        if self._draining:
            self._hurry.set()
            return
        self._draining = True
        self._states = dict.fromkeys(self._states, _Status.NOT_SERVING)
        tell()
        if self._asked:
            self._hurry.wait(min(NOTICE_S, grace_s))

    def check(self, request: bytes, _metadata: bytes = b"") -> bytes | Refusal:
        """Answer Check. Raises MalformedRequest."""
        state = self._states.get(self._service(request))
        return UNKNOWN_SERVICE if state is None else _response(state)

    def watch(self, request: bytes) -> bytes:
        """Answer Watch with the state as it is now. Raises MalformedRequest."""
        return _response(self._states.get(self._service(request), _Status.SERVICE_UNKNOWN))

    def list(self, request: bytes, _metadata: bytes = b"") -> bytes:
        """Answer List. Raises MalformedRequest."""
        self._asked = True
        _parse(health_pb2.HealthListRequest, request)
        states = {name: health_pb2.HealthCheckResponse(status=state) for name, state in self._states.items()}
        response: bytes = health_pb2.HealthListResponse(statuses=states).SerializeToString()
        return response

    def _service(self, request: bytes) -> str:
        self._asked = True
        service: str = _parse(health_pb2.HealthCheckRequest, request).service
        return service


def _parse(kind: type, request: bytes) -> health_pb2.HealthCheckRequest:
    try:
        return kind.FromString(request)  # type: ignore[attr-defined]
    except DecodeError:
        raise MalformedRequest("not a request of grpc.health.v1.Health") from None


def _response(state: int) -> bytes:
    response: bytes = health_pb2.HealthCheckResponse(status=state).SerializeToString()
    return response
