"""Text files as other editors and programs write them: class names, labels and manifests."""

from __future__ import annotations

import codecs
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from yolact_benchmarks.studies.bad_inputs.case import Answer, Case, num_instances, read_results
from yolact_benchmarks.studies.bad_inputs.ground import ROOT, Ground

__all__ = ["evaluated", "same_figures", "text_cases"]

_NAMES = ("disc", "ring", "square", "triangle", "star", "cross")
_SOUND: dict[str, Callable[[str], bytes]] = {
    "byte-order mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "Windows line ends": lambda text: text.replace("\n", "\r\n").encode(),
    "mark and Windows line ends": lambda text: codecs.BOM_UTF8 + text.replace("\n", "\r\n").encode(),
    "UTF-16, little-endian": lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
    "UTF-16, big-endian": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "UTF-16 without a mark": lambda text: text.encode("utf-16-le"),
    "UTF-32": lambda text: codecs.BOM_UTF32_LE + text.encode("utf-32-le"),
    "Latin-1": lambda text: text.replace("i", "\xef").encode("latin-1"),
    "cut in half": lambda text: text[: len(text) // 2].encode(),
    "zero bytes behind it": lambda text: text.encode() + b"\0" * 512,
    "empty": lambda _: b"",
}
_HOSTILE_JSON: dict[str, Callable[[str], str]] = {
    "lone surrogate": lambda text: text.replace("ring", "\\ud800", 1),
    "nested without end": lambda _: "[" * 100_000,
    "a key twice": lambda text: text.replace("{", '{"x": 1, "x": 2, ', 1),
    "NaN in it": lambda text: text.replace("{", '{"x": NaN, ', 1),
    "a number of 5,000 digits": lambda text: text.replace("{", '{"x": ' + "9" * 5000 + ", ", 1),
    "not JSON": lambda text: text.replace(":", "=", 1),
}


def text_cases(ground: Ground) -> Iterator[Case]:
    """Yield tries with an export's class names, an evaluation's labels and a bundle's manifest in every encoding."""
    yield from _class_names(ground)
    yield from _labels(ground)
    yield from _manifests(ground)


def _written(text: str, is_json: bool) -> Iterator[tuple[str, bytes]]:
    for name, encode in _SOUND.items():
        yield name, encode(text)
    for name, spoil in _HOSTILE_JSON.items() if is_json else ():
        yield name, spoil(text).encode()


def _class_names(ground: Ground) -> Iterator[Case]:
    texts = {"names.txt": "\n".join(_NAMES) + "\n", "names.json": json.dumps(_NAMES)}
    for file, text in texts.items():
        for name, content in _written(text, file.endswith(".json")):
            folder = ground.new_folder()
            (folder / file).write_bytes(content)
            bundle = folder / "b"
            words = (str(ROOT / "examples/models/shapes.pth"), "--class-names", str(folder / file), "-o", str(bundle))
            yield Case("class names", f"{file}: {name}", "yolact-export", (*words, "--no-engine"), _has_names(bundle))


def _has_names(bundle: Path) -> Callable[[Answer], bool]:
    def is_right(_: Answer) -> bool:
        document = read_results(bundle / "manifest.json")
        return document is not None and tuple(document["class_names"]) == _NAMES

    return is_right


def _labels(ground: Ground) -> Iterator[Case]:
    reference = evaluated(ground, ground.annotations)
    for name, content in _written(json.dumps(ground.document), is_json=True):
        folder = ground.new_folder()
        (folder / "a.json").write_bytes(content)
        result = folder / "result.json"
        words = ground.eval_words(folder / "a.json", result)
        yield Case("labels: the file's text", name, "yolact-eval", words, same_figures(result, reference))


def evaluated(ground: Ground, annotations: Path) -> Any:
    """Return the figures of an evaluation with sound labels."""
    from yolact_benchmarks.studies.bad_inputs.trial import run_case

    result = ground.new_folder() / "result.json"
    run_case(Case("", "", "yolact-eval", ground.eval_words(annotations, result), lambda _: True))
    return read_results(result)


def same_figures(result: Path, reference: Any) -> Callable[[Answer], bool]:
    """Return a function that tells whether an evaluation gave the figures of sound labels."""

    def is_right(_: Answer) -> bool:
        document = read_results(result)
        return document is not None and all(document[kind] == reference[kind] for kind in ("bbox", "segm"))

    return is_right


def _manifests(ground: Ground) -> Iterator[Case]:
    picture = ground.paths[0]
    for name, content in _written((ground.bundle / "manifest.json").read_text(), is_json=True):
        folder = ground.new_folder()
        shutil.copytree(ground.bundle, folder / "b")
        (folder / "b" / "manifest.json").write_bytes(content)
        result = folder / "result.json"
        words = (str(folder / "b"), str(picture), "--json", str(result), "--threads", "1")

        def is_right(_: Answer, result: Path = result) -> bool:
            return num_instances(read_results(result), [picture.name]) is not None

        yield Case("manifest of a bundle", name, "yolact-run", words, is_right)
