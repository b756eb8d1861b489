"""python -m tests.sanitize [PYTEST ARGUMENT ...]: tests with the native modules under AddressSanitizer and UBSan.

gcc builds the native modules once more, with checks of every access to memory and of what C leaves undefined: signed
overflow, shifts and conversions out of range, unaligned reads, NULL where a function wants none (`nonnull`). Then
pytest runs what calls them in its own process: the corpus of the fuzz targets with mutations of it, and the tests of
the native rooms, with few examples of each property. Ends with 1 if a test failed or a sanitizer had something to say,
which is printed once for each place; with 77 without gcc. Takes about ten minutes; name a test for less.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.fuzz import native

FOLDER = native.TOP / "build" / "sanitize"
REPORTS = FOLDER / "reports.txt"
FLAGS = f"{native.WATCHED} -fno-wrapv -fsanitize=undefined,float-cast-overflow"
SKIPPED = 77
TESTS = ("tests/fuzz", "tests/otlp", "tests/pipeline", "tests/redact", "tests/rules")
UNFIT = (  # they bound or replace the memory that a sanitizer needs for itself
    "tests/otlp/test_json_memory.py",
    "tests/pipeline/test_buffer_memory.py",
    "tests/pipeline/test_failing_allocations.py",
    "tests/pipeline/test_out_of_memory.py",
)
PLACE = re.compile(r"\S+:\d+:\d+: runtime error: .*|.*ERROR: AddressSanitizer.*")


def main() -> int:
    if shutil.which("gcc") is None:
        print("skipped: there is no gcc", file=sys.stderr)
        return SKIPPED
    lib = native.compiled(FOLDER, FLAGS)
    chosen = sys.argv[1:] or [*TESTS, *(f"--ignore={path}" for path in UNFIT)]
    # Reports go to the file descriptor of stderr, which pytest leaves alone so, and finds these modules first.
    options = ("-q", "--capture=sys", "-o", f"pythonpath={lib}", "--hypothesis-profile=quick")
    plugins = ("-p", "no:cacheprovider", "-p", "no:faulthandler")
    command = [sys.executable, "-m", "pytest", *options, *plugins, *chosen]
    with REPORTS.open("w") as errors:
        result = subprocess.run(command, cwd=native.TOP, env={**os.environ, **environment(lib)}, stderr=errors)
    found = reports(REPORTS.read_text(errors="replace"))
    print(*found.values(), f"places with a report: {len(found)}", sep="\n")
    return 1 if found or result.returncode else 0


def environment(lib: Path) -> dict[str, str]:
    """Return the variables of a process that is to use these modules and goes on after a report of UBSan."""
    return {
        "LD_PRELOAD": " ".join(map(native.library, ("libasan.so", "libubsan.so", "libstdc++.so"))),
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:handle_segv=0:verify_asan_link_order=0"
        ":quarantine_size_mb=64",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONMALLOC": "malloc",  # each object a block of its own
        "PYTHONPATH": f"{lib}{os.pathsep}{native.TOP}",
        "PYTHONSAFEPATH": "1",  # else the current folder's package is found before
    }


def reports(text: str) -> dict[str, str]:
    """Return the beginning of the first report for each place in the code."""
    found: dict[str, str] = {}
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if PLACE.match(line):
            found.setdefault(line.split(" runtime error")[0], "\n".join(lines[number : number + 8]))
    return found


if __name__ == "__main__":
    sys.exit(main())
