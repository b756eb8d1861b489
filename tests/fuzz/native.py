"""The native modules once more, as a fuzzer wants them: telling what they reach, and with their memory watched.

atheris sees Python only. gcc can have each position in the C code call a function (-fsanitize-coverage=trace-pc), and
`coverage.c` makes of that what libFuzzer reads; AddressSanitizer ends the process at a read or write out of bounds.
Where there is no gcc or no Cython, the ordinary modules are searched, steered by the Python round them alone.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).parent.parent.parent
FOLDER = TOP / "build" / "fuzz"
SHIM = FOLDER / "coverage.so"
WATCHED = "-w -O1 -g1 -fno-omit-frame-pointer -fsanitize=address"
FLAGS = f"{WATCHED} -fsanitize-coverage=trace-pc,trace-cmp"
SHIM_FLAGS = ("-O2", "-Wall", "-shared", "-fPIC")


def build() -> Path | None:
    """The folder with the package built so; None where that is not possible. A minute, the first time."""
    if shutil.which("gcc") is None or not all(map(importlib.util.find_spec, ("Cython", "setuptools"))):
        return None
    FOLDER.mkdir(parents=True, exist_ok=True)
    subprocess.run(["gcc", *SHIM_FLAGS, "-o", SHIM, Path(__file__).with_name("coverage.c")], check=True)
    return compiled(FOLDER, FLAGS)


def compiled(folder: Path, flags: str) -> Path:
    """Build the package with these flags for gcc below the folder; return where Python finds it."""
    lib = folder / "lib"
    lib.mkdir(parents=True, exist_ok=True)
    folders = ("build_py", f"--build-lib={lib}", "build_ext", f"--build-lib={lib}", f"--build-temp={folder / 'temp'}")
    subprocess.run(
        [sys.executable, "setup.py", "-q", *folders],
        check=True,
        cwd=TOP,
        env={**os.environ, "CC": "gcc", "CFLAGS": flags},
        stdout=subprocess.DEVNULL,
    )
    return lib


def environment(lib: Path) -> dict[str, str]:
    """Of a process that is to use these modules. The shim comes first: see `coverage.c`."""
    return {
        "LD_PRELOAD": " ".join([str(SHIM), library("libasan.so"), library("libstdc++.so")]),
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:handle_segv=0:verify_asan_link_order=0",
        "PYTHONMALLOC": "malloc",  # each object a block of its own
        "PYTHONPATH": f"{lib}{os.pathsep}{TOP}",
        "PYTHONSAFEPATH": "1",  # else the current folder's package is found before
        "SAMPLER_PROXY_FUZZ_SHIM": str(SHIM),
    }


def library(name: str) -> str:
    """Return the path of one of gcc's own libraries."""
    command = ["gcc", f"-print-file-name={name}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
