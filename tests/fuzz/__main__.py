"""python -m tests.fuzz [--seconds N] [--keep DIRECTORY] [NAME ...]: a search by coverage, one target after the other.

Ends with 1 if an input failed. Without atheris it says so and ends with 77, as skipped tests do elsewhere.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz import TARGETS, native

HERE = Path(__file__).parent
NATIVE = {
    "scan",
    "redact",
    "json_wire",
}  # what native code does is searched; the others are Python first of all, and faster without
# Searched where it is named: whether a damaged text still announces its secret is for people to judge. Its corpus, and
# damages that are always the same, are tests (tests/redact/test_damage.py).
BY_NAME = {"carriers"}
MAX_BYTES = {
    "scan": 4096,
    "inflate": 1024,
    "json_wire": 2048,
    "opening": 1024,
    "redact": 4096,
    "carriers": 24,
    "traceql": 512,
    "config": 2048,
}
SKIPPED = 77


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"of {', '.join(TARGETS)}; if none is named, all but {', '.join(BY_NAME)}",
    )
    parser.add_argument("--seconds", type=int, default=20, help="for each target")
    parser.add_argument("--keep", type=Path, help="a folder for inputs that reached new code; by default they are lost")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(TARGETS):
        parser.error(f"there is no target {', '.join(sorted(unknown))}")
    if importlib.util.find_spec("atheris") is None:
        print("fuzzing is skipped: atheris is not installed (pip install -e '.[dev,fuzz]')", file=sys.stderr)
        return SKIPPED
    names = arguments.names or [name for name in TARGETS if name not in BY_NAME]
    lib = native.build() if NATIVE & {*names} else None
    if lib is None and NATIVE & {*names}:
        print("no gcc, Cython or setuptools: nothing sees into the native modules, and nothing watches their memory")
    failed = []
    for name in names:
        environ = {**os.environ, **(native.environment(lib) if lib is not None and name in NATIVE else {})}
        if not search(name, arguments.seconds, arguments.keep, environ):
            failed.append(name)
    print(f"failed: {', '.join(failed)}; see tests/fuzz/found" if failed else "no input failed")
    return 1 if failed else 0


def search(name: str, seconds: int, keep: Path | None, environ: dict[str, str]) -> bool:
    """Whether every input passed. Only how it began and ended is shown, or the end of a failure."""
    found = HERE / "found" / name
    found.mkdir(parents=True, exist_ok=True)
    known = set(found.iterdir())
    with tempfile.TemporaryDirectory() as scratch:
        new = Path(scratch) if keep is None else keep.resolve() / name
        new.mkdir(parents=True, exist_ok=True)
        options = {
            "max_total_time": seconds,
            "max_len": MAX_BYTES[name],
            "timeout": 30,
            "rss_limit_mb": 4096,
            "report_slow_units": 30,
            "artifact_prefix": f"{found}/",
        }
        result = subprocess.run(
            [
                *(sys.executable, "-m", "tests.fuzz.search", name),
                *(f"-{option}={value}" for option, value in options.items()),
                *(str(new), str(HERE / "corpus" / name)),
            ],
            cwd=native.TOP,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    lines = result.stdout.splitlines()
    if result.returncode:
        print(f"{name}: failed", *lines[-60:], sep="\n    ", flush=True)
        print(*(f"    {path}" for path in sorted(set(found.iterdir()) - known)), sep="\n", flush=True)
        return False
    print(f"{name}: {next((line for line in reversed(lines) if 'DONE' in line or 'cov:' in line), 'done')}", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
