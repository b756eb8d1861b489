"""Configuration files: a ConfigError with positions in the file, or something that can run.

No message says what an environment variable holds.
"""

from __future__ import annotations

import os
import tempfile

from sampler_proxy.config.check import check
from sampler_proxy.errors import ConfigError

HELD = "zebra-9f86d081"  # in a variable; no input has it
ENVIRON = {"A": HELD, "B": "5s", "C": "a: [", "D": ""}


def one(data: bytes) -> None:
    if HELD.encode() in data:
        return
    file, path = tempfile.mkstemp(suffix=".yaml", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    try:
        os.write(file, data)
        os.close(file)
        _check(path, data)
    finally:
        os.unlink(path)


def _check(path: str, data: bytes) -> None:
    try:
        loaded = check(path, ENVIRON)
    except ConfigError as refused:
        faults = refused.faults
        assert faults
    else:
        faults = loaded.warnings
    lines = len(data.decode(errors="replace").splitlines()) + 1
    for fault in faults:
        assert fault.path == path
        assert fault.message
        assert HELD not in fault.message, "a variable's content is in a message"
        assert 0 <= fault.line <= lines
        assert 0 <= fault.column <= len(data) + 1
        assert bool(fault.line) == bool(fault.column)
