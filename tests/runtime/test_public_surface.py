"""Everything that the public classes mention can be imported by name, without knowing where it is defined."""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
import json
import logging
import pickle
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import yolact_plugins
import yolact_runtime
import yolact_runtime.backends
from support.public_surface import documented_errors, is_builtin, mentioned_types, public_names
from yolact_runtime import errors
from yolact_runtime.errors import YolactError

RUNTIME_MD = Path(__file__).parents[2] / "docs" / "runtime.md"
# Modules whose names are public besides those of yolact_runtime itself; runtime.md names them.
DOCUMENTED = (
    "yolact_runtime.errors",
    "yolact_runtime.backends",
    "yolact_runtime.media.images",
    "yolact_runtime.media.overlay",
    "yolact_runtime.media.videos",
    "yolact_runtime.media.video_writer",
    "yolact_plugins.colour",
    "yolact_plugins.errors",
    "yolact_plugins.reference",
)
# What callers get and never make: their constructors are internal.
RETURNED = {"DeviceInstances.__init__", "FrameStream.__init__", "FrameBuffer.__init__"}
# Objects to pass on, whose methods are internal: other libraries take the array by DLPack.
OPAQUE = {"DeviceArray", "MaskRescoring"}
PUBLIC = public_names(yolact_runtime)
WITH_SIGNATURES = sorted(name for name, thing in PUBLIC.items() if callable(thing) and name not in OPAQUE)
# Loggers of these two packages have to be silent on their own.
PACKAGES = ("yolact_runtime", "yolact_plugins", "yolact_calibration", "yolact_export", "yolact_benchmarks")


@pytest.mark.parametrize("name", WITH_SIGNATURES)
def test_every_type_that_a_signature_mentions_is_public(name: str) -> None:
    public = {id(thing) for thing in PUBLIC.values()}
    for module in DOCUMENTED:
        public |= {id(thing) for thing in public_names(importlib.import_module(module)).values()}
    private = {(where, found) for where, found in mentioned_types(PUBLIC[name]) if id(found) not in public}
    assert {(where, found) for where, found in private if where not in RETURNED} == set()


@pytest.mark.parametrize("name", WITH_SIGNATURES)
def test_every_error_that_a_docstring_names_is_public(name: str) -> None:
    for where, error in documented_errors(PUBLIC[name]):
        assert error in PUBLIC or is_builtin(error), f"{where} raises {error}"


def test_the_walk_finds_what_it_should() -> None:
    opened = {error for where, error in documented_errors(yolact_runtime.Segmenter) if where == "Segmenter.open"}
    assert {"BundleError", "ManifestError", "EngineMismatchError", "SelfTestError"} <= opened
    mentioned = {found.__name__ for _, found in mentioned_types(yolact_runtime.Segmenter)}
    assert {"Bundle", "DeviceInstances", "FrameBuffer", "FrameStream", "MaskRescoring", "YuvMatrix"} <= mentioned
    assert "InputSpec" in {found.__name__ for _, found in mentioned_types(yolact_runtime.Manifest)}
    assert not is_builtin("BundleError")
    assert is_builtin("IndexError")


def test_every_error_of_the_runtime_is_exported_and_explained() -> None:
    assert set(errors.__all__) <= set(yolact_runtime.__all__)
    assert set(yolact_plugins.errors.__all__) <= set(errors.__all__)
    for name in errors.__all__:
        error = getattr(errors, name)
        assert issubclass(error, YolactError)
        assert error.__doc__
        assert getattr(yolact_runtime, name) is error
    # An error outside of the list is caught as one of its parents in the list.
    classes = [YolactError]
    for parent in classes:
        classes += parent.__subclasses__()
    ours = [found for found in classes if found.__module__.startswith(("yolact_runtime", "yolact_plugins"))]
    unnamed = [found for found in ours if found.__name__ not in errors.__all__]
    assert [found for found in unnamed if not {base.__name__ for base in found.__mro__[1:]} & set(errors.__all__)] == []


def test_every_error_can_be_copied_and_sent_from_another_process() -> None:
    classes: list[type[YolactError]] = [YolactError]
    for package in PACKAGES[2:]:
        importlib.import_module(
            f"{package}.errors" if package != "yolact_benchmarks" else f"{package}.statistics.compare"
        )
    for error in classes:
        classes += error.__subclasses__()
        parameters = list(inspect.signature(error.__init__).parameters.values())[1:]
        required = [one for one in parameters if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD]
        raised = error(*(f"{one.name}…" for one in required)) if required else error("a message")
        raised.__dict__["noted"] = [1]
        for same in (pickle.loads(pickle.dumps(raised)), copy.deepcopy(raised), copy.copy(raised)):
            assert type(same) is error
            assert (str(same), same.args, same.__dict__) == (str(raised), raised.args, raised.__dict__)


def test_every_name_loads_and_nothing_else_does() -> None:
    assert yolact_runtime.__version__ == yolact_plugins.__version__
    assert list(yolact_runtime.__all__) == sorted(yolact_runtime.__all__, key=lambda name: (not name.isupper(), name))
    assert set(yolact_runtime.__all__) <= set(dir(yolact_runtime))
    with pytest.raises(AttributeError, match="module 'yolact_runtime' has no attribute 'Segmentr'"):
        yolact_runtime.Segmentr  # type: ignore[attr-defined]  # noqa: B018
    names: dict[str, object] = {}
    exec("from yolact_runtime import *", names)
    assert set(yolact_runtime.__all__) <= set(names)


def test_lazy_names_are_those_that_type_checkers_see() -> None:
    for package in (yolact_runtime, yolact_runtime.backends):
        tree = ast.parse(Path(package.__file__).read_text(encoding="utf-8"))
        (checked,) = (
            node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        )
        imports = [node for node in checked.body if isinstance(node, ast.ImportFrom)]
        assert {name.name: node.module for node in imports for name in node.names} == package._MODULE_OF
        assert set(package._MODULE_OF) <= set(package.__all__)


def loaded_by(statement: str) -> set[str]:
    code = f"import sys, json\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return set(json.loads(done.stdout))


def test_importing_the_package_loads_no_segmenter_and_results_load_no_gpu() -> None:
    loaded = loaded_by("import yolact_runtime")
    assert {name for name in loaded if name.startswith("yolact_")} == {"yolact_plugins", "yolact_runtime"}
    loaded = loaded_by("from yolact_runtime import Instances, Masks")
    assert not {name for name in loaded if name.startswith(("yolact_plugins.driver", "yolact_runtime.cuda"))}
    # CUDA 12's packages have a .pth file, which loads an empty `cuda` into every process.
    at_start = loaded_by("")
    assert not {name for name in loaded - at_start if name.startswith("cuda")} | ({"supervision", "cv2"} & loaded)
    loaded = loaded_by("from yolact_runtime import DeviceInstances, Segmenter")
    assert not {name for name in loaded - at_start if name.startswith("cuda")}


def test_threads_may_import_everything_at_once() -> None:
    """Python gives up a wait of two threads for each other's modules, and hands out half a module."""
    wanted = [
        ("yolact_runtime", name) for name in ("Segmenter", "DeviceInstances", "SelfTest", "Bundle", "YolactError")
    ]
    modules = (*DOCUMENTED, "yolact_runtime.cuda.device_path", "yolact_runtime.backends.select")
    code = f"""
import importlib, random, sys, threading
sys.setswitchinterval(1e-6)
wanted = {wanted + [(name, "__name__") for name in modules]}
random.Random(SEED).shuffle(wanted)
barrier, failed = threading.Barrier(len(wanted)), []
def load(module, name):
    barrier.wait()
    try:
        getattr(importlib.import_module(module), name)
    except BaseException as error:
        failed.append((module, name, error))
threads = [threading.Thread(target=load, args=one) for one in wanted]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert not failed, failed
"""
    for seed in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code.replace("SEED", str(seed))], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", [yolact_runtime, yolact_plugins])
def test_no_package_imports_its_own_modules(package: ModuleType) -> None:
    """Which is what makes threads wait for each other. Parsers are built before a command starts threads."""
    folder = Path(package.__file__ or "").parent
    for path in folder.rglob("__init__.py"):
        name = ".".join([package.__name__, *path.parent.relative_to(folder).parts])
        found = [
            node.module
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(name + ".")
        ]
        assert not found or name == "yolact_plugins.command_line", name


@pytest.mark.parametrize("package", ["yolact_runtime", "yolact_runtime.backends"])
def test_a_package_loaded_again_is_the_same(package: str) -> None:
    code = f"""
import importlib
import {package} as package
before = {{name: getattr(package, name) for name in package.__all__}}
importlib.reload(package)
assert {{name: getattr(package, name) for name in package.__all__}} == before
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_documented_modules_are_documented() -> None:
    text = RUNTIME_MD.read_text(encoding="utf-8")
    for module in DOCUMENTED:
        assert f"`{module}`" in text, module


# --- log --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", PACKAGES)
def test_a_library_writes_nothing_where_the_program_configures_no_logging(package: str) -> None:
    code = f"""
import logging, {package}
logging.getLogger("{package}.any.module").warning("one")
logging.basicConfig(format="%(name)s: %(message)s")
logging.getLogger("{package}.any.module").warning("two")
logging.getLogger("{package}").setLevel(logging.ERROR)
logging.getLogger("{package}.any.module").warning("three")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("", f"{package}.any.module: two\n")


def test_importing_everything_writes_and_logs_nothing() -> None:
    code = """
import logging
logging.basicConfig(level=logging.DEBUG)
from yolact_runtime import *
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_loggers_are_named_after_their_modules() -> None:
    """So that a program silences or shows a package with one name."""
    for package in ("yolact_runtime", "yolact_plugins"):
        root = Path(importlib.import_module(package).__file__ or "").parent
        for path in root.rglob("*.py"):
            for line in path.read_text(encoding="utf-8").splitlines():
                if "getLogger(" in line and path.name != "process.py":  # which gives a program its root logger back
                    assert "logging.getLogger(__name__)" in line, f"{path}: {line}"
    assert isinstance(logging.getLogger("yolact_runtime").handlers[0], logging.NullHandler)
