"""Networks added to a bundle that is there: all at once, and whatever was not made anew stays."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.precision_trials import MANIFEST, write_small_bundle
from support.properties import examples
from support.recorder import Recorder
from yolact_export.precision import existing_bundle
from yolact_export.precision.existing_bundle import ExistingBundle
from yolact_export.precision.precision import PrecisionResult, Variant, network_name
from yolact_runtime.errors import BundleError, ManifestError
from yolact_runtime.model.bundle import file_sha256, read_manifest
from yolact_runtime.model.manifest import Artefact, Manifest
from yolact_runtime.model.manifest_signature import encode_record

PRECISIONS = ("fp16", "int8", "int8-cpu")
NOBODY: Any = None


def maker(contents: Mapping[str, bytes], rejected: tuple[str, ...] = ()) -> Any:
    """Stands in for calibration, search and guard; writes these networks."""

    def add(folder: Path, manifest: Manifest) -> tuple[PrecisionResult, dict[str, Any]]:
        assert {path.name for path in folder.iterdir()} == {"model.fp32.onnx"}
        assert manifest == MANIFEST
        variants = [Variant("fp32", folder / network_name("fp32"), NOBODY, True, {})]
        for precision, content in contents.items():
            passed = precision not in rejected
            path = folder / (network_name(precision) if passed else f"model.{precision}.onnx.rejected")
            path.write_bytes(content)
            variants.append(Variant(precision, path, NOBODY, passed, {}))
        (folder / "report.html").write_text("new page")
        rows = [{"precision": v.precision, "verdict": "rejected" if not v.passed else "ok"} for v in variants]
        report = {"variants": rows, "guard": {"measure": f"AP of {len(contents)}"}}
        return PrecisionResult(tuple(variants), NOBODY, "AP", 0.5), report

    return add


def put(bundle: Path, name: str, role: str, precision: str, content: bytes) -> None:
    (bundle / name).parent.mkdir(exist_ok=True)
    (bundle / name).write_bytes(content)
    artefact = Artefact(role, precision, hashlib.sha256(content).hexdigest(), len(content), {"by": "me"})
    manifest = read_manifest(bundle)
    changed = dataclasses.replace(manifest, artefacts={**manifest.artefacts, name: artefact})
    (bundle / "manifest.json").write_text(changed.to_json())


def files(bundle: Path) -> dict[str, bytes]:
    return {str(path.relative_to(bundle)): path.read_bytes() for path in bundle.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def golden(monkeypatch: pytest.MonkeyPatch) -> list[Manifest]:
    """Manifests that a golden frame was asked for; none is drawn, because these networks compute nothing."""
    asked: list[Manifest] = []

    def write(folder: Path, manifest: Manifest, reporter: Any) -> Manifest:
        networks = [name for name, artefact in manifest.artefacts.items() if artefact.role == "network"]
        assert all((folder / name).is_file() for name in networks)
        asked.append(manifest)
        content = repr(sorted(networks)).encode()
        (folder / "golden.npz").write_bytes(content)
        golden = Artefact("golden", "", hashlib.sha256(content).hexdigest(), len(content))
        return dataclasses.replace(manifest, artefacts={**manifest.artefacts, "golden.npz": golden})

    monkeypatch.setattr(existing_bundle, "write_golden", write)
    return asked


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """With engines of both networks, compiled kernels, a signature and somebody's notes."""
    bundle = write_small_bundle(tmp_path / "b")
    put(bundle, "model.int8.onnx", "network", "int8", b"old int8")
    put(bundle, "model.int8.rtx.plan", "engine", "int8", b"int8 plan")
    put(bundle, "model.fp32.plan", "engine", "fp32", b"fp32 plan")
    put(bundle, "cubins/cubins.json", "kernels", "", b"{}")
    (bundle / "cubins" / "one.cubin").write_bytes(b"machine code")
    (bundle / "manifest.json.sig").write_bytes(bytes(64))
    (bundle / "notes.txt").write_text("mine")
    return bundle


def extend(bundle: Path, contents: Mapping[str, bytes], rejected: tuple[str, ...] = ()) -> tuple[Any, list[str]]:
    told = Recorder()
    return ExistingBundle(bundle).extend(maker(contents, rejected), reporter=told), told.lines


def test_another_precision_is_added_and_nothing_is_lost(bundle: Path) -> None:
    (bundle / "signature.json").write_bytes(encode_record("SHA256:0", (bundle / "manifest.json").read_bytes()))
    before, manifest = files(bundle), read_manifest(bundle)
    extended, said = extend(bundle, {"fp16": b"half"})
    after = files(bundle)
    assert (extended.removed, said) == ((), [])
    assert after["model.fp16.onnx"] == b"half"
    changed = {"manifest.json", "report.json"}
    assert set(after) - set(before) == {"golden.npz", "model.fp16.onnx", "report.html"}
    assert set(before) - set(after) == {"manifest.json.sig", "signature.json"}
    assert all(after[name] == before[name] for name in set(after) & set(before) - changed)
    now = read_manifest(bundle)
    assert now == extended.manifest
    added = {"golden.npz", "model.fp16.onnx"}
    assert {n: a for n, a in now.artefacts.items() if n not in added} == manifest.artefacts
    assert now.artefacts["model.fp16.onnx"].precision == "fp16"
    assert [path.name for path in bundle.parent.iterdir()] == ["b"]


def test_a_golden_frame_is_drawn_of_all_networks(bundle: Path, golden: list[Manifest]) -> None:
    put(bundle, "golden.npz", "golden", "", b"old frame")
    extend(bundle, {"fp16": b"half"})
    (manifest,) = golden
    networks = [artefact.precision for artefact in manifest.artefacts.values() if artefact.role == "network"]
    assert sorted(networks) == ["fp16", "fp32", "int8"]


def test_engines_of_a_network_that_is_replaced_go(bundle: Path) -> None:
    extended, said = extend(bundle, {"int8": b"new int8"})
    assert extended.removed == ("model.int8.rtx.plan",)
    assert said == ["model.int8.rtx.plan is removed: the network that it was derived from no longer exists"]
    assert set(read_manifest(bundle).artefacts) == {
        "golden.npz",
        "model.fp32.onnx",
        "model.int8.onnx",
        "model.fp32.plan",
        "cubins/cubins.json",
    }
    assert not (bundle / "model.int8.rtx.plan").exists()


def test_engines_of_a_network_that_came_out_the_same_stay(bundle: Path) -> None:
    before = read_manifest(bundle).artefacts
    extended, said = extend(bundle, {"int8": b"old int8"})
    assert (extended.removed, said) == ((), [])
    after = read_manifest(bundle).artefacts
    assert after["model.int8.rtx.plan"] == before["model.int8.rtx.plan"]
    assert after["model.int8.onnx"].sha256 == before["model.int8.onnx"].sha256


def test_a_rejected_network_leaves_the_earlier_one(bundle: Path) -> None:
    extended, said = extend(bundle, {"int8": b"worse", "fp16": b"half"}, rejected=("int8",))
    assert (extended.removed, said) == ((), [])
    assert files(bundle)["model.int8.onnx"] == b"old int8"
    assert files(bundle)["model.int8.onnx.rejected"] == b"worse"
    assert {"model.int8.onnx", "model.int8.rtx.plan", "model.fp16.onnx"} <= set(read_manifest(bundle).artefacts)


def test_the_very_network_that_is_rejected_now_goes(bundle: Path) -> None:
    """The same bytes, judged by better images."""
    extended, said = extend(bundle, {"int8": b"old int8"}, rejected=("int8",))
    assert set(extended.removed) == {"model.int8.onnx", "model.int8.rtx.plan"}
    assert len(said) == 2
    assert not {"model.int8.onnx", "model.int8.rtx.plan"} & set(files(bundle))
    assert files(bundle)["model.int8.onnx.rejected"] == b"old int8"


def test_a_reject_of_before_goes_with_a_new_attempt_only(bundle: Path) -> None:
    for precision in ("fp16", "int8"):
        (bundle / f"model.{precision}.onnx.rejected").write_bytes(b"bad")
    extend(bundle, {"fp16": b"half"})
    assert "model.fp16.onnx.rejected" not in files(bundle)
    assert files(bundle)["model.int8.onnx.rejected"] == b"bad"


def test_the_report_keeps_what_it_said_of_the_export_and_of_networks_that_stay(bundle: Path) -> None:
    extend(bundle, {"int8": b"int8"})
    extend(bundle, {"fp16": b"half", "int8-cpu": b"cpu"})
    report = json.loads((bundle / "report.json").read_bytes())
    assert (report["findings"], report["pruning"]) == (["made up"], {"removed": 0.4})
    assert report["verification"] == {"passed": True}
    assert [row["precision"] for row in report["precision"]["variants"]] == ["fp32", "fp16", "int8-cpu"]
    (earlier,) = report["earlier_precisions"]
    assert earlier["guard"] == {"measure": "AP of 1"}
    existing = ExistingBundle(bundle)
    result = PrecisionResult((Variant("fp32", bundle, NOBODY, True, {}),), NOBODY, "AP", 0.5)
    assert {(row["precision"], row["measure"]) for row in existing.earlier_rows(result)} == {
        ("int8", "AP of 1"),
        ("fp16", "AP of 2"),
        ("int8-cpu", "AP of 2"),
    }
    # A report on networks that are all made anew has nothing more to say.
    extend(bundle, {"fp16": b"half", "int8-cpu": b"cpu", "int8": b"int8"})
    assert json.loads((bundle / "report.json").read_bytes())["earlier_precisions"] == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, SystemExit])
def test_a_failure_leaves_the_bundle_as_it_was(bundle: Path, error: type[BaseException]) -> None:
    before = files(bundle)

    def fail(folder: Path, manifest: Manifest) -> Any:
        maker({"int8": b"new"})(folder, manifest)
        raise error

    with pytest.raises(error):
        ExistingBundle(bundle).extend(fail)
    assert files(bundle) == before
    assert [path.name for path in bundle.parent.iterdir()] == ["b"]


def test_an_engine_that_was_built_meanwhile_is_kept(bundle: Path) -> None:
    def add(folder: Path, manifest: Manifest) -> Any:
        put(bundle, "model.fp32.rtx.plan", "engine", "fp32", b"just built")
        return maker({"fp16": b"half"})(folder, manifest)

    ExistingBundle(bundle).extend(add)
    assert "model.fp32.rtx.plan" in read_manifest(bundle).artefacts
    assert files(bundle)["model.fp32.rtx.plan"] == b"just built"


def test_a_network_that_was_exchanged_meanwhile_ends_it(bundle: Path) -> None:
    def add(folder: Path, manifest: Manifest) -> Any:
        (bundle / "model.fp32.onnx").unlink()
        put(bundle, "model.fp32.onnx", "network", "fp32", b"another")
        return maker({"fp16": b"half"})(folder, manifest)

    with pytest.raises(BundleError, match="got another float32 network"):
        ExistingBundle(bundle).extend(add)
    assert "model.fp16.onnx" not in files(bundle)


def test_a_manifest_that_lay_there_for_a_moment_is_not_what_networks_are_made_by(bundle: Path) -> None:
    """They would carry its classes inside, where engines and lone files have them from."""
    genuine = (bundle / "manifest.json").read_bytes()
    document = json.loads(genuine)
    document["class_names"][0] = "person"
    (bundle / "manifest.json").write_text(json.dumps(document))
    existing = ExistingBundle(bundle)
    (bundle / "manifest.json").write_bytes(genuine)

    def add(folder: Path, manifest: Manifest) -> Any:
        assert manifest.class_names[0] == "person"
        return maker({"fp16": b"half"})(folder, MANIFEST)

    with pytest.raises(BundleError, match="got another manifest from another process"):
        existing.extend(add)
    assert "model.fp16.onnx" not in files(bundle)


def test_networks_are_made_of_a_copy(bundle: Path) -> None:
    """Who owns the bundle's file may write it once it was compared, and put it back."""
    network = bundle / "model.fp32.onnx"
    genuine = network.read_bytes()

    def add(folder: Path, manifest: Manifest) -> Any:
        network.write_bytes(b"forged")
        seen.append((folder / network.name).read_bytes())
        network.write_bytes(genuine)
        return maker({"fp16": b"half"})(folder, manifest)

    seen: list[bytes] = []
    ExistingBundle(bundle).extend(add)
    assert seen == [genuine]


def test_a_link_to_a_bundle_stays_a_link(bundle: Path) -> None:
    link = bundle.with_name("link")
    link.symlink_to(bundle.name)
    extend(link, {"fp16": b"half"})
    assert link.readlink() == Path("b")
    assert files(bundle)["model.fp16.onnx"] == b"half"
    assert sorted(path.name for path in bundle.parent.iterdir()) == ["b", "link"]


def test_what_is_put_into_the_bundle_meanwhile_stays(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = existing_bundle.write_golden

    def slowly(folder: Path, manifest: Manifest, reporter: Any) -> Manifest:
        (bundle / "late.txt").write_text("mine, too")
        put(bundle, "model.fp32.rtx.plan", "engine", "fp32", b"built meanwhile")
        return write(folder, manifest, reporter)

    monkeypatch.setattr(existing_bundle, "write_golden", slowly)
    extend(bundle, {"fp16": b"half"})
    assert files(bundle)["late.txt"] == b"mine, too"
    assert {"model.fp16.onnx", "model.fp32.rtx.plan", "golden.npz"} <= set(read_manifest(bundle).artefacts)


def test_the_files_of_the_bundle_are_not_written_to(bundle: Path, tmp_path: Path) -> None:
    """A new network must not be written through a link into the earlier one, which another folder may share."""
    other = tmp_path / "int8 elsewhere"
    os.link(bundle / "model.int8.onnx", other)
    extend(bundle, {"int8": b"new int8"})
    assert other.read_bytes() == b"old int8"


def change(bundle: Path, what: str) -> None:
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    if what == "damaged":
        path = bundle / "model.fp32.onnx"
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    elif what == "no network":
        del manifest["artefacts"]["model.fp32.onnx"]
    elif what == "missing":
        (bundle / "model.fp32.onnx").unlink()
    elif what == "older":
        manifest["schema_version"] = 0
    elif what == "report":
        (bundle / "report.json").write_text("{")
    elif what == "list":
        (bundle / "report.json").write_text("[]")
    elif what == "int8":
        (bundle / "model.int8.onnx").write_bytes(b"another int8")
    elif what == "rescoring":
        manifest["mask_rescoring"] = True
    elif what == "no manifest":
        (bundle / "manifest.json").unlink()
        return
    (bundle / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("damaged", "model.fp32.onnx is not the file that the manifest describes.*export the checkpoint again"),
        ("no network", r"has no model.fp32.onnx.*\(its networks: int8\).*yolact-export CHECKPOINT.pth --int8"),
        ("missing", "model.fp32.onnx is missing"),
        ("older", r"schema version 0 is not one of any release; .*export the checkpoint again"),
        ("report", "cannot read .*report.json, which would be replaced.*move it away"),
        ("list", "report.json is not a JSON object"),
        # The golden frame that is made of it would lack an expectation that was there.
        ("int8", "model.int8.onnx is not the file that the manifest describes"),
        ("rescoring", r"YOLACT\+\+ bundle without mask_iou.fp32.onnx"),
        ("no manifest", "is not a bundle: it has no manifest.json"),
    ],
)
def test_what_cannot_be_extended_says_why(bundle: Path, what: str, message: str) -> None:
    change(bundle, what)
    before = files(bundle)
    with pytest.raises((BundleError, ManifestError), match=message):
        ExistingBundle(bundle)
    assert files(bundle) == before


@pytest.mark.parametrize(
    "report",
    [
        {"precision": {"guard": 5, "variants": [1, 2]}},
        {"precision": {"guard": {"measure": 3}, "variants": 7}},
        {"precision": {"variants": [{"precision": ["x"]}]}},
        {"precision": {"variants": [{"precision": "fp16", "verdict": 5}]}},
        {"earlier_precisions": 5},
        {"earlier_precisions": [[]]},
    ],
    ids=str,
)
def test_a_report_of_others_is_refused_before_anything_is_done(bundle: Path, report: dict[str, Any]) -> None:
    (bundle / "report.json").write_text(json.dumps(report))
    with pytest.raises(BundleError, match="is not a report of yolact-export"):
        ExistingBundle(bundle)


def test_a_bundle_without_a_report_gets_one(bundle: Path) -> None:
    (bundle / "report.json").unlink()
    extend(bundle, {"fp16": b"half"})
    assert set(json.loads((bundle / "report.json").read_bytes())) == {"precision", "earlier_precisions"}


ATTEMPTS = st.lists(
    st.dictionaries(st.sampled_from(PRECISIONS), st.tuples(st.sampled_from([b"a", b"b"]), st.booleans()), min_size=1),
    min_size=1,
    max_size=3,
)


@given(attempts=ATTEMPTS, built=st.lists(st.sampled_from(("fp32", *PRECISIONS)), max_size=3))
@examples(12)
def test_whatever_is_made_in_whatever_order_the_manifest_is_the_folder(
    attempts: list[dict[str, tuple[bytes, bool]]], built: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    bundle = write_small_bundle(tmp_path_factory.mktemp("any") / "b")
    for number, attempt in enumerate(attempts):
        extend(
            bundle,
            {name: content for name, (content, _) in attempt.items()},
            tuple(name for name, (_, passed) in attempt.items() if not passed),
        )
        listed = read_manifest(bundle).artefacts
        for name, artefact in listed.items():
            assert file_sha256(bundle / name) == artefact.sha256
        others = {"manifest.json", "report.json", "report.html"}
        assert {n for n in files(bundle) if not n.endswith(".rejected")} == {*listed, *others}
        for precision, (content, passed) in attempt.items():
            network = listed.get(network_name(precision))
            assert not passed or (network is not None and files(bundle)[network_name(precision)] == content)
            assert passed or network is None or files(bundle)[network_name(precision)] != content
        # Engines of the networks that are there: each says what it was built of, and stays no longer than that.
        for name, artefact in listed.items():
            if artefact.role == "engine":
                assert files(bundle)[name] == files(bundle)[network_name(artefact.precision)]
        if number < len(built) and network_name(built[number]) in listed:
            content = files(bundle)[network_name(built[number])]
            put(bundle, f"model.{built[number]}.plan", "engine", built[number], content)


def test_the_bit_depth_of_the_images_stays_in_the_bundle(bundle: Path) -> None:
    add = maker({"fp16": b"half"})

    def add_to_any(folder: Path, manifest: Manifest) -> tuple[PrecisionResult, dict[str, Any]]:
        plain = dataclasses.replace(manifest, input=dataclasses.replace(manifest.input, bit_depth=None))
        return add(folder, plain)  # type: ignore[no-any-return]

    for bit_depth, stated in ((None, None), (12, 12), (None, 12), (10, 10)):
        ExistingBundle(bundle).extend(add_to_any, bit_depth)
        assert read_manifest(bundle).input.bit_depth == stated
