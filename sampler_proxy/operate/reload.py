"""Reloads the configuration file: checks it when it changes and when asked to, and applies a file without faults.

A change shows as a file system event on the file or on a symbolic link that leads to it (a mounted Kubernetes ConfigMap
swaps the link `..data`); where such events do not come, within `POLL_S`. The content decides: equal bytes change
nothing. Only a file without faults has any effect, and only `RELOADED` keys have one on a running service; other keys
that changed are named in the log, for a restart. A failure of any kind leaves everything as it is.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import aclosing
from functools import partial
from typing import NamedTuple

import structlog
from watchfiles import Change, awatch

from sampler_proxy.config.check import Loaded
from sampler_proxy.config.file import contents
from sampler_proxy.config.model import Config, Rule, key_of
from sampler_proxy.errors import ConfigError
from sampler_proxy.operate.messages import MAX_LOGGED, iso_time, log_faults
from sampler_proxy.settings import Section

POLL_S = 5.0
"""How often the file is checked where no events come."""

SETTLE_S = 0.2
"""A file that is being written is read when it has not changed for this long."""

SETTLE_TRIES = 25
"""After so many changes in a row the file is read as it is."""

RELOADED = ("rules", "limit", "redact")
"""Keys that a running service takes over."""

OUTCOMES = ("applied", "unchanged", "failed")
"""Label values of `config_reloads_total`."""

MAX_LINKS = 40  # as in Linux

log = structlog.get_logger()
logging.getLogger("watchfiles").setLevel(logging.WARNING)  # below, the library logs numbers of changes


class Active(NamedTuple):
    """The rule set in force."""

    version: str
    loaded_s: float  # since the epoch
    path: str | None
    rules: tuple[Rule, ...]  # as written

    def describe(self) -> dict[str, object]:
        """Describe the rule set as JSON values."""
        return {
            "version": self.version,
            "loaded_at": iso_time(self.loaded_s),
            "source": self.path,
            "rules": [
                {
                    "name": rule.name,
                    "match": rule.match,
                    "unless": rule.unless,
                    "keep": _shown(rule)["keep"],
                    **({"to": list(rule.to)} if rule.to else {}),
                }
                for rule in self.rules
            ],
        }


class Reloader:
    """Watches the file and applies its changes. `load` reads and checks the file (ConfigError); `apply` puts a sound
    one into force, and is told which of the `RELOADED` keys have changed. Both are called on other threads, one call at
    a time. `clock` tells seconds since the epoch. Attributes change on the loop's thread only.
    """

    def __init__(
        self,
        loaded: Loaded,
        load: Callable[[], Loaded],
        apply: Callable[[Loaded, Collection[str]], object],
        clock: Callable[[], float],
    ) -> None:
        self._path = loaded.path
        self._content = loaded.content
        self._load = load
        self._apply = apply
        self._clock = clock
        self._started_with = loaded.config
        self.applied = loaded.config
        """The configuration whose `RELOADED` keys are in force; `redact` is its policy."""
        self.redact = loaded.redact
        self._asked = False
        self._wake = asyncio.Event()
        self.active = self._active(loaded)
        self.reloads = dict.fromkeys(OUTCOMES, 0)
        self.faults: tuple[str, ...] = ()
        """Why the last reload failed; empty if it was successful."""
        self.pending: tuple[str, ...] = ()
        """Keys whose new values wait for a restart."""

    async def run(self) -> None:
        """Watch and reload until cancelled; without a file, only log that there is none when asked to reload."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._loop())
            if self._path is not None:
                tasks.create_task(self._watch(self._path))

    def ask(self) -> None:
        """Check the file now, and log the outcome even where nothing has changed."""
        self._asked = True
        self._wake.set()

    def detail(self) -> dict[str, object]:
        """Describe what differs from the file, as JSON values: a failed reload, keys that wait for a restart."""
        found: dict[str, object] = {}
        if self.faults:
            found["reload"] = {"failed": self.faults[:MAX_LOGGED], "rules": self.active.version}
        if self.pending:
            found["restart_to_apply"] = self.pending
        return found

    async def _loop(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            asked, self._asked = self._asked, False
            if self._path is None:
                log.warning("there is no configuration file to reload")
            else:
                await self._check(self._path, asked)

    async def _watch(self, path: str) -> None:
        while True:
            names = links(path)
            folders = {os.path.dirname(name) for name in names}
            try:
                changes = awatch(
                    *folders,
                    watch_filter=partial(_is_one_of, names),
                    recursive=False,
                    rust_timeout=int(POLL_S * 1000),
                    yield_on_timeout=True,
                )
                self._wake.set()  # for changes from before the watch stood
                async with aclosing(changes):
                    async for _ in changes:
                        self._wake.set()
                        if links(path) != names:
                            break
            except (OSError, RuntimeError):  # a folder that is not there now, or no watches left: `watchfiles` has both
                await asyncio.sleep(POLL_S)

    async def _check(self, path: str, asked: bool) -> None:
        content = await asyncio.to_thread(_contents, path)
        if content == self._content and not (asked and self.faults):
            if asked:
                self.reloads["unchanged"] += 1
                log.info("nothing to reload: the configuration has not changed", rules=self.active.version)
            else:
                log.debug("the content of the configuration has not changed")
            return
        try:
            outcome = await self._reload(path, content)
            self.faults = ()
        except ConfigError as error:
            outcome = "failed"
            self.faults = tuple(str(fault).partition("\n")[0] for fault in error.faults)
            log_faults("error", error.faults)
        except Exception as error:  # a fault of ours; the service goes on as it was
            outcome = "failed"
            self.faults = (f"{path}: {type(error).__name__}",)
            log.error("reload failed", error=type(error).__name__)
        self.reloads[outcome] += 1
        if self.faults:
            log.error("configuration not reloaded: the active rules stay", rules=self.active.version)

    async def _reload(self, path: str, content: bytes | None) -> str:
        for _ in range(SETTLE_TRIES):
            await asyncio.sleep(SETTLE_S)
            before, content = content, await asyncio.to_thread(_contents, path)
            if content == before:
                break
        self._content = content
        loaded = await asyncio.to_thread(self._load)
        self._content = loaded.content
        self.pending = tuple(changed_keys(self._started_with, loaded.config))
        changed = [key for key in RELOADED if getattr(loaded.config, key) != getattr(self.applied, key)]
        if loaded.redact != self.redact and "redact" not in changed:
            changed.append("redact")  # the key, in a file of its own
        version = version_of(loaded.config.rules)
        if changed:
            await asyncio.to_thread(self._apply, loaded, changed)
            self.applied = loaded.config
            log_faults("warning", loaded.warnings)
            self.redact = loaded.redact
        *first, last = changed or [""]
        named = f"{', '.join(first)}{' and ' if first else ''}{last}"
        if "rules" in changed:
            active = self._active(loaded)
            log.info(f"{named} reloaded", rules=active.version, before=self.active.version, count=len(active.rules))
            self.active = active
        elif changed:
            log.info(f"{named} reloaded: the rules have not changed", rules=version)
        else:
            log.info("configuration reloaded: the rules have not changed", rules=version)
        if self.pending:
            log.warning(f"{', '.join(self.pending)}: restart to apply")
        return "applied" if changed else "unchanged"

    def _active(self, loaded: Loaded) -> Active:
        return Active(version_of(loaded.config.rules), self._clock(), loaded.path, loaded.unexpanded)


def _contents(path: str) -> bytes | None:
    """Read the file; None where it cannot be read, which `load` will say."""
    try:
        return contents(path)
    except ConfigError:
        return None


def _is_one_of(names: frozenset[str], _: Change, name: str) -> bool:
    return name in names


def version_of(rules: Sequence[Rule]) -> str:
    """Hash the rules, references expanded: equal rules have equal versions, on every replica."""
    text = json.dumps([rule.model_dump(mode="json") for rule in rules], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _shown(rule: Rule) -> dict[str, object]:
    return rule.model_dump(mode="json", by_alias=True, exclude_none=True)


def changed_keys(old: Section, new: Section, prefix: str = "") -> Iterator[str]:
    """Yield the keys, other than those in `RELOADED`, whose values differ, in the order of the model and as in
    `export.tempo.timeout`."""
    for field in type(old).model_fields:
        before, after = getattr(old, field), getattr(new, field)
        key = prefix + key_of(type(old), field)
        if before == after or (isinstance(old, Config) and field in RELOADED):
            continue
        if isinstance(before, Section):
            yield from changed_keys(before, after, key + ".")
        elif isinstance(old, Config) and field == "export" and _kinds(before) == _kinds(after):
            for one, other in zip(before, after, strict=True):
                yield from changed_keys(one, other, f"{key}.{one.name}.")
        else:
            yield key


def _kinds(exports: Sequence[object]) -> list[tuple[type, str]]:
    return [(type(export), export.name) for export in exports]  # type: ignore[attr-defined]


def links(path: str) -> frozenset[str]:
    """Return the file that a path leads to, and every symbolic link on the way: absolute, each in a real folder."""
    found: list[str] = []
    at, parts = "/", deque(os.path.join(os.getcwd(), path).split("/"))
    while parts:
        part = parts.popleft()
        if part == "..":
            at = os.path.dirname(at)
        elif part not in ("", "."):
            name = os.path.join(at, part)
            try:
                target = os.readlink(name) if len(found) < MAX_LINKS else ""
            except OSError:  # no link, or nothing at all
                target = ""
            if target:
                found.append(name)
                parts.extendleft(reversed(target.split("/")))
                at = "/" if target.startswith("/") else at
            else:
                at = name
    return frozenset((*found, at))
