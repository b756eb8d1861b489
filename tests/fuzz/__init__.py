"""Fuzz targets: what must hold of any bytes at all, searched by coverage and kept as files.

A target is a module here with `one(data: bytes) -> None`, which raises if and only if something is wrong:

    scan         requests: the scan, and a pipeline round it
    inflate      compressed requests
    json_wire    requests in JSON
    opening      how connections begin
    redact       requests with a secret in them, and what leaves of it
    carriers     texts around a secret, damaged, and what leaves of it
    traceql      expressions, from the parser to the machine
    config       configuration files

`corpus/NAME` holds inputs that reach different code, `found/NAME` those that once failed. `test_corpus.py` runs all of
these, and mutations of them, in every test run. The search itself needs atheris (`pip install -e '.[dev,fuzz]'`), and
gcc to see into the native modules:

    python -m tests.fuzz --seconds 60              # each target
    python -m tests.fuzz --seconds 600 scan        # one
    python -m tests.fuzz --keep DIRECTORY          # what reached new code is left there, by target

An input that fails is written to `found/NAME` and stays there for good, when the fault is fixed too.
"""

TARGETS = ("scan", "inflate", "json_wire", "opening", "redact", "carriers", "traceql", "config")
