"""Everything that the public classes mention can be imported by name, without knowing where it is defined."""

from __future__ import annotations

import importlib
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

import yolact_plugins
import yolact_runtime
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
    text = Path(yolact_runtime.__file__).read_text(encoding="utf-8")
    checked = text.partition("if TYPE_CHECKING:\n")[2].partition("\n\n")[0]
    for name, module in yolact_runtime._MODULE_OF.items():
        line = next(line for line in checked.splitlines() if f"from {module} import " in line)
        assert name in line.partition(" import ")[2].split(", "), line


def loaded_by(statement: str) -> set[str]:
    code = f"import sys, json\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return set(json.loads(done.stdout))


def test_importing_the_package_loads_no_segmenter_and_results_load_no_gpu() -> None:
    loaded = loaded_by("import yolact_runtime")
    assert {name for name in loaded if name.startswith("yolact_")} == {
        "yolact_plugins",
        "yolact_plugins.errors",
        "yolact_runtime",
        "yolact_runtime.errors",
    }
    loaded = loaded_by("from yolact_runtime import Instances, Masks")
    assert not {name for name in loaded if name.startswith(("yolact_plugins.driver", "yolact_runtime.cuda"))}
    assert not {name for name in loaded if name.startswith("cuda")} | ({"supervision", "cv2"} & loaded)
    assert "cuda" not in loaded_by("from yolact_runtime import DeviceInstances, Segmenter")


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
                if "getLogger(" in line:
                    assert "logging.getLogger(__name__)" in line, f"{path}: {line}"
    assert isinstance(logging.getLogger("yolact_runtime").handlers[0], logging.NullHandler)
