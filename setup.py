"""Builds the native modules: every .pyx file below sampler_proxy, on all cores. All else stands in pyproject.toml."""

import os
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

JOBS = min(len(os.sched_getaffinity(0)), 8)  # each may take 300 MB

DIRECTIVES = {
    "language_level": 3,
    # Bounds are checked before every read by the code itself, and divisors are never zero.
    "boundscheck": False,
    "wraparound": False,
    "initializedcheck": False,
    "cdivision": True,
    # Nothing here is pickled; Python refuses it by itself.
    "auto_pickle": False,
}

# Python's own flags ask for debugging information, which takes a third of the compiler's time. CFLAGS takes the place
# of these flags, the optimisation among them, without which nothing is inlined.
CFLAGS = os.environ.get("CFLAGS", "")
ARGUMENTS = [*([] if "-g" in CFLAGS else ["-g0"]), *([] if "-O" in CFLAGS else ["-O3"])]


class Build(build_ext):
    """Translates all modules to C, then compiles the longest ones first, so that no core waits for one at the end.

    Cython is needed here only: whoever asks for the project's name and dependencies does not wait for it.
    """

    def build_extensions(self) -> None:
        from Cython.Build import cythonize

        translated = cythonize(self.extensions, nthreads=JOBS, compiler_directives=DIRECTIVES)
        sources = {extension.name: extension.sources for extension in translated}
        for extension in self.extensions:
            extension.sources = sources[extension.name]
        self.extensions.sort(key=lambda extension: os.path.getsize(extension.sources[0]), reverse=True)
        super().build_extensions()


setup(
    ext_modules=[
        Extension(".".join(path.with_suffix("").parts), [str(path)], extra_compile_args=ARGUMENTS)
        for path in sorted(Path("sampler_proxy").rglob("*.pyx"))
    ],
    cmdclass={"build_ext": Build},
    options={"build_ext": {"parallel": JOBS}},
)
