"""Builds the native modules: every .pyx file below sampler_proxy, on all cores. All else stands in pyproject.toml."""

import os

from Cython.Build import cythonize
from setuptools import setup

JOBS = len(os.sched_getaffinity(0))

setup(
    ext_modules=cythonize(
        "sampler_proxy/**/*.pyx",
        nthreads=JOBS,
        compiler_directives={
            "language_level": 3,
            # Bounds are checked before every read by the code itself, and divisors are never zero.
            "boundscheck": False,
            "wraparound": False,
            "initializedcheck": False,
            "cdivision": True,
        },
    ),
    options={"build_ext": {"parallel": JOBS}},
)
