"""Text from outside, through every command: nothing of it steers the terminal, passes for a message, or floods it."""

from __future__ import annotations

import copy
import json
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from support.bench_records import bench_record, steady_ms
from support.commands import COMMANDS, entry_point
from support.golden_bundles import write_network
from support.properties import some_of
from yolact_export.pipeline import export_checkpoint
from yolact_plugins.plain_text import LONGEST_LINE
from yolact_runtime.media.images import write_image
from yolact_runtime.model.bundle import MANIFEST_NAME, read_manifest

EVIL = {
    "sequences": "a\x1b[31mred\x1b]0;owned\x07\x1b[2Jz",
    "C1": "a\x9b2Jb\x85c\x90d",
    "order": "a\u202egnp\u2066b\u2028error: forged\u2029c\ufeff",
    "lines": "a\nerror: forged\r\nwarning: forged\rerror: forged",
    "surrogate": "a\udcff\udc9bb",  # a name that is no UTF-8, as Python has it
    "long": "n" * 10_000,
}
every_evil = pytest.mark.parametrize("evil", EVIL.values(), ids=EVIL)
# Written out, so that the test does not believe what it tests.
_STEERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_FORGED = re.compile(r"(error|warning): forged")
Run = Callable[..., int]


@pytest.fixture
def run(
    capfd: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Run a command in this process; what it and the libraries below it wrote is looked at, also by descriptor."""
    # Some write a file of a hostile name, which must not land in the repository.
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))

    def run(command: str, *words: object) -> int:
        status = entry_point(command)([str(word) for word in words])
        captured = capfd.readouterr()
        for text in (captured.out, captured.err):
            for line in text.split("\n"):
                assert not _STEERS.search(line), (command, line[:300])
                assert not _FORGED.match(line), (command, line[:300])
                assert len(line) <= LONGEST_LINE + len("warning: "), (command, line[:300])
        assert captured.out or captured.err
        return status

    return run


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkpoint = Path(__file__).parents[2] / "examples" / "models" / "shapes.pth"
    folder = tmp_path_factory.mktemp("text") / "shapes.bundle"
    export_checkpoint(checkpoint, folder)
    return folder


def named(evil: str) -> str:
    """As a file's name may be."""
    return evil[:200]


# --- words of the command line ----------------------------------------------------------------------------------------


@every_evil
@pytest.mark.parametrize("command", COMMANDS)
def test_words(run: Run, command: str, evil: str) -> None:
    for words in ([f"--{evil}"], ["--nms", evil, "--threads", evil, "x"], ["x", evil]):
        assert run(command, *words) in {1, 2}


@every_evil
def test_numbers_and_choices(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evil: str) -> None:
    monkeypatch.chdir(tmp_path)  # a name like these is a name: --json writes a file of it
    for option in ("--threads", "--score", "--nms", "--backend", "--precision", "--json", "--score-text"):
        assert run("yolact-run", "m.bundle", "x.png", option, evil) in {1, 2}
    assert run("yolact-finetune", "x.pth", "--annotations", "a", "--images", "b", "-o", "c", "--steps", evil) == 2
    assert run("python -m yolact_plugins.compile", "--arch", evil) == 2
    assert run("python -m yolact_plugins.compile", "--arch", "sm_87", "--family", evil) == 2


# --- files ------------------------------------------------------------------------------------------------------------


@every_evil
def test_names_of_files(run: Run, bundle: Path, tmp_path: Path, evil: str) -> None:
    folder = tmp_path / named(evil)
    write_image(tmp_path / "good.png", np.zeros((40, 60, 3), np.uint8))
    folder.mkdir()
    good, broken, film = folder / f"{named(evil)}.png", folder / f"{named(evil)}b.png", folder / f"{named(evil)}.mp4"
    good.write_bytes((tmp_path / "good.png").read_bytes())
    broken.write_bytes(good.read_bytes()[:60])
    film.write_bytes(b"\0\0\0\x18ftypmp42" + bytes(500))
    assert run("yolact-run", bundle, good, folder, broken, film, folder / "missing", "-o", folder / "out") in {1, 2}
    assert run("yolact-run", bundle, good, broken, film, "-o", folder / "out2") == 1
    assert run("yolact-run", bundle, good, "--json", folder / "there", "--jsonl", folder) == 2
    assert run("yolact-eval", bundle, "--against", bundle, "--images", folder) == 1
    assert run("yolact-export", broken, "-o", folder / "b.bundle") == 1
    assert run("yolact-export", folder / "missing.pth") in {1, 2}


# --- what models say --------------------------------------------------------------------------------------------------


def places_of(document: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of every string, and of every key, which ends with None."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield (*place, key, None)
            yield from places_of(value, (*place, key))
    elif isinstance(document, list):
        for number, value in enumerate(document):
            yield from places_of(value, (*place, number))
    elif isinstance(document, str):
        yield place


def planted(document: Any, place: tuple[Any, ...], evil: str) -> Any:
    changed = copy.deepcopy(document)
    at = changed
    if place[-1] is None:
        *way, key, _ = place
        for step in way:
            at = at[step]
        at[evil] = at.pop(key)
    else:
        *way, key = place
        for step in way:
            at = at[step]
        at[key] = evil
    return changed


@every_evil
def test_manifests(run: Run, bundle: Path, tmp_path: Path, evil: str) -> None:
    write_image(tmp_path / "good.png", np.zeros((40, 60, 3), np.uint8))
    document = json.loads((bundle / MANIFEST_NAME).read_text(encoding="utf-8"))
    copied = tmp_path / "b.bundle"
    copied.mkdir()
    for path in bundle.iterdir():
        (copied / path.name).symlink_to(path)
    (copied / MANIFEST_NAME).unlink()
    # Every place with one of the texts.
    places = list(places_of(document))[list(EVIL.values()).index(evil) :: len(EVIL)]
    for number in some_of(len(places)):
        changed = json.dumps(planted(document, places[number], evil))
        (copied / MANIFEST_NAME).write_text(changed, encoding="utf-8")
        run("yolact-run", copied, tmp_path / "good.png")
    run("yolact-export", copied)


@every_evil
def test_networks(run: Run, bundle: Path, tmp_path: Path, evil: str) -> None:
    """A node that fails when the network runs: what ONNX Runtime says itself goes past Python."""
    if evil == EVIL["surrogate"]:
        evil = "a\x1b[31m\x00z"  # protobuf takes UTF-8 only
    write_image(tmp_path / "good.png", np.zeros((40, 60, 3), np.uint8))
    model = onnx.load(bundle / "model.fp32.onnx")
    output = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = [name if name != output else "before" for name in node.output]
    # Looked up when the network runs, and not before.
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1_000_000]), "beyond"))
    model.graph.node.append(onnx.helper.make_node("Gather", ["before", "beyond"], [output], name=evil))
    write_network(tmp_path, "fp32", model, read_manifest(bundle))
    assert run("yolact-run", tmp_path / "model.fp32.onnx", tmp_path / "good.png") == 1
    model.graph.node[0].op_type = evil
    write_network(tmp_path, "fp32", model, read_manifest(bundle))
    assert run("yolact-run", tmp_path / "model.fp32.onnx", tmp_path / "good.png") == 1


@every_evil
def test_checkpoints(run: Run, tmp_path: Path, evil: str) -> None:
    path = tmp_path / "c.pth"
    for state in ({evil: torch.zeros(3)}, {"state_dict": {f"backbone.{evil}": torch.zeros(2, 2)}, evil: {evil: 1}}):
        torch.save(state, path)
        assert run("yolact-export", path, "-o", tmp_path / "b.bundle") == 1
    # Much longer names take torch minutes to explain.
    text = named(evil).encode("utf-8", "surrogatepass").replace(b"\n", b" ")
    with zipfile.ZipFile(path, "w") as archive:
        # The protocol of a module's name is a line of text.
        archive.writestr("archive/data.pkl", b"\x80\x02c" + text + b"\n" + text + b"\n)R.")
        archive.writestr("archive/version", "3\n")
    assert run("yolact-export", path, "-o", tmp_path / "b.bundle") == 1
    path.write_bytes(pickle.dumps({evil: evil}))
    assert run("yolact-export", path, "-o", tmp_path / "b.bundle") == 1


# --- documents of people ----------------------------------------------------------------------------------------------


@every_evil
def test_labels_and_class_names(run: Run, bundle: Path, tmp_path: Path, evil: str) -> None:
    write_image(tmp_path / "good.png", np.zeros((40, 60, 3), np.uint8))
    labels: dict[str, Any] = {
        "images": [{"id": 1, "file_name": "good.png", "height": 40, "width": 60}],
        "categories": [{"id": 1, "name": "ring"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "area": 25, "iscrowd": 0,
             "segmentation": [[1, 1, 5, 1, 5, 5]]},
        ],
    }  # fmt: skip
    path = tmp_path / "labels.json"
    for place in list(places_of(labels))[list(EVIL.values()).index(evil) % 3 :: 3]:
        path.write_text(json.dumps(planted(labels, place, evil)), encoding="utf-8")
        run("yolact-eval", bundle, "--annotations", path, "--images", tmp_path, "--bootstrap", "0")
    checkpoint = Path(__file__).parents[2] / "examples" / "models" / "shapes.pth"
    path.write_text(json.dumps([evil, "b", "c", "d", "e", "f"]), encoding="utf-8")
    words = ("-o", tmp_path / "b.bundle", "--no-engine", "--class-names", path)
    assert run("yolact-export", checkpoint, *words) in {0, 1, 2}


@every_evil
def test_records_of_measurements(run: Run, tmp_path: Path, evil: str) -> None:
    record = bench_record({("fp32", 5): steady_ms(1)})
    places = list(places_of(record))
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps(record), encoding="utf-8")
    for number in range(list(EVIL.values()).index(evil), len(places), 40):
        bad.write_text(json.dumps(planted(record, places[number], evil)), encoding="utf-8")
        run("yolact-bench", "compare", good, bad)


@every_evil
def test_the_environment(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evil: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / named(evil)))
    (tmp_path / named(evil)).write_bytes(b"a file in the place of the folder")
    monkeypatch.setenv("CUDA_HOME", named(evil))
    monkeypatch.setenv("YOLACT_FORBID_JIT", "1")
    assert run("python -m yolact_plugins.compile", "--arch", "sm_87") in {1, 5}
