from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.kernels import SAMPLE
from support.precompiled import made_up_cubin
from support.scenes import small_manifest
from yolact_plugins.compile import manifest_entry
from yolact_plugins.compile.cache import CubinCache
from yolact_plugins.compile.cubin_folder import FOLDER_NAME, INDEX_NAME, MANIFEST_NAME
from yolact_plugins.compile.manifest_entry import (
    KERNELS_ARTEFACT,
    KERNELS_ROLE,
    SCHEMA_VERSION,
    SIGNATURE_NAME,
    SIGNATURE_NAMES,
    SIGNATURE_RECORD_NAME,
    ManifestEntryError,
    check_manifest,
    migrated,
    put_kernels,
)
from yolact_plugins.text import unprintable
from yolact_runtime.model import bundle as runtime_bundle
from yolact_runtime.model import manifest as runtime_manifest
from yolact_runtime.model.manifest import Artefact, InputSpec, Manifest

CUBINS = [made_up_cubin("sm_87"), made_up_cubin("sm_90")]


def write_manifest(folder: Path, manifest: Manifest) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / MANIFEST_NAME).write_bytes(manifest.to_json().encode())
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    network = Artefact("network", "fp32", "0" * 64, 7)
    return write_manifest(tmp_path / "b", small_manifest(artefacts={"model.fp32.onnx": network}))


FLOAT32 = {"input": "float32", "outputs": "float32"}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_runtime_means_the_same() -> None:
    assert SCHEMA_VERSION == runtime_manifest.SCHEMA_VERSION == 3
    assert MANIFEST_NAME == runtime_bundle.MANIFEST_NAME == "manifest.json"
    assert SIGNATURE_NAME == runtime_bundle.SIGNATURE_NAME == "manifest.json.sig"
    assert SIGNATURE_RECORD_NAME == runtime_bundle.SIGNATURE_RECORD_NAME == "signature.json"


def test_the_entry(bundle: Path) -> None:
    assert put_kernels(bundle, CUBINS) is False
    index = (bundle / "cubins" / "cubins.json").read_bytes()
    manifest = Manifest.from_json((bundle / MANIFEST_NAME).read_bytes(), "x")
    assert list(manifest.artefacts) == ["model.fp32.onnx", "cubins/cubins.json"]
    assert manifest.artefacts[KERNELS_ARTEFACT] == Artefact(
        "kernels",
        "",
        hashlib.sha256(index).hexdigest(),
        len(index),
        {"archs": "sm_87, sm_90", "nvrtc_version": "13.5"},
    )


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.floats(allow_nan=False, allow_infinity=False)
triples = st.tuples(*[st.floats(-1e6, 1e6)] * 3)
labels = names.filter(lambda name: unprintable(name) is None)
hashes = st.text("0123456789abcdef", min_size=64, max_size=64)
artefact = st.builds(
    Artefact, labels, labels, hashes, st.integers(0, 1 << 60), st.dictionaries(labels, labels, max_size=3)
)
artefacts = st.dictionaries(labels | st.just(KERNELS_ARTEFACT), artefact, max_size=4)


@given(labels, triples, artefacts)
def test_nothing_but_the_entry_changes_and_the_layout_is_the_runtimes(
    name: str, mean: tuple[float, float, float], listed: dict[str, Artefact]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        spec = InputSpec(8, 8, mean, (1.0, 1.0, 1.0))
        bundle = write_manifest(Path(folder), small_manifest(name=name, input=spec, artefacts=listed))
        before = Manifest.from_json((bundle / MANIFEST_NAME).read_bytes(), "x")
        put_kernels(bundle, CUBINS)
        written = (bundle / MANIFEST_NAME).read_bytes()
    after = Manifest.from_json(written, "x")
    entry = after.artefacts[KERNELS_ARTEFACT]
    assert entry.role == KERNELS_ROLE
    # Also the order: a dict keeps the place of a key that was there.
    expected = dataclasses.replace(before, artefacts={**before.artefacts, KERNELS_ARTEFACT: entry})
    assert written == expected.to_json().encode()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(names, json_values, max_size=4), st.dictionaries(names, json_values, max_size=3))
def test_fields_that_this_package_knows_nothing_of_stay(fields: dict[str, Any], listed: dict[str, Any]) -> None:
    document = {**fields, "schema_version": SCHEMA_VERSION, "artefacts": listed}
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder)
        (bundle / MANIFEST_NAME).write_text(json.dumps(document))
        put_kernels(bundle, CUBINS)
        after = json.loads((bundle / MANIFEST_NAME).read_bytes())
    assert list(after) == list(document)
    assert after["artefacts"].pop(KERNELS_ARTEFACT)["role"] == KERNELS_ROLE
    assert after == document


@pytest.mark.parametrize("artefacts", [{}, {"model.fp32.onnx": {"role": "network"}, "odd": 7}, None, "missing"])
def test_a_manifest_of_the_first_schema_version(artefacts: object) -> None:
    document = {"schema_version": 1, "name": "old", "artefacts": artefacts}
    if artefacts == "missing":
        del document["artefacts"]
    before = json.dumps(document)
    after = migrated(document)
    assert json.dumps(document) == before
    assert after.pop("schema_version") == SCHEMA_VERSION
    listed = after.pop("artefacts", "missing")
    assert after == {"name": "old", "dtypes": FLOAT32}
    if isinstance(artefacts, dict) and artefacts:
        assert listed == {"model.fp32.onnx": {"role": "network", "build": {}}, "odd": 7}
    else:
        assert listed == artefacts
    assert migrated({**document, "schema_version": 3}) == {**document, "schema_version": 3}


def test_a_manifest_of_the_second_schema_version_is_one_of_float32() -> None:
    entry = {"role": "network", "build": {"a": "b"}}
    document = {"schema_version": 2, "name": "old", "artefacts": {"model.fp16.onnx": entry}}
    assert migrated(document) == {**document, "dtypes": FLOAT32, "schema_version": 3}
    # Whoever wrote it by hand meant something by it, which the runtime compares with the network.
    half = {"input": "float16", "outputs": "float16"}
    assert migrated({**document, "dtypes": half})["dtypes"] == half


def test_kernels_go_into_a_bundle_of_the_first_schema_version(bundle: Path) -> None:
    document = json.loads((bundle / MANIFEST_NAME).read_bytes())
    for entry in document["artefacts"].values():
        del entry["build"]
    (bundle / MANIFEST_NAME).write_text(json.dumps({**document, "schema_version": 1}))
    put_kernels(bundle, CUBINS)
    assert json.loads((bundle / MANIFEST_NAME).read_bytes())["schema_version"] == SCHEMA_VERSION
    manifest = Manifest.from_json((bundle / MANIFEST_NAME).read_bytes(), "x")
    assert list(manifest.artefacts) == ["model.fp32.onnx", KERNELS_ARTEFACT]


def test_kernels_that_are_compiled_again_replace_the_entry_and_the_files(bundle: Path) -> None:
    put_kernels(bundle, CUBINS)
    first = contents(bundle)
    put_kernels(bundle, [made_up_cubin("sm_80", b"other code")])
    document = json.loads((bundle / MANIFEST_NAME).read_bytes())
    assert document["artefacts"][KERNELS_ARTEFACT]["build"]["archs"] == "sm_80"
    assert [path.suffix for path in sorted((bundle / FOLDER_NAME).iterdir())] == [".json", ".cubin"]
    put_kernels(bundle, CUBINS)
    assert contents(bundle) == first


def test_a_signature_goes_and_that_is_said(bundle: Path) -> None:
    (bundle / SIGNATURE_NAME).write_bytes(bytes(64))
    (bundle / SIGNATURE_RECORD_NAME).write_text("{}")
    assert put_kernels(bundle, CUBINS) is True
    assert not (bundle / SIGNATURE_NAME).exists()
    assert not (bundle / SIGNATURE_RECORD_NAME).exists()
    assert put_kernels(bundle, CUBINS) is False


DAMAGED = {
    "no JSON": (b"{", "is not a valid bundle manifest: not JSON: line 1, column 2: Expecting property name"),
    "nothing": (b"", "is not a valid bundle manifest"),
    "no text": (b"\xff\xfe\xff", "is not a valid bundle manifest"),
    "nested": (b"[" * 100_000, "is not a valid bundle manifest: nested too deep to be read"),
    "a list": (b"[]", "is not a valid bundle manifest: it holds a list, not an object"),
    "another user's": (b'{"name": "My web app"}', "has schema version None; this release knows versions 1 to 3"),
    "older": (b'{"schema_version": 0, "artefacts": {}}', "schema version 0; this release knows versions 1 to 3.*again"),
    "a truth": (b'{"schema_version": true, "artefacts": {}}', "schema version True"),
    "newer": (b'{"schema_version": 4, "artefacts": {}}', "schema version 4; .*install the release that wrote it, or"),
    "text": (b'{"schema_version": "2", "artefacts": {}}', "schema version '2'"),
    "a fraction": (b'{"schema_version": 2.0, "artefacts": {}}', r"schema version 2\.0"),
    "no artefacts": (b'{"schema_version": 2}', "is not a valid bundle manifest: its artefacts are not an object"),
    "artefacts of nonsense": (b'{"schema_version": 2, "artefacts": []}', "its artefacts are not an object"),
    "half a character": (b'{"schema_version": 2, "artefacts": {}, "name": "\\ud800"}', "half of a surrogate pair"),
}


@pytest.mark.parametrize(("content", "message"), DAMAGED.values(), ids=DAMAGED)
def test_a_manifest_that_cannot_take_the_entry(bundle: Path, content: bytes, message: str) -> None:
    (bundle / MANIFEST_NAME).write_bytes(content)
    for work in (check_manifest, lambda folder: put_kernels(folder, CUBINS)):
        with pytest.raises(ManifestEntryError, match=message) as caught:
            work(bundle)
        assert str(bundle / MANIFEST_NAME) in str(caught.value)
        assert "-o" in str(caught.value)
    assert contents(bundle) == {MANIFEST_NAME: content}


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(ManifestEntryError, match=r"cannot read .*manifest\.json: No such file"):
        check_manifest(tmp_path)


@pytest.mark.parametrize("earlier", [True, False], ids=["kernels before", "none before"])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("victim", ["manifest", "index", "cubin"])
def test_a_failure_puts_back_what_was_there(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, earlier: bool, error: type[BaseException], victim: str
) -> None:
    if earlier:
        put_kernels(bundle, CUBINS)
    for name in SIGNATURE_NAMES:
        (bundle / name).write_bytes(bytes(64))
    before = contents(bundle)
    replace = Path.replace
    failed = []

    def fail_once(self: Path, target: Path) -> Path:
        kinds = {MANIFEST_NAME: "manifest", INDEX_NAME: "index"}
        if kinds.get(target.name, "cubin") == victim and not failed:
            failed.append(target)
            raise error("disk full")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail_once)
    with pytest.raises(error, match="disk full"):
        put_kernels(bundle, [made_up_cubin("sm_80", b"other code")])
    assert failed
    assert contents(bundle) == before
    assert (bundle / FOLDER_NAME).exists() is earlier


def test_a_failure_leaves_other_files_in_the_folder_alone(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (bundle / FOLDER_NAME).mkdir()
    (bundle / FOLDER_NAME / "notes.txt").write_text("mine")
    before = contents(bundle)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(manifest_entry, "_list", fail)
    with pytest.raises(OSError, match="disk full"):
        put_kernels(bundle, CUBINS)
    assert contents(bundle) == before


def test_a_file_in_the_place_of_the_folder_stays(bundle: Path) -> None:
    (bundle / FOLDER_NAME).write_text("a file where the folder should be")
    before = contents(bundle)
    with pytest.raises(OSError, match="exists"):
        put_kernels(bundle, CUBINS)
    assert contents(bundle) == before


def test_what_was_put_is_found(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_kernels(bundle, CUBINS)
    monkeypatch.setenv("YOLACT_FORBID_JIT", "1")
    for place in (bundle, bundle / FOLDER_NAME):
        assert CubinCache(bundle.parent / "cache", place).get(SAMPLE, "sm_90") == CUBINS[1]


def test_numbers_that_json_has_no_word_for_do_not_stop_it(bundle: Path) -> None:
    """The runtime refuses them; this package does not judge what it does not read."""
    (bundle / MANIFEST_NAME).write_text('{"schema_version": 2, "artefacts": {}, "x": NaN}')
    put_kernels(bundle, CUBINS)
    assert math.isnan(json.loads((bundle / MANIFEST_NAME).read_bytes())["x"])
