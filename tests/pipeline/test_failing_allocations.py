"""Whatever allocation fails, in whatever step of a pipeline: every span and request is accounted for, nothing leaks,
and the next try works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline.failing_allocations import STEPS

TOP = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux" or os.confstr("CS_GNU_LIBC_VERSION") is None:
        pytest.skip("wants a C compiler and glibc")
    library = tmp_path_factory.mktemp("shim") / "failing_malloc.so"
    source = Path(__file__).with_name("failing_malloc.c")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, source], check=True)
    return library


@pytest.mark.parametrize("step", STEPS)
def test_every_allocation_may_fail(shim: Path, step: str) -> None:
    environment = {**os.environ, "LD_PRELOAD": str(shim), "PYTHONMALLOC": "malloc"}
    command = [sys.executable, "-m", "tests.pipeline.failing_allocations", step]
    done = subprocess.run(command, cwd=TOP, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout) >= 2
