"""Holds what each port asks of those who come, and follows the files of certificates, keys and secrets."""

from __future__ import annotations

import asyncio

from sampler_proxy import metrics
from sampler_proxy.config.doors_check import doors
from sampler_proxy.config.model import Config
from sampler_proxy.receive.credentials import Credentials
from sampler_proxy.receive.door import Door
from sampler_proxy.receive.metadata import SenderMetadata
from sampler_proxy.receive.tls import Tls

FILES_EVERY_S = 1.0
"""How often the files are looked at."""


class Doors:
    """The doors of a process, by port."""

    def __init__(self, config: Config) -> None:
        """Read all files. Raises StartError."""
        self._doors: dict[str, Door] = {}
        for path, tls, auth in doors(config):
            name = ".".join(map(str, path))
            self._doors[name] = Door(
                None if tls is None else Tls(tls, name),
                None if auth is None else Credentials(auth, name),
                SenderMetadata(config.receive.metadata) if config.receive.metadata and path[0] == "receive" else None,
            )
        self.grpc, self.http, self.admin = self._doors.values()

    async def follow(self) -> None:
        """Read the files again whenever they change, until cancelled."""
        while any(door.tls is not None or door.credentials is not None for door in self._doors.values()):
            await asyncio.sleep(FILES_EVERY_S)
            await asyncio.to_thread(self._look)

    def _look(self) -> None:
        for tls, credentials, _ in self._doors.values():
            if tls is not None:
                tls.look()
            if credentials is not None:
                credentials.look()

    def detail(self) -> dict[str, object]:
        """Describe, as JSON values, files that cannot be used as they are now; empty where there are none."""
        found = {name: problems for name, door in self._doors.items() if (problems := _problems(door))}
        return {"files": found} if found else {}

    def values(self) -> dict[metrics.Metric, dict[tuple[str, ...], float | metrics.HistogramValue]]:
        """Return the values of the metrics of certificates and credentials."""
        asked = {name: door.credentials for name, door in self._doors.items() if door.credentials is not None}
        return {
            metrics.TLS_CERTIFICATE_EXPIRES_TIMESTAMP_SECONDS: {
                (name,): door.tls.expires_s for name, door in self._doors.items() if door.tls is not None
            },
            metrics.FILES_LAST_RELOAD_SUCCESSFUL: {
                (name,): 0 if _problems(door) else 1 for name, door in self._doors.items() if door != Door()
            },
            metrics.CREDENTIAL_REQUESTS: {
                (name, credential): uses for name, each in asked.items() for credential, uses in each.uses.items()
            },
            metrics.CREDENTIALS_REFUSED: {(name,): each.refused for name, each in asked.items()},
        }


def _problems(door: Door) -> dict[str, str]:
    found = {} if door.credentials is None else door.credentials.problems
    return found if door.tls is None or door.tls.problem is None else {"tls": door.tls.problem, **found}
