"""One search, in a process of its own: libFuzzer, by way of atheris, calls a target's `one` until time is up.

python -m tests.fuzz.search NAME [LIBFUZZER'S ARGUMENTS]
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys

import atheris  # type: ignore[import-not-found]

NAMES = ("8bit_counters_init", "pcs_init", "trace_cmp1", "trace_cmp2", "trace_cmp4", "trace_cmp8")
NAMES += ("trace_const_cmp1", "trace_const_cmp2", "trace_const_cmp4", "trace_const_cmp8", "trace_switch")


def _register_native_coverage() -> None:
    """Tell `coverage.c`, which is preloaded, where libFuzzer's functions are."""
    shim = os.environ.get("SAMPLER_PROXY_FUZZ_SHIM")
    if not shim:
        return
    from atheris import core_with_libfuzzer

    fuzzer = ctypes.CDLL(core_with_libfuzzer.__file__)
    functions = (ctypes.c_void_p * len(NAMES))()
    for number, name in enumerate(NAMES):
        functions[number] = ctypes.cast(getattr(fuzzer, f"__sanitizer_cov_{name}"), ctypes.c_void_p).value
    ctypes.CDLL(shim).register_coverage(functions)


def main() -> None:
    name, *arguments = sys.argv[1:]
    _register_native_coverage()
    with atheris.instrument_imports(include=["sampler_proxy", "yaml", "lark", "tests.fuzz"]):
        target = importlib.import_module(f"tests.fuzz.{name}")
    atheris.Setup([sys.argv[0], *arguments], target.one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
