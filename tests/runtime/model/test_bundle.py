from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.precompiled import with_kernels
from support.scenes import Thing, small_manifest, with_precisions, write_bundle
from yolact_runtime.errors import BundleError, ManifestError, UsageError
from yolact_runtime.model import bundle_exchange
from yolact_runtime.model.bundle import (
    CUDA_PRECISIONS,
    MANIFEST_NAME,
    artefact_path,
    checked_artefact,
    file_sha256,
    open_bundle,
)
from yolact_runtime.model.bundle_folder import BundleFolder, read_manifest
from yolact_runtime.model.manifest import Artefact, Manifest

THINGS = [Thing((0.25, 0.25, 0.75, 0.75))]


def _edit(folder: Path, **changes: Any) -> None:
    path = folder / MANIFEST_NAME
    document = json.loads(path.read_text(encoding="utf-8"))
    document.update(changes)
    path.write_text(json.dumps(document), encoding="utf-8")


def _artefacts(folder: Path) -> dict[str, Any]:
    artefacts: dict[str, Any] = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))["artefacts"]
    return artefacts


def _refused(path: Path | str, message: str, precision: str | None = None) -> None:
    with pytest.raises(BundleError, match=message):
        open_bundle(path, precision)


# --- what opens -------------------------------------------------------------------------------------------------------


def test_a_folder(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b", THINGS)
    for path in (folder, str(folder), folder / MANIFEST_NAME):
        bundle = open_bundle(path)
        assert bundle.network.path == folder / "model.fp32.onnx"
        assert bundle.mask_iou is None
        assert dataclasses.replace(bundle.manifest, artefacts={}) == small_manifest()


def test_a_yolact_plus_folder_has_its_mask_iou_network(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b", THINGS, mask_iou=[1, 1, 1])
    bundle = open_bundle(folder)
    assert bundle.mask_iou is not None
    assert bundle.mask_iou.path == folder / "mask_iou.fp32.onnx"
    assert bundle.manifest.mask_rescoring


def test_a_model_file_carries_its_manifest(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b", THINGS)
    alone = Path(shutil.copy(folder / "model.fp32.onnx", tmp_path / "renamed.onnx"))
    bundle = open_bundle(alone)
    assert bundle.network.path == bundle.path == alone
    assert bundle.manifest == small_manifest()


def test_a_yolact_plus_model_file_finds_its_mask_iou_network_beside_it(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b", THINGS, mask_iou=[1, 1, 1])
    mask_iou = open_bundle(folder / "model.fp32.onnx").mask_iou
    assert mask_iou is not None
    assert mask_iou.path == folder / "mask_iou.fp32.onnx"


@pytest.mark.parametrize("mask_iou", [None, [1, 1, 1]], ids=["YOLACT", "YOLACT++"])
def test_a_precision_chooses_among_several_networks(tmp_path: Path, mask_iou: list[float] | None) -> None:
    folder = write_bundle(tmp_path / "b", THINGS, mask_iou=mask_iou)
    with_precisions(folder, "fp32", "fp16", "int8")
    for precision in ("fp16", "fp32", "int8"):
        bundle = open_bundle(folder, precision)
        assert bundle.network.path == folder / f"model.{precision}.onnx"
        assert bundle.manifest.precision == precision
        assert (bundle.mask_iou is None) == (mask_iou is None)
        assert bundle.mask_iou is None or bundle.mask_iou.path == folder / "mask_iou.fp32.onnx"
    _refused(folder, r'has no network in "int4"; it has fp32, fp16, int8$', "int4")
    with pytest.raises(UsageError, match="int4") as error:
        open_bundle(folder, "int4")
    assert error.value.exit_status == 2


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        (["fp16", "fp32"], "fp32"),
        (["fp16", "int8", "fp32"], "fp32"),
        (["fp16", "int8", "fp32", "int8-cpu"], "int8-cpu"),
        (["int8-cpu"], "int8-cpu"),
    ],
)
def test_without_a_precision_the_best_network_for_a_cpu_is_taken(tmp_path: Path, there: list[str], taken: str) -> None:
    folder = write_bundle(tmp_path / "b", THINGS)
    with_precisions(folder, *there)
    bundle = open_bundle(folder)
    assert bundle.network.path == folder / f"model.{taken}.onnx"
    assert bundle.manifest.precision == taken


def test_a_gpu_takes_half_precision_where_it_is(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b", THINGS)
    assert open_bundle(folder, preferred=CUDA_PRECISIONS).network.path.name == "model.fp32.onnx"
    with_precisions(folder, "fp32", "int8-cpu", "fp16")
    assert open_bundle(folder, preferred=CUDA_PRECISIONS).network.path.name == "model.fp16.onnx"


@pytest.mark.parametrize("there", [["fp16"], ["int8"], ["fp16", "int8"]])
def test_networks_that_are_not_for_a_cpu_are_not_taken_unasked(tmp_path: Path, there: list[str]) -> None:
    folder = write_bundle(tmp_path / "b", THINGS)
    with_precisions(folder, *there)
    _refused(folder, f"no network for this backend .int8-cpu or fp32., only {', '.join(there)}; name one of its")
    assert open_bundle(folder / f"model.{there[0]}.onnx").network.path.name == f"model.{there[0]}.onnx"


def test_kernels_beside_the_network_are_passed_over(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b", THINGS)
    with_kernels(folder, "sm_87")
    assert open_bundle(folder).network.path.name == "model.fp32.onnx"
    _refused(folder, r'has no network in "fp16"; it has fp32$', "fp16")


def test_engines_beside_the_network_are_passed_over(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b", THINGS)
    engine = dataclasses.asdict(Artefact("engine", "fp32", "0" * 64, 1, {"library": "tensorrt"}))
    _edit(folder, artefacts={**_artefacts(folder), "model.fp32.plan": engine})
    assert open_bundle(folder).network.path.name == "model.fp32.onnx"


def test_a_folder_gives_what_it_lists_until_it_is_let_go(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b", THINGS)
    before = len(list(Path("/proc/self/fd").iterdir()))
    opened = BundleFolder(folder)
    (folder / "stray").write_bytes(b"")
    for ask in (opened.read, opened.check):
        with pytest.raises(BundleError, match=r"/b lists no file stray$"):
            ask("stray")
    content = opened.read("model.fp32.onnx")
    opened.close()
    opened.close()
    with BundleFolder(folder) as other:
        assert other.read("model.fp32.onnx") == content
    for closed in (opened, other):
        assert closed.manifest == read_manifest(folder)
        with pytest.raises(BundleError, match="was closed; open it again"):
            closed.read("model.fp32.onnx")
    (folder / MANIFEST_NAME).write_bytes(b"{")
    with pytest.raises(ManifestError):
        BundleFolder(folder)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# --- what does not ----------------------------------------------------------------------------------------------------


def test_nothing_is_there(tmp_path: Path) -> None:
    _refused(tmp_path / "missing", "no model at .*missing.*yolact-export writes them")
    _refused(tmp_path / "missing.onnx", "no model at")


def test_nothing_is_there_but_what_a_stopped_writer_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_exchange, "_WAIT_S", 0.0)
    earlier = write_bundle(tmp_path / ".b.0123456789abcdef.earlier", THINGS)
    _refused(tmp_path / "b", rf"no model at .*/b: it was being exchanged .* or mv {earlier} {tmp_path / 'b'}$")


def test_a_folder_without_a_manifest(tmp_path: Path) -> None:
    _refused(tmp_path, f"is not a bundle: it has no {MANIFEST_NAME}")


def test_a_manifest_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_NAME).mkdir()
    _refused(tmp_path, "its manifest.json is not a file")


def test_a_manifest_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / MANIFEST_NAME)
    _refused(tmp_path, "its manifest.json is not a file")


def test_a_manifest_without_end_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / MANIFEST_NAME).open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(ManifestError, match=r"longer than 4\.2 MB: it is not a manifest"):
        open_bundle(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.pth", r"is a checkpoint; export it first: yolact-export .*model\.pth"),
        ("model.pt", "is a checkpoint"),
        ("model.plan", "is an engine, which ONNX Runtime does not run; name its bundle"),
        ("model.engine", "is an engine"),
        ("model.jpg", "neither a bundle folder nor an .onnx file"),
        ("model", "neither a bundle folder nor an .onnx file"),
    ],
)
def test_files_of_another_kind(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    _refused(tmp_path / name, message)


def test_a_network_that_is_missing(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b", THINGS)
    (folder / "model.fp32.onnx").unlink()
    _refused(folder, r"is incomplete: model\.fp32\.onnx is missing")


@pytest.mark.parametrize("name", ["model.fp32.onnx", "mask_iou.fp32.onnx"])
def test_a_file_that_is_not_the_one_described(tmp_path: Path, name: str) -> None:
    folder = write_bundle(tmp_path / "b", THINGS, mask_iou=[1, 1, 1])
    path = folder / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    _refused(folder, f"{name} is not the file the manifest describes: sha256 {file_sha256(path)[:12]}…, expected ")


def test_a_file_that_is_longer_is_not_read(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b", THINGS)
    size = (folder / "model.fp32.onnx").stat().st_size
    with (folder / "model.fp32.onnx").open("r+b") as file:
        file.truncate(1 << 30)  # without a block on disk
    _refused(folder, rf"model\.fp32\.onnx is not .*: it has {1 << 30} bytes, expected {size}\. Copy the folder again")


def test_an_artefact_is_named_once_it_is_what_is_listed(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b", THINGS)
    ((name, artefact),) = read_manifest(folder).artefacts.items()
    assert checked_artefact(folder, name, artefact) == folder / name
    (folder / name).write_bytes(b"another")
    with pytest.raises(BundleError, match=r"/b/model\.fp32\.onnx is not the file the manifest describes: sha256"):
        checked_artefact(folder, name, artefact)


def test_a_manifest_without_artefacts(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b", THINGS)
    _edit(folder, artefacts={})
    _refused(folder, "has 0 network models to run.*the manifest lists: none")


@pytest.mark.parametrize("name", ["../outside.onnx", "sub/model.onnx", "ABSOLUTE", "./model.fp32.onnx"])
def test_an_artefact_cannot_reach_outside_its_folder(tmp_path: Path, name: str) -> None:
    folder = write_bundle(tmp_path / "b", THINGS)
    (entry,) = _artefacts(folder).values()
    for place in (tmp_path / "outside.onnx", folder / "sub" / "model.onnx"):
        place.parent.mkdir(exist_ok=True)
        shutil.copy(folder / "model.fp32.onnx", place)
    name = str(tmp_path / "outside.onnx") if name == "ABSOLUTE" else name
    _edit(folder, artefacts={name: entry})
    _refused(folder, "which is not a plain file name")


def test_the_index_of_the_kernels_is_the_one_artefact_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "cubins").mkdir()
    with pytest.raises(BundleError, match=r"is incomplete: cubins/cubins\.json is missing"):
        artefact_path(tmp_path, "cubins/cubins.json")
    (tmp_path / "cubins" / "cubins.json").touch()
    assert artefact_path(tmp_path, "cubins/cubins.json") == tmp_path / "cubins" / "cubins.json"


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "/", "../b", "..\\b", "cubins\\cubins.json", "a\\", "C:\\b"),
        *("cubins/other.json", "cubins/", "cubins/a.cubin", "cubins/cubins/cubins.json", "other/cubins.json"),
        *("./cubins/cubins.json", "cubins//cubins.json", "cubins/./cubins.json", "cubins/../b", "cubins/cubins.json/"),
        *("/cubins/cubins.json", "../b/cubins/cubins.json", "Cubins/cubins.json", "cubins/cubins.json/../cubins.json"),
    ],
)
def test_no_other_name_with_a_folder_is_allowed(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "b"
    (folder / "cubins" / "cubins").mkdir(parents=True)
    for place in ("cubins.json", "other.json", "a.cubin", "cubins/cubins.json"):
        (folder / "cubins" / place).touch()
    with pytest.raises(BundleError, match="which is not a plain file name"):
        artefact_path(folder, name)


@given(
    st.lists(st.sampled_from(["cubins", "cubins.json", "..", ".", "/", "\\", "a", "\0", ""]), max_size=6).map("".join)
)
def test_whatever_a_manifest_names_stays_in_its_folder(name: str) -> None:
    with tempfile.TemporaryDirectory() as outside:
        folder = Path(outside, "b")
        (folder / "cubins").mkdir(parents=True)
        for place in (folder, folder / "cubins", folder.parent):
            for file in ("a", "cubins.json"):
                (place / file).touch()
        try:
            path = artefact_path(folder, name)
        except BundleError:
            return
        assert path.resolve() in {(folder / n).resolve() for n in ("a", "cubins.json", "cubins/cubins.json")}
        assert str(path) == f"{folder}/{name}"


def test_an_artefact_that_is_a_folder(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b", THINGS)
    (folder / "model.fp32.onnx").unlink()
    (folder / "model.fp32.onnx").mkdir()
    _refused(folder, "is incomplete")


def test_an_artefact_name_with_a_nul(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b", THINGS)
    (entry,) = _artefacts(folder).values()
    _edit(folder, artefacts={"model\0.onnx": entry})
    with pytest.raises(ManifestError, match=r"U\+0000 is not allowed in a name"):
        open_bundle(folder)


@pytest.mark.parametrize(("changes", "message"), [({"schema_version": 99}, "schema version 99"), ({"x": 1}, "unknown")])
def test_a_manifest_that_cannot_be_understood_names_its_file(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = write_bundle(tmp_path / "b", THINGS)
    _edit(folder, **changes)
    with pytest.raises(ManifestError, match=message) as raised:
        open_bundle(folder)
    assert str(folder / MANIFEST_NAME) in str(raised.value)


def test_a_yolact_plus_folder_without_its_mask_iou_network(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b", THINGS, mask_iou=[1, 1, 1])
    artefacts = _artefacts(folder)
    del artefacts["mask_iou.fp32.onnx"]
    _edit(folder, artefacts=artefacts)
    _refused(folder, "has 0 mask_iou models")


def test_a_yolact_plus_model_file_without_its_sibling(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b", THINGS, mask_iou=[1, 1, 1])
    (folder / "mask_iou.fp32.onnx").unlink()
    _refused(folder / "model.fp32.onnx", r"mask_iou\.fp32\.onnx is not beside it")


def test_a_model_without_a_manifest(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b", THINGS, mask_iou=[1, 1, 1])
    _refused(folder / "mask_iou.fp32.onnx", "contains no manifest .*was not written by yolact-export")


def test_a_model_whose_manifest_is_damaged_names_the_file(tmp_path: Path) -> None:
    import onnx

    folder = write_bundle(tmp_path / "b", THINGS)
    model = onnx.load(folder / "model.fp32.onnx")
    onnx.helper.set_model_props(model, {"yolact_manifest": "{"})
    path = tmp_path / "damaged.onnx"
    onnx.save(model, path)
    with pytest.raises(ManifestError, match=r"damaged\.onnx: not JSON.*it should be a manifest"):
        open_bundle(path)


def test_a_file_that_is_no_onnx_model(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    _refused(path, "is not an ONNX model")
    path.write_bytes(b"")
    _refused(path, "contains no manifest")


def test_sha256_of_a_file_larger_than_one_piece(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "x").write_bytes(content)
    assert file_sha256(tmp_path / "x") == hashlib.sha256(content).hexdigest()


def test_the_manifest_of_a_folder_and_of_its_model_agree(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b", THINGS)
    inside = open_bundle(folder / "model.fp32.onnx").manifest
    outside = Manifest.from_json((folder / MANIFEST_NAME).read_bytes(), "x")
    assert dataclasses.replace(outside, artefacts={}) == inside
