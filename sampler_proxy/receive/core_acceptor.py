"""Hands connections that this process has accepted itself to a server of gRPC core.

Core takes them at a port named `external:NAME`: while such a port is added, core writes the address of a
`grpc_core::TcpServerFdHandler` to where the channel argument of the same name points (C++'s
`ServerBuilder::experimental().AddExternalConnectionAcceptor` is made of that). That class has one method:

    virtual void Handle(int listener_fd, int fd, grpc_byte_buffer* pending_data) = 0;

Python's grpcio has no call for it, so it is called through the table of virtual functions, where it stands behind the
two entries of the destructor: the Itanium C++ ABI, that of every grpcio wheel but Windows'. `pending_data` is what has
been read of the connection already, laid out as core's public headers say (grpc/impl/grpc_types.h and slice_type.h).

Core promises none of this to Python. It has been so since 2019; pyproject.toml pins grpcio to the range that CI tests,
and `grpc.self_check` tries it before it is relied on.
"""

from __future__ import annotations

import ctypes
import socket

_HANDLE = 2
"""The place of `Handle` in the table of virtual functions."""

_INLINED_BYTES = 23
"""GRPC_SLICE_INLINED_SIZE: what a slice holds without memory of its own."""

_Handle = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_void_p)

_libc = ctypes.CDLL(None)
_libc.malloc.restype = ctypes.c_void_p
_libc.malloc.argtypes = [ctypes.c_size_t]
_libc.free.restype = None
_libc.free.argtypes = [ctypes.c_void_p]


class _Slice(ctypes.Structure):
    """A grpc_slice that is inlined: without a reference count, so that core copies what it keeps."""

    _fields_ = (("refcount", ctypes.c_void_p), ("length", ctypes.c_uint8), ("bytes", ctypes.c_uint8 * _INLINED_BYTES))


def _inlined(data: bytes) -> bytes:
    """Return `data` (not nothing) as an array of slices. Copies columns of bytes, since slices would be many steps."""
    size = ctypes.sizeof(_Slice)
    count = -(-len(data) // _INLINED_BYTES)
    padded = data.ljust(count * _INLINED_BYTES, b"\0")
    slices = bytearray(count * size)
    slices[_Slice.length.offset :: size] = bytes((_INLINED_BYTES,)) * count
    slices[_Slice.length.offset - size] = len(data) - (count - 1) * _INLINED_BYTES
    for i in range(_INLINED_BYTES):
        slices[_Slice.bytes.offset + i :: size] = padded[i::_INLINED_BYTES]
    return bytes(slices)


class _SliceBuffer(ctypes.Structure):
    _fields_ = (
        ("base_slices", ctypes.c_void_p),
        ("slices", ctypes.c_void_p),
        ("count", ctypes.c_size_t),
        ("capacity", ctypes.c_size_t),
        ("length", ctypes.c_size_t),
        ("inlined", _Slice * 3),
    )


class _ByteBuffer(ctypes.Structure):
    """A grpc_byte_buffer of the type GRPC_BB_RAW; the enumerations before the slices are padded to eight bytes."""

    _fields_ = (
        ("reserved", ctypes.c_void_p),
        ("type", ctypes.c_size_t),
        ("compression", ctypes.c_size_t),
        ("slice_buffer", _SliceBuffer),
    )


class CoreAcceptor:
    """The way into one server: create it with `option`, add the port `port`, then `connect`."""

    port = b"external:accepted"

    def __init__(self) -> None:
        self._handler = ctypes.c_void_p()

    def __int__(self) -> int:
        """Return where core writes its handler's address; so grpcio reads the address in a pointer option."""
        return ctypes.addressof(self._handler)

    @property
    def option(self) -> tuple[str, CoreAcceptor]:
        """The channel argument. It keeps this object alive, whose memory core writes to."""
        return self.port.decode(), self

    def connect(self) -> None:
        """Find core's method. Raises RuntimeError where core has left no handler when the port was added, or where
        addresses have not the 64 bits that the layouts below are made for."""
        if not self._handler.value or ctypes.sizeof(ctypes.c_void_p) != 8:
            raise RuntimeError("this grpcio takes no connections from outside")
        table = ctypes.cast(self._handler.value, ctypes.POINTER(ctypes.POINTER(ctypes.c_void_p)))[0]
        self._handle = _Handle(table[_HANDLE] or 0)

    def hand_over(self, listener: socket.socket, connection: socket.socket, received: bytes) -> None:
        """Give core an accepted, non-blocking connection, and what has been read of it (not nothing). Core owns the
        descriptor from then on. From any thread, before the server is told to shut down; the GIL is free meanwhile.

        Raises MemoryError, and then has done nothing.
        """
        inlined = _inlined(received)
        slices = _libc.malloc(len(inlined))
        if not slices:
            raise MemoryError
        ctypes.memmove(slices, inlined, len(inlined))
        count = len(inlined) // ctypes.sizeof(_Slice)
        pending = _ByteBuffer()
        buffer = pending.slice_buffer
        buffer.base_slices = buffer.slices = slices
        buffer.count = buffer.capacity = count
        buffer.length = len(received)
        self._handle(self._handler, listener.fileno(), connection.detach(), ctypes.addressof(pending))
        if buffer.base_slices == slices:  # core has taken the slices one by one, and not the memory with them
            _libc.free(slices)
