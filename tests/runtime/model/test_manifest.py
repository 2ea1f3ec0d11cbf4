from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from support.scenes import small_manifest
from yolact_plugins.text import unprintable
from yolact_runtime.errors import ManifestError
from yolact_runtime.model import manifest_document
from yolact_runtime.model.manifest import (
    MAX_MANIFEST_BYTES,
    SCHEMA_VERSION,
    Artefact,
    DetectionSpec,
    InputSpec,
    Manifest,
    NetworkDtypes,
    PriorSpec,
)

numbers = st.floats(-1e6, 1e6)
positive = st.floats(1e-3, 1e6)
triples = st.tuples(numbers, numbers, numbers)
names = st.text(max_size=20).filter(lambda name: unprintable(name) is None)
inputs = st.builds(
    InputSpec,
    height=st.integers(1, 4000),
    width=st.integers(1, 4000),
    mean_bgr=triples,
    std_bgr=st.tuples(positive, positive, positive),
    channel_order=st.sampled_from(["RGB", "BGR"]),
    bit_depth=st.none() | st.integers(8, 16),
)
levels = st.lists(
    st.tuples(
        st.tuples(st.integers(1, 200), st.integers(1, 200)), st.lists(positive, min_size=1, max_size=3).map(tuple)
    ),
    min_size=1,
    max_size=5,
)
priors = st.builds(
    lambda rows, ratios, square, variances: PriorSpec(
        tuple(size for size, _ in rows), tuple(scales for _, scales in rows), ratios, square, variances
    ),
    levels,
    st.lists(positive, min_size=1, max_size=4).map(tuple),
    st.booleans(),
    st.tuples(positive, positive),
)
detections = st.builds(
    DetectionSpec,
    score_threshold=st.floats(0, 0.99),
    iou_threshold=st.floats(0, 1),
    top_k=st.integers(1, 10**6),
    max_instances=st.integers(1, 10**6),
)
dtypes = st.builds(NetworkDtypes, *[st.sampled_from(["float32", "float16"])] * 2)
artefacts = st.builds(
    Artefact,
    role=names,
    precision=names,
    sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    size_bytes=st.integers(0, 2**63),
    build=st.dictionaries(names, names, max_size=3),
    dtypes=st.none() | dtypes,
)
manifests = st.builds(
    Manifest,
    name=names,
    class_names=st.lists(names, min_size=1, max_size=6).map(tuple),
    input=inputs,
    priors=priors,
    detection=detections,
    mask_rescoring=st.booleans(),
    precision=names,
    provenance=st.dictionaries(names, names, max_size=4),
    artefacts=st.dictionaries(names, artefacts, max_size=3),
    dtypes=dtypes,
)


@examples(150)
@given(manifests)
def test_json_gives_the_manifest_back(manifest: Manifest) -> None:
    text = manifest.to_json()
    assert Manifest.from_json(text, "x") == manifest
    assert Manifest.from_json(text.encode(), "x") == manifest
    assert Manifest.from_json(text, "x").to_json() == text


def test_json_is_text_for_people() -> None:
    text = small_manifest(class_names=("Straßenbahn", "猫")).to_json()
    assert text.endswith("}\n")
    assert "猫" in text
    assert json.loads(text)["schema_version"] == SCHEMA_VERSION == 3


def test_types_come_back_as_they_are_annotated() -> None:
    manifest = Manifest.from_json(small_manifest().to_json(), "x")
    assert isinstance(manifest.class_names, tuple)
    assert isinstance(manifest.priors.feature_sizes[0], tuple)
    assert isinstance(manifest.input, InputSpec)


def test_whole_numbers_pass_where_fractions_are_allowed() -> None:
    document = json.loads(small_manifest().to_json())
    document["detection"]["score_threshold"] = 0
    threshold = Manifest.from_json(json.dumps(document), "x").detection.score_threshold
    assert (threshold, type(threshold)) == (0.0, float)


def test_the_published_detection_settings_are_the_defaults() -> None:
    assert DetectionSpec() == DetectionSpec(score_threshold=0.05, iou_threshold=0.5, top_k=200, max_instances=100)
    assert small_manifest().priors.variances == (0.1, 0.2)


def test_the_number_of_priors() -> None:
    assert small_manifest().priors.num_priors == (4 * 6 + 2 * 3) * 3


# --- malformed --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON: it is empty; it should be a manifest"),
        ("{", "not JSON"),
        (b"\xff\xfe\x00", "is not text in UTF-16-LE"),
        (b"\x89PNG\r\n", "is not text: it is a PNG image"),
        ("[" * 100000, "nested too deep"),
        ('{"schema_version": ' + "1" * 5000 + "}", "not JSON"),
        ('{"schema_version": 2, "schema_version": 2}', 'the key "schema_version" twice'),
        ('{"schema_version": 2, "name": "\\ud800"}', "half of a surrogate pair"),
        ('{"schema_version": 2, "name": "\ud800"}', "is not text in UTF-8"),
        ('{"schema_version": NaN}', "schema version nan"),
        ("[]", "must be a JSON object, found list"),
        ('"manifest"', "must be a JSON object, found str"),
        ("null", "must be a JSON object, found NoneType"),
        ("{}", r"schema version None is not one of any release; this release, 0\..* reads versions 1 to 3"),
        ('{"schema_version": 0, "provenance": {"yolact-deploy": "0.0.1"}}', r"\(yolact-deploy 0\.0\.1 wrote this\)"),
        ('{"schema_version": true}', "schema version True is not one of"),
        ('{"schema_version": 1.0}', r"schema version 1\.0 is not one of"),
        ('{"schema_version": 1}', "manifest lacks name, class_names, input, priors"),
        (
            '{"schema_version": 4, "provenance": {"yolact-deploy": "0.9.1"}}',
            r"version 4, of yolact-deploy 0\.9\.1, a newer release; this release, .* Install yolact-deploy 0\.9\.1,",
        ),
        (
            '{"schema_version": 4, "provenance": {"yolact-deploy": "\\u001b"}}',
            "4, of a newer release.*Install the release",
        ),
        (
            '{"schema_version": 4, "provenance": 7}',
            "4, of a newer release.*Install the release that wrote it, or export",
        ),
        ('{"schema_version": "2"}', "schema version '2'"),
        ('{"schema_version": 2}', "manifest lacks name, class_names, input, priors"),
    ],
)
def test_what_is_no_manifest(text: str | bytes, message: str) -> None:
    with pytest.raises(ManifestError, match=message) as raised:
        Manifest.from_json(text, "model.bundle/manifest.json")
    assert str(raised.value).startswith("model.bundle/manifest.json")
    assert len(str(raised.value)) < 300


def test_a_document_that_is_too_long_is_not_looked_at() -> None:
    with pytest.raises(ManifestError, match="4194306 bytes are too long for a manifest, which has at most 4194304"):
        Manifest.from_json(" " * (4 << 20) + "{}", "here")


def _drop(*path: str) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        for key in path[:-1]:
            document = document[key]
        del document[path[-1]]

    return change


def _put(value: object, *path: str | int) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        # Missing and unknown fields.
        (_drop("class_names"), "manifest lacks class_names"),
        (_drop("input", "mean_bgr"), r"manifest\.input lacks mean_bgr"),
        (_drop("detection", "top_k"), r"manifest\.detection lacks top_k"),
        (_put(1, "future"), "manifest has unknown fields future"),
        (_put(1, "priors", "clip"), r"manifest\.priors has unknown fields clip"),
        # Wrong kinds.
        (_put(True, "schema_version"), "schema version True"),
        (_put(3.0, "schema_version"), r"manifest\.schema_version must be int, found 3\.0"),
        (_put(7, "name"), r"manifest\.name must be str, found 7"),
        (_put(None, "name"), r"manifest\.name must be str, found None"),
        (_put("cat", "class_names"), r"manifest\.class_names must be a list, found str"),
        (_put(["cat", 2], "class_names"), r"manifest\.class_names\[1\] must be str, found 2"),
        (_put([], "input"), r"manifest\.input must be an object, found list"),
        (_put("550", "input", "height"), r"manifest\.input\.height must be int, found '550'"),
        (_put(550.0, "input", "height"), r"manifest\.input\.height must be int, found 550\.0"),
        (_put(True, "input", "width"), r"manifest\.input\.width must be int, found True"),
        (_put([1.0, 2.0], "input", "mean_bgr"), r"manifest\.input\.mean_bgr must have 3 entries, found 2"),
        (_put([1.0, 2.0, "3"], "input", "mean_bgr"), r"manifest\.input\.mean_bgr\[2\] must be float, found '3'"),
        (_put([1.0, 2.0, True], "input", "std_bgr"), r"manifest\.input\.std_bgr\[2\] must be float, found True"),
        (_put([[4]], "priors", "feature_sizes"), r"manifest\.priors\.feature_sizes\[0\] must have 2 entries, found 1"),
        (_put([8.0, 16.0], "priors", "scales_px"), r"manifest\.priors\.scales_px\[0\] must be a list, found float"),
        (_put(0, "priors", "square"), r"manifest\.priors\.square must be bool, found 0"),
        (_put(0.5, "detection", "top_k"), r"manifest\.detection\.top_k must be int, found 0\.5"),
        (_put("false", "mask_rescoring"), r"manifest\.mask_rescoring must be bool, found 'false'"),
        (_put([], "provenance"), r"manifest\.provenance must be an object, found list"),
        (_put({"torch": 2}, "provenance"), r"manifest\.provenance\.torch must be str, found 2"),
        (_put({"a.onnx": "hash"}, "artefacts"), r"manifest\.artefacts\.a\.onnx must be an object, found str"),
        (_put({"a.onnx": {}}, "artefacts"), r"manifest\.artefacts\.a\.onnx lacks role, precision, sha256, size_bytes"),
        # Numbers that JSON can write and arithmetic cannot use.
        (_put(float("nan"), "detection", "score_threshold"), r"score_threshold must be a finite number, found nan"),
        (_put(float("inf"), "input", "mean_bgr", 0), r"mean_bgr\[0\] must be a finite number, found inf"),
        (_put(10**400, "input", "mean_bgr", 0), r"mean_bgr\[0\] must be a finite number"),
        # Values that make no model.
        (_put(0, "input", "height"), "input size must be positive, found 0 x 48"),
        (_put(-5, "input", "width"), "input size must be positive, found 32 x -5"),
        (_put("RBG", "input", "channel_order"), 'input.channel_order must be "RGB" or "BGR", found "RBG"'),
        (_put("letterbox", "input", "resize"), 'input.resize must be "stretch", found "letterbox"'),
        (_put([1.0, 0.0, 1.0], "input", "std_bgr"), "input.std_bgr must not contain zero"),
        (_put([[8.0]], "priors", "scales_px"), "priors: 2 feature sizes but scales for 1 levels"),
        (_put([[4, 6], [0, 3]], "priors", "feature_sizes"), r"priors\.feature_sizes must be positive"),
        (_put([[4, 6], [-2, -3]], "priors", "feature_sizes"), r"priors\.feature_sizes must be positive"),
        (_put([[8.0], [0.0]], "priors", "scales_px"), r"priors\.scales_px must be positive"),
        (_put([1.0, -0.5], "priors", "aspect_ratios"), r"priors\.aspect_ratios must be positive"),
        (_put([], "priors", "aspect_ratios"), "there are no priors"),
        (_put([[], []], "priors", "scales_px"), "there are no priors"),
        (_put(1.0, "detection", "score_threshold"), r"detection\.score_threshold must lie in \[0, 1\), found 1\.0"),
        (_put(-0.1, "detection", "score_threshold"), r"detection\.score_threshold must lie in \[0, 1\), found -0\.1"),
        (_put(50, "detection", "iou_threshold"), r"detection\.iou_threshold must lie in \[0, 1\], found 50"),
        (_put(0, "detection", "top_k"), r"detection\.top_k must be 1 or more, found 0"),
        (_put(-1, "detection", "max_instances"), r"detection\.max_instances must be 1 or more, found -1"),
        (_put([], "class_names"), "class_names must not be empty"),
        (_drop("dtypes"), "manifest lacks dtypes"),
        (_drop("dtypes", "outputs"), r"manifest\.dtypes lacks outputs"),
        (_put("half", "dtypes"), r"manifest\.dtypes must be an object, found str"),
        (_put("int8", "dtypes", "outputs"), 'dtypes.outputs must be "float32" or "float16", found "int8"'),
        (_put(16, "dtypes", "input"), r"manifest\.dtypes\.input must be str, found 16"),
        # Numbers that become sizes of arrays.
        (_put([[10**18, 6], [2, 3]], "priors", "feature_sizes"), r"18000000000000000018 priors on 2 levels, more than"),
        (_put([[10**6, 6], [2, 3]], "priors", "feature_sizes"), r"priors: 18000018 priors on 2 levels, more than"),
        (_put(10**6, "input", "height"), "input size 1000000 x 48 is more than a model can have"),
        (_put(10**4000, "input", "width"), r"input size 32 x 10{10,80}\.\.\. is more than"),
        (_put([8192, 8192], "input", "height"), r"manifest\.input\.height must be int, found a list"),
        (_put(1e7, "input", "mean_bgr", 0), r"input\.mean_bgr must lie between -1e\+06 and 1e\+06, found 10000000\.0"),
        (_put(-58.0, "input", "std_bgr", 0), r"input\.std_bgr must lie between 1e-06 and 1e\+06, found -58\.0"),
        (_put(1e-300, "priors", "variances", 0), r"priors\.variances must lie between 1e-06 and 1e\+06"),
        (_put(1e300, "priors", "aspect_ratios", 0), r"priors\.aspect_ratios must lie between"),
        (_put(10**9, "detection", "top_k"), r"detection\.top_k must be 1000000 at most"),
        # Names that would reach terminals and logs.
        (_put(["cat\n", "b", "c"], "class_names"), r"class_names\[0\] is .*U\+000A is not allowed in a name"),
        (_put(["\ufeffcat", "b", "c"], "class_names"), r"U\+FEFF is not allowed in a name"),
        (_put("\x1b[2J", "name"), r"name is .*U\+001B is not allowed in a name"),
        (_put("x" * 5000, "name"), "name has 5000 characters, 1000 at most"),
        (_put({"x" * 5000: 1}, "provenance"), r"manifest\.provenance\.x{60,80}\.\.\. must be str, found 1"),
        (_put({}, "x" * 5000), "manifest has unknown fields x"),
        # More of something than any model has.
        (_put([8.0] * 65, "priors", "scales_px", 0), r"manifest\.priors\.scales_px\[0\] has 65 entries, 64 at most"),
        (_put([1.0] * 65, "priors", "aspect_ratios"), r"manifest\.priors\.aspect_ratios has 65 entries, 64 at most"),
        (_put([[1, 1]] * 65, "priors", "feature_sizes"), r"feature_sizes has 65 entries, 64 at most"),
        (_put(["a"] * 65537, "class_names"), r"manifest\.class_names has 65537 entries, 65536 at most"),
        (_put({str(i): "" for i in range(1001)}, "provenance"), r"provenance has 1001 entries, 1000 at most"),
        (_put({str(i): {} for i in range(1001)}, "artefacts"), r"artefacts has 1001 entries, 1000 at most"),
        (_put({"torch": "x" * 10_001}, "provenance"), r"provenance\.torch has 10001 characters, 10000 at most"),
        (_put({"x" * 1001: ""}, "provenance"), r"provenance: a key has 1001 characters, 1000 at most"),
        (_put({"torch": "\x1b[2J"}, "provenance"), r"provenance\.torch is .*U\+001B is not allowed"),
    ],
)
def test_malformed_manifests_are_refused_with_the_place_and_what_was_found(
    change: Callable[[Any], None], message: str
) -> None:
    document = json.loads(small_manifest().to_json())
    change(document)
    with pytest.raises(ManifestError, match=message) as raised:
        Manifest.from_json(json.dumps(document), "here")
    assert str(raised.value).startswith("here: ")
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("encode", [lambda text: b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(), None])
def test_a_manifest_from_a_windows_editor(encode: Callable[[str], bytes] | None) -> None:
    manifest = small_manifest(class_names=("Straßenbahn", "猫"))
    text = manifest.to_json()
    content = encode(text) if encode is not None else text.encode("utf-16")
    assert Manifest.from_json(content, "x") == manifest


def test_no_priors_at_all() -> None:
    with pytest.raises(ManifestError, match="there are no priors"):
        PriorSpec((), (), (1.0,), square=False)


@examples(150)
@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
        lambda child: st.one_of(
            st.lists(child, max_size=3), st.dictionaries(st.sampled_from(["name", "role", "x"]), child, max_size=3)
        ),
        max_leaves=6,
    ),
    st.sampled_from([field for field in json.loads(small_manifest().to_json()) if field != "schema_version"]),
)
def test_any_value_in_any_field_is_read_or_refused(value: object, field: str) -> None:
    document = json.loads(small_manifest().to_json())
    document[field] = value
    try:
        manifest = Manifest.from_json(json.dumps(document), "x")
    except ManifestError:
        return
    assert Manifest.from_json(manifest.to_json(), "x") == manifest


ENTRY = {"role": "network", "precision": "fp32", "sha256": "ab" * 32, "size_bytes": 1, "build": {}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": "AB" * 32}, "artefacts: sha256 must be 64 hexadecimal digits in lower case, found 'ABAB"),
        ({"sha256": "\x1b[2J"}, r"artefacts: sha256 must be 64 .* found '\\x1b"),
        ({"sha256": "ab" * 32 + "\n"}, "artefacts: sha256 must be 64"),
        ({"size_bytes": -1}, "size_bytes cannot be -1"),
        ({"size_bytes": 2**70}, "size_bytes cannot be"),
        ({"build": {"gpu": "a\nb"}}, r"artefacts: build\.gpu is .*U\+000A"),
        ({"build": {str(i): "" for i in range(1001)}}, r"build has 1001 entries"),
    ],
)
def test_an_artefact_that_is_none(changes: dict[str, Any], message: str) -> None:
    document = json.loads(small_manifest().to_json())
    document["artefacts"] = {"model.fp32.onnx": {**ENTRY, **changes}}
    with pytest.raises(ManifestError, match=message):
        Manifest.from_json(json.dumps(document), "x")


@given(manifests, st.sampled_from([1, 2]))
@examples(50)
def test_a_manifest_of_an_earlier_schema_version_is_read(manifest: Manifest, version: int) -> None:
    """What is not in it is what its release could not write: dtypes other than float32, and facts of a build."""
    document = json.loads(manifest.to_json())
    document["schema_version"] = version
    del document["dtypes"]
    for entry in document["artefacts"].values():
        entry.pop("dtypes", None)
        if version == 1:
            del entry["build"]
    found = Manifest.from_json(json.dumps(document), "x")
    bare = {
        name: dataclasses.replace(entry, dtypes=None, build={} if version == 1 else entry.build)
        for name, entry in manifest.artefacts.items()
    }
    assert found == dataclasses.replace(manifest, artefacts=bare, dtypes=NetworkDtypes("float32", "float32"))
    for entry in found.artefacts.values():
        described = entry.described_by(found)
        assert (described.precision, described.dtypes) == (entry.precision, NetworkDtypes())


def test_an_artefact_says_what_its_own_network_is() -> None:
    half = NetworkDtypes("float32", "float16")
    entry = Artefact("network", "fp16", "0" * 64, 7, dtypes=half)
    manifest = small_manifest(artefacts={"model.fp16.onnx": entry})
    assert manifest.dtypes == NetworkDtypes()
    assert entry.described_by(manifest) == dataclasses.replace(manifest, precision="fp16", dtypes=half)
    document = json.loads(manifest.to_json())
    assert document["artefacts"]["model.fp16.onnx"]["dtypes"] == {"input": "float32", "outputs": "float16"}


def test_a_manifest_is_written_in_one_version() -> None:
    with pytest.raises(ManifestError, match="schema_version must be 3, found 1"):
        small_manifest(schema_version=1)


# Everything that JSON can say and Python reads, also much of it: lists and objects as long as their document may be.
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**31, 2**63, 10**18, -(10**18), 10**300, 10**4200, 1e308, -1e308, 1e-320]),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["x" * 2000, "\x1b[2J", "\u202e"]),
)
few = st.recursive(
    scalars,
    lambda child: st.lists(child, max_size=3) | st.dictionaries(st.text(max_size=3), child, max_size=3),
    max_leaves=3,
)


def repeated(scalar: Any, count: int) -> list[Any]:
    """Not so often that the document is twice as long as what is read of one: Python would write a gigabyte."""
    return [scalar] * min(count, 2 * MAX_MANIFEST_BYTES // len(json.dumps(scalar)))


values = st.one_of(
    few,
    st.builds(repeated, scalars, st.sampled_from([65, 10_000, 300_000])),
    st.tuples(scalars, st.sampled_from([65, 300])).map(lambda pair: repeated(repeated(*pair), pair[1])),
    st.tuples(few, st.sampled_from([65, 2000])).map(lambda pair: {str(i): pair[0] for i in range(pair[1])}),
)


@examples(150)
@given(st.data())
def test_any_value_in_any_place_costs_little(data: st.DataObject) -> None:
    """Counted, not timed: how many values of a document are looked at, and what arrays a manifest may ask for."""
    document = full_document()
    place = data.draw(st.sampled_from(places(document)))
    _put(data.draw(values), *place)(document)
    looked = 0
    really = manifest_document._decode

    def count(*arguments: Any) -> Any:
        nonlocal looked
        looked += 1
        return really(*arguments)

    text = json.dumps(document)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest_document, "_decode", count)
        try:
            manifest = Manifest.from_json(text, "here")
        except ManifestError as error:
            refusal = str(error)
        else:
            refusal = "here"
            assert Manifest.from_json(manifest.to_json(), "x") == manifest
            assert manifest.priors.num_priors <= 1 << 22
            assert manifest.input.height * manifest.input.width <= 1 << 24
            assert max(manifest.detection.top_k, manifest.detection.max_instances) <= 10**6
    assert looked < 70_000
    assert refusal.startswith("here")
    assert len(refusal) < 500


HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 10**6, 10**18, 10**19, 10**300, -(10**18), 10**4200),
    *(0.5, 1e308, -1e308, 1e-320, float("nan"), float("inf"), float("-inf")),
    *("", "550", "nan", "\x00", "\x1b]0;a\x07", "\u202e", "x" * 10_000),
    *([], [None], [[]], [1] * 3, [10**18] * 3, [[10**6, 10**6]] * 2, [[1e300]] * 2, [""] * 3, ["a"] * 10**5),
    *({}, {"": None}, {"x": {}}, {"../a": "b"}),
)


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a document, containers included."""
    inner: list[tuple[Any, Any]] = []
    if isinstance(document, dict):
        inner = list(document.items())
    elif isinstance(document, list):
        inner = list(enumerate(document))
    return [*([path] if path else []), *(place for key, value in inner for place in places(value, (*path, key)))]


def full_document() -> Any:
    listed = Artefact("network", "fp32", "ab" * 32, 10, {"arch": "sm_87"})
    return json.loads(small_manifest(artefacts={"model.fp32.onnx": listed}).to_json())


@pytest.mark.parametrize("place", places(full_document()), ids=lambda place: ".".join(map(str, place)))
def test_a_hostile_value_anywhere_is_refused_or_harmless(place: tuple[Any, ...]) -> None:
    refusals: list[str] = []
    for value in HOSTILE:
        document = full_document()
        _put(value, *place)(document)
        try:
            manifest = Manifest.from_json(json.dumps(document), "here")
        except ManifestError as error:
            refusals.append(str(error))
            continue
        # What is accepted is written and read again, and fits into memory.
        assert Manifest.from_json(manifest.to_json().encode(), "x") == manifest
        assert manifest.priors.num_priors * 4 * 4 <= 1 << 27
        assert manifest.input.height * manifest.input.width * 3 * 4 <= 1 << 28
    assert refusals
    assert all(text.startswith("here") and len(text) < 500 for text in refusals)


def test_a_bit_depth_that_nobody_stated_is_not_written() -> None:
    manifest = small_manifest()
    assert "bit_depth" not in manifest.to_json()
    document = json.loads(manifest.to_json())
    document["input"]["bit_depth"] = None
    assert Manifest.from_json(json.dumps(document), "here") == manifest
    assert Manifest.from_json(manifest.to_json(), "here") == manifest


@pytest.mark.parametrize(("value", "message"), [(7, "between 8 and 16, found 7"), ("12", "must be int"), (12.5, "int")])
def test_a_bit_depth_that_is_none(value: object, message: str) -> None:
    document = json.loads(small_manifest().to_json())
    document["input"]["bit_depth"] = value
    with pytest.raises(ManifestError, match=message):
        Manifest.from_json(json.dumps(document), "here")
