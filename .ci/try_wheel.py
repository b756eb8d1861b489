"""python try_wheel.py WHEEL, in an environment where it is installed: is in it what has to be, and does all of it load?

The modules that were translated from Cython come without their C, with stubs, declarations and the grammar; and
nothing is taken from a checkout.
"""

import importlib
import sys
import zipfile
from pathlib import Path, PurePosixPath


def main(wheel: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith("sampler_proxy/")]
        native = [name for name in names if name.endswith(".so")]
        stubs = [name for name in names if name.endswith(".pyi")]
        declared = {PurePosixPath(name).stem for name in names if name.endswith(".pxd")}
    assert not [name for name in names if name.endswith((".c", ".html"))], "what Cython writes is in the wheel"
    assert {"sampler_proxy/py.typed", "sampler_proxy/traceql/grammar.lark"} <= set(names)
    assert native, "no native modules"
    modules = {name.split(".")[0].replace("/", ".") for name in native}
    assert {stub.removesuffix(".pyi").replace("/", ".") for stub in stubs} <= modules
    assert declared & {module.split(".")[-1] for module in modules}
    for name in names:
        if name.endswith(".py") and not name.endswith("__main__.py"):
            modules.add(name.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    for module in sorted(modules):
        loaded = importlib.import_module(module)
        assert loaded.__file__ is not None
        assert Path(loaded.__file__).is_relative_to(sys.prefix), loaded.__file__
    print(f"{len(native)} native modules, {len(stubs)} stubs, {len(modules)} modules loaded")


if __name__ == "__main__":
    main(sys.argv[1])
