"""Says of a key that a section does not know which one was meant: of another spelling, of another section, or of
another program. For refusals only."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from sampler_proxy.config.model import key_of, sections
from sampler_proxy.config.yaml_positions import Path

_MODELS = dict(sections())

_ALIKE = 0.72  # of difflib: bufer and buffer are, path and batch are not
_SHORTEST = 3  # characters of a key that may be the beginning of another

_MEANT = {  # ours, in the order in which they are looked for: a section has few of them -> other words
    "match": "query filter condition conditions expression where traceql when",
    "unless": "except exclude not unless_match",
    "keep": "sample sampling rate percentage probability sampling_percentage sampling_rate action decision verdict",
    "target": "traces spans goal max_rate",
    "per": "group_by by fields key_by",
    "endpoint": "url uri address addr host port listen bind server hostport",
    "give_up": "max_elapsed_time max_time total_timeout",
    "decision_wait": "wait timeout decision_timeout trace_timeout",
    "max_bytes": "size capacity limit memory max_size max_memory num_traces max_traces queue_size limit_mib",
    "path": "dir directory folder file filename",
    "protocol": "type exporter",
    "client_ca_file": "client_ca client_cacert clients_ca",
    "ca_file": "ca cacert ca_cert ca_pem root_ca",
    "cert_file": "cert certificate cert_pem certificate_file crt tls_cert",
    "key_file": "key private_key key_pem private_key_file tls_key",
    "auth": "authentication authenticator authorization credentials",
    "bearer_tokens": "bearer bearertokenauth tokens bearer_token",
    "basic": "basicauth basic_auth htpasswd users",
    "when_full": "on_full overflow full",
    "concurrency": "workers num_consumers parallelism num_workers",
    "root": "root_span local_root",
    "name": "id label",
    "traces": "rate traces_per_second max_traces_per_second",
    "rules": "policies sampling samplers tail_sampling processors",
    "export": "destinations destination outputs output sinks backends backend",
    "receive": "inputs input listen server",
    "redact": "redaction masking mask",
}
_BY_WORD: dict[str, list[str]] = {}
for _ours, _others in _MEANT.items():
    for _word in _others.split():
        _BY_WORD.setdefault(_word.replace("_", ""), []).append(_ours)

_LEVEL = "write it into the command, as in sampler-proxy run --log-level debug"
_INSTEAD = {  # first key of the path: key -> what is to be done
    "export": {"insecure": "remove it, http://host:port is without TLS and https://host:port with it"},
    "receive": {
        "otlp": "write grpc here, in the place of otlp",
    },
    "rules": {"percentage": "a percentage is written without target, as in keep: 1%"},
    "log_level": {"loglevel": _LEVEL},
    "logging": {"logging": _LEVEL},
    "log": {"log": _LEVEL},
}


def advice(path: Path, tagged: Path) -> str:
    """Say what to write instead of an unknown key, as the end of a message. `path` is that of the key in the file,
    `tagged` the same with the tags of unions."""
    key, holder, keys = str(path[-1]), _section(tagged[:-1]), keys_of(tagged[:-1])
    if instead := _INSTEAD.get(str(path[0]), {}).get(_plain(key)):
        return instead
    if meant := _meant(key, keys):
        return f"did you mean '{meant}'?"
    return _other_section(key, holder) or f"known here are {', '.join(keys)}"


def keys_of(tagged: Path) -> list[str]:
    """Return the keys that the section at a path has."""
    model = _MODELS[_section(tagged)]
    return [key_of(model, name) for name in model.model_fields]


def _section(tagged: Path) -> tuple[str, ...]:
    return tuple(step for step in tagged if isinstance(step, str))


def _plain(key: str) -> str:
    return key.replace("_", "").replace("-", "").replace(".", "").lower()


def _meant(key: str, keys: Sequence[str]) -> str | None:
    """Return the one of `keys` that another key most likely means; None: none of them."""
    plain = {_plain(one): one for one in keys}
    word = _plain(key)
    if word in plain:
        return plain[word]
    for ours in _BY_WORD.get(word, ()):
        if ours in keys:
            return ours
    for one, known in plain.items():
        if min(len(one), len(word)) >= _SHORTEST and (one.startswith(word) or word.startswith(one)):
            return known
    near = difflib.get_close_matches(word, plain, 1, _ALIKE)
    return plain[near[0]] if near else None


def _other_section(key: str, holder: tuple[str, ...]) -> str | None:
    """Say in which other section a key belongs: below this one, above it, or the only one that has it."""
    found = [
        section
        for section, model in sections()
        if section != holder and any(key_of(model, name) == key for name in model.model_fields)
    ]
    if holder[:1] == ("export",):
        tags = [section[1] for section in found if len(section) == len(holder) == 2 and section[0] == "export"]
        if tags:
            return f"it is known with `protocol: {tags[0]}`"
    near = [section for section in found if section[: len(holder)] == holder] or found
    if holder == ("receive",) and len(near) == 2:
        return f"it belongs into {' or '.join('.'.join(section) for section in near)}"
    if len(near) != 1:
        return None
    names = [step for step in near[0] if step not in ("grpc", "file", "adaptive") or near[0][0] == "receive"]
    return f"it belongs into {'.'.join(names)}" if names else "it belongs to the first level of the file"
