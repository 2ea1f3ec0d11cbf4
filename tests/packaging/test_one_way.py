"""There is one way to do each of these things, and nothing grows a second one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(ROOT.glob("*/yolact_*/**/*.py"))
A_LOG, A_LIST = "writes to a log", "collects sentences, which are reported later or elsewhere"
TEXT_CALLBACKS = {
    "benchmarks/yolact_benchmarks/measure/request.py": A_LIST,
    "runtime/yolact_runtime/cuda/frame_graphs.py": A_LOG,
    "runtime/yolact_runtime/cuda/frame_slot.py": A_LOG,
    "runtime/yolact_runtime/media/image_reader.py": A_LIST,
    "runtime/yolact_runtime/reporter.py": "is the one way",
}
FORMER = {"say", "tell", "on_image", "on_trial", "on_check", "on_file"}
# Whatever makes a session of ONNX Runtime.
SESSIONS = {
    "runtime/yolact_runtime/backends/onnxruntime_session.py": "is the one way",
    "runtime/yolact_runtime/backends/onnxruntime.py": "asks for providers, which may not start, with the same settings",
    "benchmarks/yolact_benchmarks/peers/peer_networks.py": "asks for a provider as a user of the library alone would",
    "tests/support/cuda_onnxruntime.py": "stands in for the library itself",
}
COMMANDS = ("runtime/yolact_runtime/terminal.py", "calibration/yolact_calibration/shapes/shapes.py")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def is_command(path: Path) -> bool:
    return name_of(path) in COMMANDS or path.parent.name == "commands" or path.stem == "cli"


def is_kind(word: ast.expr) -> bool:
    return isinstance(word, ast.Constant) or getattr(word, "id", "") == "kind"


def other_reporting(tree: ast.Module) -> Iterator[str]:
    """Ways of telling progress that a Reporter has replaced."""
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.arg) and node.arg in FORMER:
            yield f"line {line}: a parameter {node.arg}"
        elif isinstance(node, ast.keyword) and node.arg in FORMER:
            yield f"line {line}: {node.arg}= given"
        elif isinstance(node, ast.Assign) and any(ast.unparse(target) in {"Say", "Report"} for target in node.targets):
            yield f"line {line}: a type of callables for text"
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "report" and is_kind(node.args[0]):
            yield f"line {line}: a kind and a text reported"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("WARNING: "):
            yield f"line {line}: a warning that is marked by its first word"


def text_callbacks(tree: ast.Module) -> list[int]:
    """Lines with a callable that takes a text, or two counts, and returns nothing."""
    texts = {"Callable[[str], None]", "Callable[[str, str], None]", "Callable[[int, int], None]"}
    found = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript) and getattr(node.value, "id", "") == "Callable"
    ]
    return [node.lineno for node in found if ast.unparse(node) in texts]


def terminals(tree: ast.Module) -> list[int]:
    """Lines that name Terminal, as a type or to make one."""
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name | ast.alias | ast.ImportFrom)]
    return [node.lineno for node in names if getattr(node, "id", getattr(node, "name", "")) == "Terminal"]


def test_long_work_tells_people_through_a_reporter() -> None:
    for path in MODULES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert not list(other_reporting(tree)), path
        assert bool(text_callbacks(tree)) == (name_of(path) in TEXT_CALLBACKS), (path, text_callbacks(tree))
        assert is_command(path) or not terminals(tree), f"{path}: only commands know the terminal; take a Reporter"


@pytest.mark.parametrize(
    "code",
    [
        "def f(say): ...",
        "def f(*, on_image=None): ...",
        "f(say=print)",
        "Say = Callable[[str], None]",
        'f(f"WARNING: {x}")',
        "report('say', text)",
        "report(kind, text)",
    ],
)
def test_the_former_ways_are_found(code: str) -> None:
    assert list(other_reporting(ast.parse(code)))


def test_terminals_and_callbacks_are_found() -> None:
    assert terminals(ast.parse("from yolact_runtime.terminal import Terminal"))
    assert terminals(ast.parse("Terminal(quiet=True)"))
    assert text_callbacks(ast.parse("def f(x: Callable[[str], None] | None = None): ..."))


def test_sessions_of_onnx_runtime_are_set_up_in_one_place() -> None:
    found = set()
    for path in [*MODULES, *sorted((ROOT / "tests").rglob("*.py"))]:
        text = path.read_text(encoding="utf-8")
        if "SessionOptions" in text or "InferenceSession" in text:
            calls = [ast.unparse(node.func) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
            if {"SessionOptions", "InferenceSession"} & {call.rpartition(".")[2] for call in calls}:
                found.add(name_of(path))
    assert found == set(SESSIONS), "open_cpu_session(model, SessionSettings(...)) does that"


def test_names_beside_a_checkpoint_are_made_in_one_place() -> None:
    endings = (".state", ".latency.json", ".network.json")
    found = set()
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        if any(f'"{ending}"' in text for ending in endings):
            found.add(name_of(path))
    assert found == {"export/yolact_export/training/training_files.py"}


def test_protobuf_messages_are_walked_in_one_place() -> None:
    """Whoever takes numbers apart into seven bits has a reader or a writer of its own."""
    found = {name_of(path) for path in MODULES if re.search(r">>= 7|\+= 7", path.read_text("utf-8"))}
    assert found == {"runtime/yolact_runtime/model/protobuf.py"}
