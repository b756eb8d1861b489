"""Headers from files: what is refused for its credentials waits until the file has better ones."""

from __future__ import annotations

import asyncio
import logging
import os

import grpc
import pytest

from sampler_proxy.config.model import GrpcExport
from sampler_proxy.errors import StartError
from sampler_proxy.export.headers import MAX_BYTES, Headers, UnusableError
from sampler_proxy.settings import HeaderFile
from tests.export.support import counts, offer, until
from tests.export.test_otlp_grpc import config, exporting

SECRET = "s3cr3t-t0ken"


@pytest.mark.parametrize("by", ["writing", "renaming", "swapping a link"])
@pytest.mark.parametrize("code", [grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED])
def test_refused_credentials_wait_for_new_ones(run, backend, tmp_path, caplog, by, code):
    caplog.set_level(logging.INFO, "sampler_proxy")

    def answer(_request, context):
        metadata = {pair.key: pair.value for pair in context.invocation_metadata()}
        if metadata["authorization"] != f"Bearer {SECRET}":
            context.abort(code, f"no such token: {metadata['authorization']}")

    server = backend(answer)
    file = tmp_path / "token"
    (tmp_path / "old").write_text("wr0ng\n")
    if by == "swapping a link":
        file.symlink_to(tmp_path / "old")
    else:
        (tmp_path / "old").rename(file)

    def rotate():
        new = tmp_path / "new"
        new.write_text(f"{SECRET}\n")
        if by == "writing":
            file.write_text(f"{SECRET}\n")
        elif by == "renaming":
            new.rename(file)
        else:
            (tmp_path / "link").symlink_to(new)
            os.replace(tmp_path / "link", file)

    async def scenario():
        headers = {"Authorization": HeaderFile(str(file), "Bearer ")}
        async with exporting(config(server.port, headers=headers, initial_ms=60_000, max_ms=60_000)) as exporter:
            offer(exporter, range(1, 201))
            await until(lambda: exporter.failed_tries)
            rotate()
            await until(lambda: exporter.queue.empty)
            assert counts(exporter) == (400, 0, {})

    run(scenario())
    assert "headers read again" in caplog.text
    assert "refuses" in caplog.text
    assert SECRET not in caplog.text
    assert "wr0ng" not in caplog.text


def test_a_file_that_is_gone_leaves_the_headers_as_they_were(run, backend, tmp_path, caplog):
    server = backend()
    file = tmp_path / "token"
    file.write_text("one")

    async def scenario():
        async with exporting(config(server.port, headers={"x-token": HeaderFile(str(file))})) as exporter:
            file.unlink()
            await until(lambda: "headers stay as they were: cannot read" in caplog.text)
            offer(exporter, [1])
            await until(lambda: exporter.queue.empty)

    run(scenario())
    assert server.seen[0].metadata["x-token"] == "one"


@pytest.mark.parametrize("content", [None, b"", b"\n", b"a\nb", b"\x00", "\u00fc".encode(), b"x" * (MAX_BYTES + 1)])
def test_files_that_cannot_be_used(tmp_path, content):
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)

    async def scenario():
        headers = {"x-token": HeaderFile(str(file))}
        with pytest.raises(StartError, match=r"export tempo: .*token"):
            async with exporting(config(1, headers=headers)):
                pass

    asyncio.run(scenario())


def test_only_what_changed_is_told(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("1\r\n")
    two.write_text("2")
    headers = Headers({"A": HeaderFile(str(one), "p "), "b": HeaderFile(str(two)), "C": "3"})
    assert headers.changed_since([]) == []
    headers.read()
    items = headers.items()
    assert headers.changed_since([]) == [str(one), str(two)]
    assert dict(items) == {"a": "p 1", "b": "2", "c": "3"}
    headers.read()
    assert headers.changed_since(items) == []
    two.write_text("22")
    headers.read()
    assert headers.changed_since(items) == [str(two)]


@pytest.mark.parametrize("unusable", [None, b"", b"\x00"])
@pytest.mark.parametrize("broken", ["a", "b"])
def test_a_file_that_cannot_be_used_hides_no_other(tmp_path, broken, unusable):
    files = {"a": tmp_path / "a", "b": tmp_path / "b"}
    for file in files.values():
        file.write_text("old")
    headers = Headers({name: HeaderFile(str(file)) for name, file in files.items()})
    headers.read()
    items = headers.items()
    (good,) = files.keys() - {broken}
    files[good].write_text("newer")
    files[broken].unlink()
    if unusable is not None:
        files[broken].write_bytes(unusable)
    for _ in range(2):  # not only the first time
        with pytest.raises(UnusableError, match=str(files[broken])):
            headers.read()
        assert headers.changed_since(items) == [str(files[good])]
    assert dict(headers.items()) == {good: "newer", broken: "old"}


def test_all_files_that_cannot_be_used_are_named(tmp_path):
    headers = Headers({name: HeaderFile(str(tmp_path / name)) for name in "ab"})
    with pytest.raises(UnusableError, match=r"cannot read .*/a: .*; cannot read .*/b: "):
        headers.read()


@pytest.mark.parametrize("readable_again", [False, True])
def test_a_token_is_rotated_while_another_file_cannot_be_read(run, backend, tmp_path, caplog, readable_again):
    caplog.set_level(logging.INFO, "sampler_proxy")
    server = backend()
    token, tenant = tmp_path / "token", tmp_path / "tenant"
    token.write_text("one")
    tenant.write_text("7")

    async def scenario():
        headers = {"x-token": HeaderFile(str(token)), "x-tenant": HeaderFile(str(tenant))}
        async with exporting(config(server.port, headers=headers)) as exporter:
            tenant.unlink()
            token.write_text("second")
            await until(lambda: "headers stay as they were: cannot read" in caplog.text)
            if readable_again:
                tenant.write_text("7")
            await until(lambda: f"headers read again from {token}" in caplog.text)
            offer(exporter, [1])
            await until(lambda: exporter.queue.empty)

    run(scenario())
    assert server.seen[0].metadata["x-token"] == "second"
    assert server.seen[0].metadata["x-tenant"] == "7"


@pytest.mark.parametrize(
    "value", [{}, {"file": ""}, {"file": 1}, {"path": "x"}, {"file": "x", "more": "y"}, {"file": "x", "prefix": "\n"}]
)
def test_what_is_no_header(value):
    with pytest.raises(ValueError, match=r"write|line"):
        GrpcExport(name="a", endpoint="http://a:1", headers={"x": value})


def test_as_it_is_written():
    written = {"file": "/run/secrets/token", "prefix": "Bearer "}
    export = GrpcExport(name="a", endpoint="http://a:1", headers={"authorization": written, "x": "y"})
    assert export.headers["authorization"] == HeaderFile("/run/secrets/token", "Bearer ")
    assert export.model_dump(mode="json")["headers"] == {"authorization": written, "x": "y"}
