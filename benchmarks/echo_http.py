"""The echo that the target is compared with over HTTP: a bare aiohttp server that answers and does nothing else.

It runs on uvloop, as sampler-proxy does, on aiohttp's low-level server: no routes, no middleware, no log. Its allocator
is set as that of echo.py, for the same reason.

usage: python -m benchmarks.echo_http HOST:PORT
"""

import asyncio
import sys

import uvloop
from aiohttp import web

from benchmarks.echo import fix_mapping_threshold


async def _answer(request: web.BaseRequest) -> web.StreamResponse:
    await request.read()
    return web.Response(body=b"", content_type="application/x-protobuf")


async def _serve(address: str) -> None:
    host, _, port = address.rpartition(":")
    server = web.Server(_answer, access_log=None)
    await asyncio.get_running_loop().create_server(server, host.strip("[]"), int(port))
    print("ready", address, flush=True)
    await asyncio.Event().wait()


def serve(address: str) -> None:
    """Answer requests, of whatever path, until the process is killed."""
    fix_mapping_threshold()
    uvloop.run(_serve(address))


if __name__ == "__main__":
    serve(sys.argv[1])
