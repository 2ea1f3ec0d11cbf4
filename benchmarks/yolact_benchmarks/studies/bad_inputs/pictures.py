"""Images: misleading names, truncated or damaged files, more than eight bits, stray files in a folder."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_benchmarks.studies.bad_inputs.case import Answer, Case, num_instances, read_results
from yolact_benchmarks.studies.bad_inputs.ground import Ground
from yolact_benchmarks.studies.bad_inputs.trial import run_case

__all__ = ["picture_cases"]

_FORMATS = (".bmp", ".jpg", ".png", ".ppm", ".tiff", ".webp")
_CUTS = (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97)
_NUM_FLIPS = 8
_CHECKS = {".jpg": "JPEG", ".png": "PNG"}
_LEAST_OVERLAP = 0.9


def picture_cases(ground: Ground) -> Iterator[Case]:
    """Yield the tries of every kind that concerns single images and folders of them."""
    yield from _other_names(ground)
    yield from _damaged(ground)
    yield from _deep(ground)
    yield from _strays(ground)


def _found(ground: Ground, picture: Path) -> Any:
    """Return the instances found in a sound image."""
    result = ground.new_folder() / "r.json"
    run_case(Case("", "", "yolact-run", ground.run_words(picture, "--json", result), lambda _: True))
    return read_results(result)["images"][0]["instances"]


def _same(result: Path, reference: Any) -> Callable[[Answer], bool]:
    """Return a function that tells whether the instances are those of the sound image, but for lossy compression."""

    def is_right(_: Answer) -> bool:
        document = read_results(result)
        if document is None or len(document["images"]) != 1:
            return False
        found = document["images"][0]["instances"]
        return len(found) == len(reference) and all(
            a["class_id"] == b["class_id"] and _overlap(a["xyxy"], b["xyxy"]) > _LEAST_OVERLAP
            for a, b in zip(_sorted(found), _sorted(reference), strict=True)
        )

    return is_right


def _sorted(instances: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(instances, key=lambda item: (item["class_id"], item["xyxy"]))


def _overlap(a: list[float], b: list[float]) -> float:
    sides = [min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1)]
    shared = max(sides[0], 0) * max(sides[1], 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return shared / (sum(areas) - shared)


def _encoded(frame: npt.NDArray[Any], suffix: str) -> bytes:
    import cv2

    encoded, content = cv2.imencode(suffix, frame)
    assert encoded
    return bytes(content)


def _one(ground: Ground, kind: str, name: str, file: str, content: bytes, reference: Any, *words: object) -> Case:
    folder = ground.new_folder()
    (folder / file).write_bytes(content)
    result = folder / "r.json"
    return Case(
        kind,
        name,
        "yolact-run",
        ground.run_words(folder / file, *words, "--json", result),
        _same(result, reference),
    )


def _other_names(ground: Ground) -> Iterator[Case]:
    from yolact_runtime.media.images import read_image

    picture = ground.paths[0]
    frame, reference = read_image(picture), _found(ground, picture)
    for suffix in _FORMATS:
        content = _encoded(frame, suffix)
        for name in ("a.jfif", "a.JPG", "a.png", "a.mp4", "a", "a b\u00e9%03d.jpeg"):
            yield _one(ground, "a name that says another format", f"{suffix} as {name}", name, content, reference)
            folder = ground.new_folder()
            (folder / "in").mkdir()
            (folder / "in" / name).write_bytes(content)
            result = folder / "r.json"
            words = ground.run_words(folder / "in", "--json", result)
            kind = "the same in a folder"
            yield Case(kind, f"{suffix} as {name}", "yolact-run", words, _same(result, reference))


def _damaged(ground: Ground) -> Iterator[Case]:
    from yolact_runtime.media.images import read_image

    picture = ground.paths[1]
    frame, reference = read_image(picture), _found(ground, picture)
    rng = np.random.default_rng(0)
    for suffix in _FORMATS:
        content = _encoded(frame, suffix)
        for part in _CUTS:
            cut = content[: int(len(content) * part)]
            yield _one(ground, "a picture cut short", f"{suffix} at {part:.0%}", f"a{suffix}", cut, reference)
        for flip in range(_NUM_FLIPS):
            spoilt = bytearray(content)
            # The header is left intact: a changed one could describe another valid image.
            for place in rng.integers(min(200, len(spoilt) // 2), len(spoilt), 16):
                spoilt[place] ^= int(rng.integers(1, 256))
            kind = f"damaged bytes inside {_CHECKS.get(suffix, 'a format without checksum (BMP, PPM, TIFF, WebP)')}"
            yield _one(ground, kind, f"{suffix} {flip}", f"a{suffix}", bytes(spoilt), reference)


def _deep(ground: Ground) -> Iterator[Case]:
    from yolact_runtime.media.images import read_image

    picture = ground.paths[2]
    frame = read_image(picture)
    reference = _found(ground, picture)
    for bits in (9, 10, 12, 14, 16):
        deep = np.round(frame / 255.0 * (2**bits - 1)).astype(np.uint16)
        for suffix in (".png", ".tiff"):
            content = _encoded(deep, suffix)
            name = f"{bits} bits in a {suffix} of 16"
            yield _one(ground, "bit depth: not stated", name, f"a{suffix}", content, reference)
            words = ("--bit-depth", bits)
            yield _one(ground, "bit depth: --bit-depth", name, f"a{suffix}", content, reference, *words)
        stated = _with_significant_bits(_encoded(deep, ".png"), bits)
        yield _one(ground, "bit depth: stated in the file", f"sBIT {bits}", "a.png", stated, reference)
        plain = (
            f"P6 {deep.shape[1]} {deep.shape[0]} {2**bits - 1}\n".encode() + deep[:, :, ::-1].astype(">u2").tobytes()
        )
        yield _one(ground, "bit depth: stated in the file", f"PPM, maxval {2**bits - 1}", "a.ppm", plain, reference)
    for name, values in {"0 to 1": frame / 255.0, "0 to 255": frame * 1.0}.items():
        content = _encoded(values.astype(np.float32), ".tiff")
        yield _one(ground, "bit depth: not stated", f"float TIFF, {name}", "a.tiff", content, reference)


def _with_significant_bits(png: bytes, bits: int) -> bytes:
    """Return a PNG with the chunk sBIT after its header."""
    body = b"sBIT" + bytes([bits] * 3)
    chunk = struct.pack(">I", 3) + body + struct.pack(">I", zlib.crc32(body))
    return png[:33] + chunk + png[33:]


def _strays(ground: Ground) -> Iterator[Case]:
    strays: dict[str, bytes] = {
        "._c.png": b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(60),
        ".DS_Store": b"\0\0\0\1Bud1" + bytes(60),
        "Thumbs.db": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(60),
        "notes.txt": b"taken in the morning",
        "labels.json": json.dumps({"images": []}).encode(),
        ".hidden.png": ground.paths[3].read_bytes(),
        "program.so": b"\x7fELF" + bytes(60),
    }
    for name, content in strays.items():
        folder = ground.new_folder()
        (folder / "in").mkdir()
        for source, target in zip(ground.paths, ("c.png", "x.png"), strict=False):
            shutil.copy(source, folder / "in" / target)
        (folder / "in" / name).write_bytes(content)
        result = folder / "r.json"
        words = ground.run_words(folder / "in", "--json", result)

        def keeps_others(_: Answer, result: Path = result) -> bool:
            return num_instances(read_results(result), ["c.png", "x.png"]) is not None

        yield Case("a stray file beside pictures", name, "yolact-run", words, lambda _: False, keeps_others)
