"""The examples of destinations that are shipped: each can be used as it stands, and says where its facts come from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sampler_proxy.config.check import check
from sampler_proxy.config.model import OtlpExport

TOP = Path(__file__).parent.parent.parent
FOLDER = TOP / "deploy" / "destinations"
FILES = sorted(FOLDER.glob("*.yaml"))
VENDORS = {"datadog", "elastic", "grafana-cloud", "honeycomb", "new-relic", "sentry", "signoz"}
OWN = {"archive", "collector", "jaeger", "tempo", "zipkin"}
SECRET = "s3cr3t"
ALTERNATIVE = re.compile(r"(?m)^( +)#((\w+):.*)$")


def variables(text: str) -> list[str]:
    return re.findall(r"\$\{env:([A-Z_]+)\}", re.sub(r"(?m)^\s*#.*$", "", text))


def test_every_destination_is_there() -> None:
    assert {path.stem for path in FILES} == VENDORS | OWN


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_can_be_used(path: Path) -> None:
    """With nothing but its credentials in the environment, and without a warning."""
    text = path.read_text()
    names = variables(text)
    loaded = check(str(path), dict.fromkeys(names, SECRET))
    assert loaded.warnings == ()
    main = [export for export in loaded.config.export if export.name == path.stem]
    assert len(main) == 1
    (export,) = main
    if path.stem in VENDORS:
        assert isinstance(export, OtlpExport)
        assert export.url.startswith("https://")
        assert any(SECRET in str(value) for value in export.headers.values())
        assert re.search(r"(?m)^# Source: ", text)
    else:
        assert not names
    assert text.startswith("# ")


WITH_ALTERNATIVES = [path for path in FILES if ALTERNATIVE.search(path.read_text())]


@pytest.mark.parametrize("path", WITH_ALTERNATIVES, ids=lambda path: path.stem)
def test_what_is_commented_out_is_sound_too(path: Path, tmp_path: Path) -> None:
    """The alternatives of a key, written as `#key:`, in the place of the key."""
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines):
        if (found := ALTERNATIVE.match(line)) is None:
            continue
        indent, text, key = found.groups()
        # Take out the same key above it in the same entry.
        for other in range(number - 1, -1, -1):
            if lines[other].startswith(f"{indent}{key}:"):
                lines[other] = ""
            if lines[other].lstrip().startswith("- "):
                break
        lines[number] = indent + text
    file = tmp_path / path.name
    file.write_text("\n".join(lines))
    loaded = check(str(file), dict.fromkeys(variables("\n".join(lines)), SECRET))
    assert loaded.warnings == ()


def test_tempo_gets_the_slack_that_its_waits_need() -> None:
    text = (FOLDER / "tempo.yaml").read_text()
    (slack,) = re.findall(r"metrics_ingestion_time_range_slack: (\d+)s", text)
    waits = check(str(FOLDER / "tempo.yaml"), {}).config.buffer
    assert int(slack) * 10**9 >= waits.decision_wait_ns + 60 * 10**9
    assert text.count("enable_tracestate_span_multiplier: true") == 2
