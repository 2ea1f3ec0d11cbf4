"""Jobs of ``yolact-export``, and the rules that say which of its options have an effect in each of them."""

from __future__ import annotations

import argparse
from pathlib import Path

from yolact_export.checkpoint.formats import describe_folder
from yolact_export.errors import UsageError
from yolact_plugins.command_line import Rule, in_jobs, needs
from yolact_plugins.leftovers import remove_leftovers
from yolact_runtime.model.bundle import MANIFEST_NAME

__all__ = [
    "BUILDS_ENGINES",
    "CHECKPOINT",
    "ENGINES",
    "NEEDS_INT8",
    "NEEDS_PRECISION",
    "NEEDS_PRUNE",
    "NETWORKS",
    "NOTHING",
    "READS_IMAGES",
    "SIGNATURE",
    "job_of",
    "of_bundle",
    "of_checkpoint",
    "wants_precision",
]

CHECKPOINT, NETWORKS, ENGINES, SIGNATURE, NOTHING = "checkpoint", "networks", "engines", "signature", "nothing"
"""Export a checkpoint; add networks to a bundle, build its engines, or sign it; a bundle and nothing to do."""
_CHECKPOINT_SUFFIXES = frozenset({".pth", ".pt", ".ckpt", ".tar"})

NEEDS_PRUNE = needs("--prune", advice="add --prune 0.4")
NEEDS_INT8 = needs("--int8")
NEEDS_PRECISION = needs("--int8", "--fp16", advice="add one of them")


def wants_precision(options: argparse.Namespace) -> bool:
    """Return whether networks of another precision than float32 were asked for."""
    return bool(options.int8 or options.fp16)


READS_IMAGES = (
    # A bundle cannot be pruned.
    Rule(
        lambda options: options.job == CHECKPOINT or wants_precision(options),
        NEEDS_PRECISION.otherwise,
        "add one of them",
    ),
    needs("--prune", "--int8", "--fp16", advice="add one of them"),
)


BUILDS_ENGINES = (
    Rule(lambda options: not options.no_engine, "with --no-engine"),
    Rule(lambda options: options.target != "cpu", "with --target cpu, for which no engine is built"),
    Rule(
        lambda options: bool(options.engine) or (options.job == CHECKPOINT and wants_precision(options)),
        "where no engine is built",
        "add --engine",
    ),
)


def of_checkpoint(otherwise: str) -> Rule:
    """Return the rule of options that only the export of a checkpoint has.

    Args:
        otherwise: The reason why a bundle cannot be given the option, such as ``"its graph is written already"``.
    """
    return in_jobs(CHECKPOINT, otherwise=f"on a bundle: {otherwise}")


def of_bundle(otherwise: str, advice: str = "") -> Rule:
    """Return the rule of options that only apply to an existing bundle.

    Args:
        otherwise: The reason why the option has no effect on a checkpoint, such as
            ``"on a checkpoint, which has no signature"``.
        advice: Words to type instead of leaving the option out.
    """
    return in_jobs(NETWORKS, ENGINES, SIGNATURE, NOTHING, otherwise=otherwise, advice=advice)


def job_of(options: argparse.Namespace) -> str:
    """Return the job that a command line asks for; a bundle whose replacement was killed half-way is put back first.

    Raises:
        UsageError: The path is a lone ONNX file, or a folder that is not a bundle.
    """
    path: Path = options.checkpoint
    if not path.exists():
        remove_leftovers(path)
    if not (path.is_dir() or path.suffix == ".onnx"):
        is_bundle = not path.exists() and options.engine and path.suffix not in _CHECKPOINT_SUFFIXES
        return ENGINES if is_bundle else CHECKPOINT
    if not path.is_dir():
        raise UsageError(
            f"{path} is an ONNX file, which yolact-run runs; networks and engines are added to its bundle: name the "
            f"folder, or export the .pth checkpoint"
        )
    if not (path / MANIFEST_NAME).exists():
        raise UsageError(
            f"{path} is neither a bundle nor a PyTorch checkpoint, but {describe_folder(path)}. To make a bundle, "
            f"name a .pth checkpoint"
        )
    if wants_precision(options):
        return NETWORKS
    if options.engine:
        return ENGINES
    return NOTHING if options.sign is None else SIGNATURE
