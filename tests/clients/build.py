"""Builds the clients of tests.clients whose tools are there, each into a folder of its own.

usage: python -m tests.clients.build FOLDER [CLIENT...]

Their packages are those of the lock files, from the registries that npm, Go and Maven are set up for, and everything
that is fetched stays in FOLDER. Exits with 1 if a client whose tools are there could not be built.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

SOURCES = Path(__file__).parent
BUILDER = "v0.165.0"
MAVEN = "org.apache.maven.plugins:maven-dependency-plugin:3.11.0:copy-dependencies"


class Missing(Exception):
    """A tool that is not on this machine."""


def tool(name: str) -> str:
    """Return the path of a program. Raises Missing."""
    found = shutil.which(name)
    if found is None:
        raise Missing(name)
    return found


def run(folder: Path, *command: str, **variables: str) -> None:
    """Run a command in a folder. Raises subprocess.CalledProcessError."""
    subprocess.run(command, cwd=folder, check=True, env={**os.environ, **variables}, stdin=subprocess.DEVNULL)


def javascript(folder: Path) -> None:
    """Install the packages beside the sources, and bundle the script of the web page with them."""
    tool("node")
    quiet = ("--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
    run(folder, tool("npm"), "ci", *quiet, npm_config_cache=str(folder.parent / "cache" / "npm"))
    bundler = str(folder / "node_modules" / ".bin" / "esbuild")
    run(folder, bundler, "page.mjs", "--bundle", "--format=esm", "--outfile=page.js", "--log-level=warning")


def _go(folder: Path, *arguments: str) -> None:
    cache = folder.parent / "cache"
    variables = {
        "GOPATH": str(cache / "go"),
        "GOCACHE": str(cache / "go-build"),
        "GOFLAGS": "-modcacherw -buildvcs=false",
        "CGO_ENABLED": "0",
    }
    run(folder, tool("go"), *arguments, **variables)


def go(folder: Path) -> None:
    """Build the client, and grpcurl."""
    _go(folder, "build", "-o", "send", ".")
    _go(folder, "build", "-o", "grpcurl", "github.com/fullstorydev/grpcurl/cmd/grpcurl")


def collector(folder: Path) -> None:
    """Build a Collector of the parts that its file names."""
    _go(folder, "run", f"go.opentelemetry.io/collector/cmd/builder@{BUILDER}", "--config=builder.yaml")
    (folder / "source" / "otelcol").rename(folder / "otelcol")


def java(folder: Path) -> None:
    """Copy the libraries and compile the client."""
    repository = folder.parent / "cache" / "maven"
    compiler = tool("javac")
    run(folder, tool("mvn"), "-q", "-B", MAVEN, "-DoutputDirectory=.", f"-Dmaven.repo.local={repository}")
    run(folder, compiler, "-cp", "*", "-encoding", "UTF-8", "Send.java")


BUILDERS: dict[str, Callable[[Path], None]] = {"js": javascript, "go": go, "java": java, "collector": collector}


def main() -> int:
    """Build all clients, or those that are named."""
    target = Path(sys.argv[1]).resolve()
    failed = 0
    for name in sys.argv[2:] or BUILDERS:
        begun = time.monotonic()
        folder = target / name
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(SOURCES / name, folder)
        try:
            BUILDERS[name](folder)
        except Missing as missing:
            print(f"{name}: not built, there is no {missing} here", flush=True)
            shutil.rmtree(folder)
        except subprocess.CalledProcessError as error:
            print(f"{name}: not built: {error}", flush=True)
            shutil.rmtree(folder)
            failed = 1
        else:
            print(f"{name}: built in {time.monotonic() - begun:.0f} s", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
