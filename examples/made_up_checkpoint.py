"""Write a checkpoint in a published layout with the made-up weights of the goldens, for measurements.

python examples/made_up_checkpoint.py yolact_resnet50 out/yolact_resnet50.pth
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from pathlib import Path
from typing import Any

GOLDENS = Path(__file__).parents[1] / "tests" / "goldens"


def main() -> int:
    """Write one file and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = sorted(path.name.removesuffix(".json.gz") for path in (GOLDENS / "official").glob("*.json.gz"))
    parser.add_argument("name", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    if options.output.exists():
        print(f"{options.output} exists already")
        return 0
    write_checkpoint(options.name, options.output)
    print(f"wrote {options.output}; its weights are made up, so its detections mean nothing")
    return 0


def write_checkpoint(name: str, path: Path) -> None:
    """Write the state dict of a golden, as a whole file or not at all."""
    import torch

    sys.path.insert(0, str(GOLDENS))
    import fill

    golden: dict[str, Any] = json.loads(gzip.decompress((GOLDENS / "official" / f"{name}.json.gz").read_bytes()))
    seeds = golden["residual_norm"], golden["num_classes"], golden["background_logit"]
    tensors = {key: torch.from_numpy(fill.tensor(key, tuple(shape), *seeds)) for key, shape in golden["keys"].items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    torch.save(tensors, partial)
    partial.replace(path)


if __name__ == "__main__":
    sys.exit(main())
