"""``make demo``: checkpoint -> bundle -> masks on a photograph, with what to type next.

Without a checkpoint of your own it makes one in the published layout of YOLACT-550 with ResNet-50. Its weights are made
up, so what it finds means nothing; but the original implementation ran with the same weights on the same photograph,
and its detections are in tests/goldens, so the demo can prove that every one of them comes out again.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from yolact_export import cli as export_cli
from yolact_export.verify import compare_instances
from yolact_runtime import cli as run_cli
from yolact_runtime.instances import Instances
from yolact_runtime.masks import Masks
from yolact_runtime.terminal import human_size

ROOT = Path(__file__).parents[1]
GOLDENS = ROOT / "tests" / "goldens"
PHOTOGRAPH = GOLDENS / "images" / "astronaut.png"
DEMO_MODEL = "yolact_resnet50"


def main() -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(description="Export a checkpoint and find instances in a picture, on the CPU.")
    parser.add_argument("--checkpoint", type=Path, help="your .pth file (default: one with made-up weights)")
    parser.add_argument("--image", type=Path, default=PHOTOGRAPH, help="your picture (default: a NASA portrait)")
    parser.add_argument("--output", type=Path, default=Path("out/demo"), help="folder for everything it writes")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    checkpoint = options.checkpoint or make_checkpoint(options.output / f"{DEMO_MODEL}.pth")
    bundle = options.output / f"{checkpoint.stem}.bundle"
    result = options.output / "result.json"
    say(f"\n1. yolact-export {checkpoint} -o {bundle}")
    if status := export_cli.main([str(checkpoint), "-o", str(bundle)]):
        return status
    say(f"\n2. yolact-run {bundle} {options.image} -o {options.output} --json {result} --top-k 15")
    pictures = ["-o", str(options.output), "--top-k", "15"]
    if status := run_cli.main([str(bundle), str(options.image), *pictures, "--json", str(result)]):
        return status
    if options.checkpoint is None and options.image == PHOTOGRAPH:
        say("\n3. compared with the original implementation")
        if not reproduces_the_original(bundle, options.output / "all.json"):
            return 1
    close(bundle, options)
    return 0


def make_checkpoint(path: Path) -> Path:
    """A checkpoint in the published layout, with the made-up weights of the goldens."""
    if path.exists():
        return path
    say(f"no checkpoint given: making one in the published layout, {path}")
    import torch

    sys.path.insert(0, str(GOLDENS))
    import fill

    golden = load_golden()
    seeds = golden["residual_norm"], golden["num_classes"], golden["background_logit"]
    tensors = {key: torch.from_numpy(fill.tensor(key, tuple(shape), *seeds)) for key, shape in golden["keys"].items()}
    partial = path.with_name(f".{path.name}.partial")
    torch.save(tensors, partial)
    partial.replace(path)  # an interrupted demo leaves no half a checkpoint behind
    return path


def load_golden() -> dict[str, Any]:
    """What the original implementation said."""
    document: dict[str, Any] = json.loads(
        gzip.decompress((GOLDENS / "official" / f"{DEMO_MODEL}.json.gz").read_bytes())
    )
    return document


def reproduces_the_original(bundle: Path, result: Path) -> bool:
    """Whether every instance of the original has a partner: class, confidence, box and mask."""
    run_cli.main([str(bundle), str(PHOTOGRAPH), "--json", str(result), "--quiet"])
    found = json.loads(result.read_text())["images"][0]["instances"]
    expected = load_golden()["images"]["astronaut"]["fast_nms@0.3"]
    agreement = compare_instances(
        as_instances(expected, "box", "score", "class"), as_instances(found, "xyxy", "confidence", "class_id")
    )
    say(
        f"   {agreement.matched} of the original's {agreement.expected} instances reproduced, {agreement.found} found; "
        f"confidence within {agreement.max_confidence_change:.0e}, mask IoU at least {agreement.min_mask_iou:.4f}"
    )
    return agreement.matched == agreement.expected == agreement.found


def as_instances(entries: list[dict[str, Any]], box: str, confidence: str, class_id: str) -> Instances:
    """Instances of JSON entries whose fields have the given names."""
    return Instances(
        np.array([entry[box] for entry in entries], np.float32),
        Masks.from_rle([entry["mask"] for entry in entries]),
        np.array([entry[confidence] for entry in entries], np.float32),
        np.array([entry[class_id] for entry in entries], np.int32),
    )


def close(bundle: Path, options: argparse.Namespace) -> None:
    """Where everything is, and what to do with it."""
    picture = options.output / options.image.name
    say("\ndone:")
    for path in (*sorted(bundle.iterdir()), options.output / "result.json", picture):
        if path.exists():
            say(f"   {path}  {human_size(path.stat().st_size)}")
    say(f"look at:   {picture}")
    if options.checkpoint is None:
        say("its weights are made up, and so is what it finds. With yours:")
        say("   make demo CHECKPOINT=yolact_base_54_800000.pth IMAGE=photo.jpg")
        say("the commands themselves:  source .venv/bin/activate")
    else:
        say(f"next:   yolact-run {bundle} FOLDER -o out --json out/result.json")


def say(text: str) -> None:
    """Talk goes to stderr, so that stdout carries results only."""
    print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
