"""Reads the bodies of HTTP requests, and inflates them up to a size and never beyond it.

Encodings are those of the field's OTLP senders (RFC 9110, 8.4.1; RFC 8878 for zstd). `deflate` is zlib data by the RFC,
but some senders leave out its header, so that raw data is taken, too. gzip and zstd data may consist of several parts
(RFC 1952, 2.2: members; RFC 8878, 3.1: frames): all of them are read.
"""

from __future__ import annotations

import asyncio
import sys
import zlib
from collections.abc import Iterator
from typing import Any, Protocol

from sampler_proxy.errors import MalformedRequest, RequestTooLarge
from sampler_proxy.otlp.json_wire import to_wire
from sampler_proxy.otlp.signals import Signal
from sampler_proxy.receive.http_connections import HttpConnection, HttpConnections
from sampler_proxy.receive.inflate import ZSTD_WINDOW_LOG

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ENCODINGS = ("gzip", "deflate", "zstd")
"""What is read beside `identity`, as Accept-Encoding names it."""

BODY_S, MIN_BYTES_PER_S = 20.0, 1000.0
"""How long a body may take: so many seconds, and more of them at this rate of what has come."""

_NOTE_BYTES = 8 * 1024
"""How much has to come before the time is set anew: who sends byte by byte shall cost no timer each."""

MAX_PARTS = 1000
"""Members or frames of one body. Senders that compress piece by piece make a few."""

_STEP = 64 * 1024
"""What is given to a decompressor at once: what it leaves over behind a part is copied."""


class Content(Protocol):
    """The body of a request, as aiohttp's StreamReader has it."""

    def is_eof(self) -> bool: ...

    def exception(self) -> BaseException | None: ...

    def read_nowait(self) -> bytes: ...

    async def readany(self) -> bytes: ...


class Stalled(Exception):
    """A body that does not come in time."""


class Crowded(Exception):
    """A body that was ended since all requests together held too much, and it most."""


class Damaged(MalformedRequest):
    """Compressed data that cannot be read whole."""


class Lost(Exception):
    """A body whose connection has gone."""


async def read(
    content: Content, max_bytes: int, connections: HttpConnections, connection: HttpConnection
) -> list[bytes]:
    """Return the body of a request, as it came. Raises Stalled, Crowded, Lost, RequestTooLarge, and MalformedRequest
    where its chunks are none."""
    if content.is_eof() and content.exception() is None:
        body = content.read_nowait()
        if len(body) > max_bytes:
            raise too_large(max_bytes)
        return [body]
    parts: list[bytes] = []
    size = noted = 0
    begun = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(BODY_S) as timeout:
            connections.reading(connection, timeout)
            while part := await content.readany():
                parts.append(part)
                size += len(part)
                if size > max_bytes:
                    raise too_large(max_bytes)
                if not connection.crowded and size - noted >= _NOTE_BYTES:
                    noted = size
                    timeout.reschedule(begun + BODY_S + size / MIN_BYTES_PER_S)
    except TimeoutError:
        raise Crowded if connection.crowded else Stalled from None
    except RequestTooLarge:
        raise
    except Exception as error:  # of aiohttp, which has no common class for what may be wrong with a body
        parts.clear()  # the content keeps the error, which keeps this frame, which keeps the content
        if connection.transport.is_closing() or isinstance(error, ConnectionError):
            raise Lost from None
        raise MalformedRequest("the body of the HTTP request is damaged or incomplete") from None
    finally:
        connections.reading(connection, None)
    return parts


def too_large(max_bytes: int) -> RequestTooLarge:
    """Return the refusal of a body that is larger than it may be, before decompression."""
    return RequestTooLarge(f"more than {max_bytes} bytes")


def decode(parts: list[bytes], encoding: str, max_bytes: int) -> bytes:
    """Return the plain body. `encoding`: one of ENCODINGS, or "" for none. Takes twice `max_bytes` of memory at most,
    beside `parts`.

    Raises RequestTooLarge, and Damaged for compressed data that is damaged, cut short or followed by more.
    """
    data = parts[0] if len(parts) == 1 else b"".join(parts)
    if not encoding:
        return data
    try:
        plain = list(_inflated(data, encoding, max_bytes))
    except (zlib.error, zstd.ZstdError):
        raise Damaged(f"{encoding} data is damaged") from None
    return plain[0] if len(plain) == 1 else b"".join(plain)


def from_json(text: bytes, signal: Signal, max_bytes: int) -> bytes:
    """Return the request of a signal that OTLP/JSON stands for. Raises MalformedRequest with the place of the fault,
    and RequestTooLarge where the message has more than `max_bytes`."""
    return to_wire(text, signal.message, max_bytes)


def _decompressor(encoding: str, data: bytes) -> Any:
    if encoding == "zstd":
        return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG})
    if encoding == "gzip":
        return zlib.decompressobj(16 + zlib.MAX_WBITS)
    # The header of zlib data (RFC 1950, 2.2); no raw data begins so: that would be a stored block, padded with ones.
    has_header = len(data) > 1 and data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0
    return zlib.decompressobj(zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)


def _inflated(data: bytes, encoding: str, max_bytes: int) -> Iterator[bytes]:
    left, parts = max_bytes, 0
    inflator: Any = None
    for at in range(0, len(data), _STEP):
        step = data[at : at + _STEP]
        while step:
            if inflator is None:
                if (parts := parts + 1) > (1 if encoding == "deflate" else MAX_PARTS):
                    raise Damaged(f"{encoding} data is followed by more bytes, or in too many parts")
                inflator = _decompressor(encoding, step)
            plain = inflator.decompress(step, left + 1)  # a byte more, for 0 would be no bound
            left -= len(plain)
            if left < 0:
                raise RequestTooLarge(f"more than {max_bytes} bytes after decompression")
            yield plain
            if not inflator.eof:
                break  # it has taken all of the step, since it was not held up by the bound
            step, inflator = inflator.unused_data, None
    if inflator is not None or not parts:
        raise Damaged(f"{encoding} data is incomplete")
