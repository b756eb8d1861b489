"""TLS, credentials and roles of the admin port, over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from sampler_proxy.config.doors import AdminAuth, AdminToken, AdminUser, ServerTls
from sampler_proxy.operate.admin import Readiness
from sampler_proxy.operate.roles import require_role
from sampler_proxy.receive.credentials import Credentials
from sampler_proxy.receive.door import Door
from sampler_proxy.receive.tls import Tls
from tests.support.certificates import Authority, client_context

from .test_admin import Service, serving

AUTH = AdminAuth(
    bearer_tokens=(
        AdminToken(name="prometheus", token="first"),
        AdminToken(name="people", token="second", role="operate"),
    ),
    basic=(AdminUser(name="page", user="anna", password="secret"),),
)


ANNA = {"Authorization": "Basic YW5uYTpzZWNyZXQ="}


def credentials() -> Credentials:
    return Credentials(AUTH, "admin")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_probes_need_no_credentials_and_all_else_does() -> None:
    async def main() -> None:
        service = Service()
        service.readiness = Readiness("ready", {"reload": {"failed": ["a fault"]}})
        async with serving(service, door=Door(credentials=credentials())) as session:

            async def get(path: str, **options: Any) -> tuple[int, str]:
                async with session.get(path, **options) as answer:
                    return answer.status, await answer.text()

            assert (await get("/healthz"))[0] == 200
            status, text = await get("/readyz")
            assert (status, "fault" in text) == (200, False)
            status, text = await get("/readyz", headers=bearer("first"))
            assert (status, "fault" in text) == (200, True)
            for path in ("/metrics", "/rules", "/rates", "/destinations", "/traces/00", "/none"):
                for headers in ({}, bearer("third"), {"Authorization": "Basic eA=="}):
                    async with session.get(path, headers=headers) as answer:
                        assert answer.status == 401
                        assert answer.headers["WWW-Authenticate"].startswith("Bearer realm=")
            for options in ({"headers": bearer("first")}, {"headers": ANNA}):
                assert (await get("/rules", **options))[0] == 200
                assert (await get("/none", **options))[0] == 404
        assert not service.scrapes

    asyncio.run(main())


@asynccontextmanager
async def changing() -> AsyncIterator[TestServer]:
    """A server with something that may be changed."""

    async def change(_: web.Request) -> web.Response:
        return web.Response(text="changed")

    app = web.Application(middlewares=[require_role(credentials())])
    app.add_routes([web.get("/thing", change), web.post("/thing", change), web.delete("/thing", change)])
    async with TestServer(app) as server:
        yield server


@pytest.mark.parametrize(
    ("headers", "read", "change"),
    [
        (bearer("second"), 200, 200),
        (bearer("first"), 200, 403),
        (ANNA, 200, 403),
        ({}, 401, 401),
    ],
    ids=["operate", "view", "basic", "none"],
)
def test_who_may_read_may_not_change(headers: dict[str, str], read: int, change: int) -> None:
    async def main() -> None:
        async with changing() as server, aiohttp.ClientSession() as session:
            statuses = []
            for method in ("GET", "POST", "DELETE"):
                async with session.request(method, server.make_url("/thing"), headers=headers) as answer:
                    statuses.append(answer.status)
            assert statuses == [read, change, change]

    asyncio.run(main())


def test_it_speaks_tls_and_asks_for_certificates(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    section = ca.issue("server").section(client_ca_file=str(ca.path))
    door = Door(Tls(ServerTls.model_validate(section), "admin"))

    async def main() -> None:
        async with serving(Service(), door=door) as session:
            async with session.get("/metrics", ssl=client_context(ca, ca.issue("client"))) as answer:
                assert answer.status == 200
            with pytest.raises(aiohttp.ClientError):
                await session.get("/metrics", ssl=client_context(ca))

    asyncio.run(main())
