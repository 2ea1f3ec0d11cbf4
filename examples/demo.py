"""The demo, ``make demo``: from a checkpoint to masks on a photograph, and to accuracy on scenes with exact labels.

Without arguments it uses the two small models of ``examples/models``, which were trained for this project: balloons on
a photograph, and shapes on scenes that are drawn by the demo. Each command is printed as you would type it.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from yolact_benchmarks.commands import eval_cli
from yolact_calibration import shapes
from yolact_export.commands import cli as export_cli
from yolact_plugins.files import human_size
from yolact_runtime.commands import run_cli

EXAMPLES = Path(__file__).parent
BALLOONS, SHAPES = EXAMPLES / "models" / "balloons.pth", EXAMPLES / "models" / "shapes.pth"
PHOTOGRAPH = EXAMPLES / "images" / "balloons.jpg"
# Seeds that no model was trained on, for calibration and for measuring accuracy.
CAMERA_SEED, SCENES_SEED, NUM_SCENES = 60000, 10000, 40

COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "yolact-export": export_cli.main,
    "yolact-run": run_cli.main,
    "yolact-eval": eval_cli.main,
    "python -m yolact_calibration.shapes": shapes.main,
}


def main() -> int:
    """Run the demo and return the exit status."""
    parser = argparse.ArgumentParser(description="Export a checkpoint and find instances in an image, on the CPU.")
    parser.add_argument("--checkpoint", type=Path, help="your .pth file (default: the small models of the project)")
    parser.add_argument("--image", type=Path, help="your image (default: a photograph with balloons)")
    parser.add_argument("--output", type=Path, default=Path("out/demo"), help="folder for all output")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    image = options.image or PHOTOGRAPH
    say("\n--- instances in a photograph")
    if status := photograph(options.checkpoint or BALLOONS, image, options.output):
        return status
    if options.checkpoint is None:
        say("\n--- accuracy, on scenes with exact labels")
        if status := scenes(options.output):
            return status
    close(options.output, image)
    return 0


def photograph(checkpoint: Path, image: Path, output: Path) -> int:
    """Export a checkpoint, and run it on one image."""
    bundle = output / f"{checkpoint.stem}.bundle"
    result = output / "result.json"
    return run("yolact-export", checkpoint, "-o", bundle) or run(
        "yolact-run", bundle, image, "-o", output, "--json", result, "--top-k", 15
    )


def scenes(output: Path) -> int:
    """Draw scenes, export the model of shapes with INT8, show what it finds, and measure its accuracy."""
    folder, camera, bundle = output / "scenes", output / "camera", output / "shapes.bundle"
    images, annotations = folder / "images", folder / "instances.json"
    found = output / "scenes_found"
    draw = "python -m yolact_calibration.shapes"
    return (
        run(draw, "--seed", CAMERA_SEED, "--count", NUM_SCENES, "-o", camera)
        or run(draw, "--seed", SCENES_SEED, "--count", NUM_SCENES, "-o", folder)
        or run("yolact-export", SHAPES, "--int8", "--calib", camera / "images", "--target", "cpu", "-o", bundle)
        or run("yolact-run", bundle, images, "-o", found)
        or run("yolact-eval", bundle, "--annotations", annotations, "--images", images)
    )


def run(command: str, *arguments: object) -> int:
    """Print a command line, and run it in this process."""
    words = [str(argument) for argument in arguments]
    say(f"\n$ {command} {shlex.join(words)}")
    return COMMANDS[command](words)


def close(output: Path, image: Path) -> None:
    """Print where the results are, and what to do next."""
    say("\ndone:")
    for bundle in sorted(output.glob("*.bundle")):
        size = sum(path.stat().st_size for path in bundle.iterdir())
        say(f"   {bundle}/  {human_size(size)}")
    for picture in (output / image.name, output / "scenes_found", output / "shapes.bundle" / "report.html"):
        if picture.exists():
            say(f"look at:   {picture}")
    say("with yours:  make demo CHECKPOINT=yolact_base_54_800000.pth IMAGE=photo.jpg")
    say("the commands themselves:  source .venv/bin/activate")


def say(text: str) -> None:
    """Print a message to stderr, so that stdout only has results."""
    print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
