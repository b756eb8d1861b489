"""The section `redact`: every refusal at its place, and none of them says what was there."""

from __future__ import annotations

from pathlib import Path

import pytest

from sampler_proxy.config.check import check
from sampler_proxy.errors import ConfigError
from sampler_proxy.redact.section import Action, KeyFile

SECRET = "s3cret-value"
ENVIRON = {"SHORT": SECRET, "KEY": SECRET * 2, "BROKEN": SECRET + "("}

BAD = {
    "unknown key": ("redact: {key: []}", [(1, 10, "unknown key 'key': did you mean 'keys'?")]),
    "preset": ("redact: {preset: strong}", [(1, 18, "write common or strict")]),
    "preset without a value": ("redact:\n  preset:\n", [(2, 10, "no value: write one, or remove the key")]),
    "no match": ("redact: {keys: [{action: mask}]}", [(1, 17, "'match' is missing: write for example")]),
    "no action": ("redact: {keys: [{match: a}]}", [(1, 17, "'action' is missing: write for example `action: mask`")]),
    "unknown key of a rule": (
        "redact: {keys: [{match: a, action: mask, onyl: x}]}",
        [(1, 42, "unknown key 'onyl': did you mean 'only'?")],
    ),
    "action": ("redact: {keys: [{match: a, action: blur}]}", [(1, 36, "write delete, mask, hash or {keep_last: 4}")]),
    "action of a value": (
        "redact: {values: [{detect: card, action: delete}]}",
        [(1, 42, "write mask, hash, keep or {keep_last: 4}")],
    ),
    "keep_last": (
        "redact: {keys: [{match: a, action: {keep_last: 0}}]}",
        [(1, 36, "write a number from 1 to 64: {keep_last: 4}")],
    ),
    "keep_last, and more": (
        "redact: {keys: [{match: a, action: {keep_last: 1, keep_first: 2}}]}",
        [(1, 36, "write delete, mask, hash or {keep_last: 4}")],
    ),
    "RE2 of keys": ("redact:\n  keys:\n  - match: /a(/\n    action: mask", [(3, 12, "not a regular expression (RE2)")]),
    "RE2 from the environment": (
        "redact: {values: [{name: a, pattern: '${env:BROKEN}', action: mask}]}",
        [(1, 38, "not a regular expression (RE2)")],
    ),
    "lookahead": (
        "redact: {values: [{name: a, pattern: '(?=x)', action: mask}]}",
        [(1, 38, "not a regular expression (RE2)")],
    ),
    "pattern that matches nothing": (
        "redact: {values: [{name: a, pattern: 'x*', action: mask}]}",
        [(1, 38, "matches the empty text")],
    ),
    "patterns too long": (
        f"redact: {{values: [{{name: a, pattern: {'x' * 5000}, action: mask}}]}}",
        [(1, 38, "longer than 4096 characters")],
    ),
    "match without a value": ("redact: {keys: [{match: '', action: mask}]}", [(1, 25, "no value: write a glob")]),
    "detector": ("redact: {values: [{detect: cards, action: mask}]}", [(1, 28, "write card or iban or")]),
    "neither detector nor pattern": (
        "redact:\n  values:\n  - {action: mask}",
        [(3, 5, "write either `detect: card`, or `name:` and `pattern:`")],
    ),
    "both": (
        "redact:\n  values:\n  - {detect: card, name: a, pattern: b, action: mask}",
        [(3, 5, "write either `detect: card`, or")],
    ),
    "a pattern without a name": (
        "redact:\n  values:\n  - {pattern: b, action: mask}",
        [(3, 5, "write either `detect: card`, or")],
    ),
    "a detector's name": (
        "redact: {values: [{name: card, pattern: b, action: mask}]}",
        [(1, 26, "the name of something built in: write another")],
    ),
    "a metric's name": (
        "redact: {values: [{name: oversize, pattern: b, action: mask}]}",
        [(1, 26, "the name of something built in: write another")],
    ),
    "two patterns of one name": (
        "redact: {values: [{name: a, pattern: b, action: mask}, {name: a, pattern: c, action: mask}]}",
        [(1, 18, "two patterns under one name: write another")],
    ),
    "allow_only": ("redact: {allow_only: {spans: []}}", [(1, 23, "unknown key 'spans': did you mean 'span'?")]),
    "allow_only without a list": (
        "redact:\n  allow_only:\n    span:\n",
        [(3, 10, "no value: write one, or remove the key")],
    ),
    "allow_only of no list": ("redact: {allow_only: {span: a}}", [(1, 29, "a list is wanted here")]),
    "nothing at all": (
        "rules:\n- {name: a, keep: all}\nredact:\n",
        [(3, 1, "no value: write for example {preset: common}")],
    ),
    "allow_only of nothing": ("redact:\n  allow_only:\n", [(2, 14, "no value, so that all would be allowed")]),
    "only without a value": (
        "redact:\n  keys:\n  - match: a\n    action: mask\n    only:\n",
        [(5, 10, "no value: write one, or remove the key")],
    ),
    "only without a value, of a value": (
        "redact: {values: [{detect: card, action: keep, only: }]}",
        [(1, 53, "no value: write one, or remove the key")],
    ),
    "flags behind the slash": (
        "redact: {keys: [{match: /a/i, action: mask}]}",
        [(1, 25, "begins with a slash, but does not end with one: write /RE2/, with flags inside")],
    ),
    "no slash behind": (
        "redact: {except: [/ab, //a]}",
        [(1, 19, "begins with a slash"), (1, 24, "begins with a slash")],
    ),
    "pattern in except": ("redact: {except: [/a(/]}", [(1, 19, "not a regular expression (RE2)")]),
    "sql": ("redact: {sql: yes}", [(1, 15, "write obfuscate or keep")]),
    "urls": ("redact: {urls: [strip_all]}", [(1, 17, "write strip_query or strip_credentials or strip_ids")]),
    "hash without a key": (
        "redact:\n  keys:\n  - {match: a, action: hash}",
        [(2, 3, "the action hash needs a key: write hash_key: ${env:NAME}")],
    ),
    "short key": ("redact: {hash_key: '${env:SHORT}'}", [(1, 20, "too short to be a secret: write 16 bytes or more")]),
    "key that is not there": ("redact: {hash_key: '${env:NONE}'}", [(1, 21, "NONE is not set")]),
    "key of a file that is not there": (
        "redact: {hash_key: {file: /nowhere}}",
        [(1, 27, "cannot be read: No such file or directory")],
    ),
    "key of another kind": ("redact: {hash_key: {path: /x}}", [(1, 20, "write {file: PATH}")]),
    "marker": ("redact: {marker: 1}", [(1, 18, "write true or false")]),
    "only": (
        "redact:\n  keys:\n  - {match: a, action: mask, only: '{ nmae = `x` }'}",
        [(3, 39, "unknown word nmae")],
    ),
    "only, more than braces": (
        "redact:\n  keys:\n  - {match: a, action: mask, only: '{ name = `x` } | count() > 1'}",
        [(3, 36, "write one pair of braces")],
    ),
    "only without quotes": (
        "redact:\n  keys:\n  - {match: a, action: mask, only: { name = x }}",
        [(3, 36, "put the expression in quotes")],
    ),
    "too many only": (
        "redact:\n  keys:\n"
        + "".join(f"  - {{match: a, action: mask, only: '{{ name = `{i}` }}'}}\n" for i in range(17)),
        [(2, 3, "more than 16 different `only`: write fewer")],
    ),
    "several at once": (
        "redact: {preset: x, keys: [{match: /(/, action: y}], sql: z}",
        [
            (1, 18, "write common or strict"),
            (1, 36, "not a regular expression (RE2)"),
            (1, 49, "write delete, mask"),
            (1, 59, "write obfuscate or keep"),
        ],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_refusals(name: str, tmp_path: Path) -> None:
    text, expected = BAD[name]
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as refused:
        check(str(file), ENVIRON)
    faults = [(fault.line, fault.column, fault.message) for fault in refused.value.faults]
    assert [fault[:2] for fault in faults] == [one[:2] for one in expected], faults
    for fault, one in zip(faults, expected, strict=True):
        assert one[2] in fault[2]
    assert SECRET not in str(refused.value)


def test_the_libraries_do_not_say_it_either(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """RE2 would write the pattern to stderr by itself."""
    file = tmp_path / "c.yaml"
    file.write_text(
        "redact: {keys: [{match: '/${env:BROKEN}/', action: mask}], except: ['/${env:BROKEN}/'],"
        " values: [{name: a, pattern: '${env:BROKEN}', action: mask}]}"
    )
    with pytest.raises(ConfigError) as refused:
        check(str(file), ENVIRON)
    assert len(refused.value.faults) == 3
    assert capfd.readouterr() == ("", "")


def test_a_short_key_in_a_file(tmp_path: Path) -> None:
    key, file = tmp_path / "key", tmp_path / "c.yaml"
    file.write_text(f"redact:\n  hash_key: {{file: {key}}}\n  keys: [{{match: a, action: hash}}]\n")
    for content, message in ((b"short-secret\n", "too short"), (b"x" * 5000, "larger than 4KiB")):
        key.write_bytes(content)
        with pytest.raises(ConfigError) as refused:
            check(str(file), {})
        (fault,) = refused.value.faults
        assert (fault.line, fault.column) == (2, 20)
        assert message in fault.message
        assert "short-secret" not in fault.message
    key.write_bytes(b"0123456789abcdef\r\n")
    loaded = check(str(file), {})
    assert loaded.redact is not None
    assert loaded.redact.hash_key == b"0123456789abcdef"
    assert loaded.config.redact.hash_key == KeyFile(str(key))
    again = check(str(file), {}).redact
    assert again == loaded.redact
    key.write_bytes(b"another key of 16 bytes")
    assert check(str(file), {}).redact != loaded.redact


def test_a_sound_section(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(
        "redact:\n  preset: common\n  keys:\n  - {match: a, action: {keep_last: 4}}\n"
        "  values:\n  except: [b]\n  urls: []\n  hash_key: ${env:KEY}\n  marker: true\n"
    )
    loaded = check(str(file), ENVIRON)
    section = loaded.config.redact
    assert section.keys[0].action == Action("keep_last", 4)
    assert (section.values, section.except_, section.urls, section.marker) == ((), ("b",), (), True)
    assert loaded.redact is not None
    assert loaded.redact.hash_key == (SECRET * 2).encode()
    assert SECRET not in repr(section)


@pytest.mark.parametrize(
    "text",
    [
        "redact: {}",
        "redact: {keys: [], values: [], except: [a], marker: true, sql: keep, urls: []}",
        "redact: {values: [{detect: card, action: keep}]}",
        "redact: {hash_key: 0123456789abcdef}",
    ],
)
def test_off_unless_there_is_something_to_do(text: str, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    assert check(str(file), {}).redact is None


def test_an_allow_list_of_nothing(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    for text, expected in (("preset: common, ", [(1, 38)]), ("", [])):
        file.write_text(f"redact: {{{text}allow_only: {{}}}}")
        warnings = check(str(file), {}).warnings
        assert [(warning.line, warning.column) for warning in warnings] == expected
        assert all("nothing is listed here" in warning.message for warning in warnings)


@pytest.mark.parametrize(
    "text", ["{preset: common}", "{sql: obfuscate}", "{urls: [strip_ids]}", "{allow_only: {span: []}}"]
)
def test_on_where_there_is_something_to_do(text: str, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"redact: {text}")
    assert check(str(file), {}).redact is not None
