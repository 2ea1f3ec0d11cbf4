"""Text and JSON from outside are read by :mod:`yolact_plugins.text`, which is right or refuses; nowhere else."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(path for path in ROOT.glob("*/yolact_*/**/*.py") if "tests" not in path.parts)
READERS = {"plugins/yolact_plugins/text.py"}
OF_THE_KERNEL = "what Linux says in /proc and /sys, in ASCII"
OF_THIS_RUN = "written by this run for itself: messages between its processes, a profile of ONNX Runtime or TensorRT"
OF_THE_PACKAGE = "a file of the package itself"
OF_THE_CHECKOUT = "a study: its own records and manifests in a checkout, not in the wheel"
ALLOWED = {
    "benchmarks/yolact_benchmarks/layers/engine_profile.py": OF_THIS_RUN,
    "benchmarks/yolact_benchmarks/machine/machine_state.py": OF_THE_KERNEL,
    "benchmarks/yolact_benchmarks/machine/memory.py": OF_THE_KERNEL,
    "benchmarks/yolact_benchmarks/machine/power.py": OF_THE_KERNEL,
    "benchmarks/yolact_benchmarks/measure/cold_start.py": OF_THIS_RUN,
    "calibration/yolact_calibration/pruning/onnxruntime_timer.py": OF_THIS_RUN,
    "export/yolact_export/engine/memory.py": OF_THE_KERNEL,
    "export/yolact_export/engine/messages.py": OF_THIS_RUN,
    "export/yolact_export/facade/networks.py": OF_THIS_RUN,
    "export/yolact_export/pipeline.py": OF_THIS_RUN,
    "plugins/yolact_plugins/compile/sources.py": OF_THE_PACKAGE,
    "runtime/yolact_runtime/backends/onnxruntime_session.py": OF_THIS_RUN,
    "runtime/yolact_runtime/model/engine_name.py": OF_THIS_RUN,
}
# Of these, `open` is no file's.
NOT_FILES = {"os", "AnnotatedImages", "Segmenter", "tarfile", "self", "archive"}


def reads_text(path: Path) -> list[int]:
    """Lines that read text or JSON by themselves."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        owner = (
            function.value.id if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) else ""
        )
        name = function.attr if isinstance(function, ast.Attribute) else ""
        is_json = owner == "json" and name in {"load", "loads", "JSONDecoder"}
        is_text = name == "read_text" or (name == "open" and owner not in NOT_FILES and not _is_binary(node))
        if is_json or is_text or (isinstance(function, ast.Name) and function.id == "open" and not _is_binary(node)):
            found.append(node.lineno)
    return found


def _is_binary(call: ast.Call) -> bool:
    """A mode with ``b``, or one that writes."""
    modes = [word.value for word in (*call.args, *(k.value for k in call.keywords)) if isinstance(word, ast.Constant)]
    return any(isinstance(mode, str) and set(mode) <= set("rwaxb+t") and set(mode) & set("bwax") for mode in modes)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_text_from_outside_is_read_in_one_place(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    lines = reads_text(path)
    if name in READERS or name.startswith("benchmarks/yolact_benchmarks/studies/"):
        return
    assert bool(lines) == (name in ALLOWED), (
        f"{name} reads text or JSON itself in the lines {lines}: take yolact_plugins.text, or say here why not"
    )


def test_the_list_names_modules_that_are_there() -> None:
    assert set(ALLOWED) <= {path.relative_to(ROOT).as_posix() for path in MODULES}


@pytest.mark.parametrize(
    ("code", "reads"),
    [
        ("json.loads(text)", True),
        ("json.load(file)", True),
        ("path.read_text()", True),
        ("Path('x').read_text(encoding='utf-8')", True),
        ("open(path)", True),
        ("path.open()", True),
        ("path.open('r', encoding='utf-8')", True),
        ("path.open('rb')", False),
        ("path.open('a', encoding='utf-8')", False),
        ("open(path, mode='rb')", False),
        ("read_json(path)", False),
        ("os.open(path, flags)", False),
        ("Segmenter.open(path)", False),
    ],
)
def test_readers_are_found(code: str, reads: bool, tmp_path: Path) -> None:
    module = tmp_path / "a.py"
    module.write_text(code)
    assert bool(reads_text(module)) is reads
