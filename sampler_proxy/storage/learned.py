"""Stores learned rates in a folder: read once at start, written whole and atomically, never half.

    rates.json   by rule: level of the rate and demand of each key, under a keyed hash of the key (JSON, one format)
    rates.key    the secret of those hashes, for the owner only: without it a hash says nothing about a value
    lock         held while a process uses the folder

The file only speeds up a start: one that is damaged, of another format, or older than `MAX_AGE_S` is left alone, with
the reason, and the next save replaces it. `StartError` is raised where the folder cannot be used; a save that fails
raises OSError. All calls block.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from hashlib import blake2b
from typing import IO, NamedTuple

from sampler_proxy.errors import StartError

FORMAT = 1
MAX_AGE_S = 3600.0
"""Older rates are not used: traffic of more than an hour ago says little about traffic to come."""
MAX_FILE_BYTES = 64 << 20
SECRET_BYTES = 32
HASH_BYTES = 16


class Learned(NamedTuple):
    """The learned rates of one rule."""

    level: float
    demands: Mapping[bytes, float]  # per second, by the hash of a key


class UnusableError(Exception):
    """Stored rates that cannot be used; the message says why, for a log."""


class Storage:
    """The folder, locked for this process until `close`."""

    def __init__(self, path: str) -> None:
        """Create the folder if missing, lock it, and read or create the secret. Raises StartError."""
        self._path = path
        try:
            os.makedirs(path, mode=0o700, exist_ok=True)
            self._lock: IO[bytes] = open(os.path.join(path, "lock"), "ab")  # noqa: SIM115 (held until `close`)
        except OSError as error:
            raise StartError(f"storage: {path} cannot be used: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._secret = self._read_secret()
        except BlockingIOError as error:
            self._lock.close()
            raise StartError(f"storage: {path} is used by another process: give each its own folder") from error
        except OSError as error:
            self._lock.close()
            raise StartError(f"storage: {path} cannot be used: {error.strerror}") from error

    def close(self) -> None:
        """Unlock the folder."""
        self._lock.close()

    def fingerprint(self, text: bytes) -> bytes:
        """Hash a text with BLAKE2b (RFC 7693), keyed by the folder's secret: 16 bytes."""
        return blake2b(text, digest_size=HASH_BYTES, key=self._secret).digest()

    def load(self, now_s: float) -> dict[str, Learned]:
        """Read the learned rates, by the identity of the rules; empty where nothing was saved. `now_s`: since the
        epoch. Raises UnusableError."""
        try:
            with open(self._name, "rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise UnusableError(f"it cannot be read: {error.strerror}") from error
        if len(content) > MAX_FILE_BYTES:
            raise UnusableError("it is too large")
        try:
            document = json.loads(content)
            if document["format"] != FORMAT:
                raise UnusableError("another version wrote it")
            age_s = now_s - float(document["saved_at"])
            if not -MAX_AGE_S <= age_s <= MAX_AGE_S:
                raise UnusableError("it is too old")
            return {str(rule): _learned(value) for rule, value in document["rules"].items()}
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise UnusableError("it is damaged") from error

    def save(self, learned: Mapping[str, Learned], now_s: float) -> None:
        """Write the learned rates, by the identity of the rules. Raises OSError, and has then left the former file."""
        self._write(self._name, _document(learned, now_s))

    @property
    def _name(self) -> str:
        return os.path.join(self._path, "rates.json")

    def _read_secret(self) -> bytes:
        name = os.path.join(self._path, "rates.key")
        with suppress(FileNotFoundError), open(name, "rb") as file:
            secret = file.read(SECRET_BYTES + 1)
            if len(secret) == SECRET_BYTES:
                return secret
        # None, or a damaged one: hashes made with another secret cannot be recognized, and do no harm.
        secret = os.urandom(SECRET_BYTES)
        self._write(name, [secret])
        return secret

    def _write(self, name: str, content: Iterable[bytes]) -> None:
        new = name + ".new"
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as file:
            file.writelines(content)
            file.flush()
            os.fsync(descriptor)
        os.replace(new, name)
        folder = os.open(self._path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _document(learned: Mapping[str, Learned], now_s: float) -> Iterator[bytes]:
    """Encode as JSON in small pieces: a single call for the whole would hold the GIL for as long as it takes."""
    yield f'{{"format": {FORMAT}, "saved_at": {now_s!r}, "rules": {{'.encode()
    for number, (rule, one) in enumerate(learned.items()):
        yield f'{", " if number else ""}{json.dumps(rule)}: {{"level": {one.level!r}, "demands": {{'.encode()
        for place, (key, demand) in enumerate(one.demands.items()):
            yield f'{", " if place else ""}"{key.hex()}": {demand!r}'.encode()
        yield b"}}"
    yield b"}}\n"


def _learned(value: Mapping[str, object]) -> Learned:
    """Decode the learned rates of one rule. Raises ValueError, TypeError, KeyError."""
    demands = value["demands"]
    if not isinstance(demands, dict):
        raise TypeError
    found = {bytes.fromhex(key): _number(demand) for key, demand in demands.items()}
    if any(len(key) != HASH_BYTES for key in found):
        raise ValueError
    return Learned(_number(value["level"]), found)


def _number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or value < 0:
        raise ValueError
    return float(value)
