"""``yolact-export BUNDLE``: networks of other precisions and engines for a bundle that is there, without torch."""

from __future__ import annotations

import argparse
import json
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from yolact_export.commands.engine_cli import (
    check_engine_options,
    engine_targets,
    run_engine,
    say_what_is_left_out,
    write_engines,
)
from yolact_export.commands.jobs import ENGINES, NETWORKS, SIGNATURE
from yolact_export.commands.packages import require_packages
from yolact_export.commands.precision_cli import (
    check_precision_options,
    guard_status,
    network_adder,
    say_precisions,
)
from yolact_export.commands.signing_cli import open_seal, sign_existing, without_reminder
from yolact_export.errors import UsageError, YolactError
from yolact_plugins.files import human_size
from yolact_runtime.backends.tensorrt_library import LIBRARIES
from yolact_runtime.model.bundle import NETWORK_ROLE, read_manifest
from yolact_runtime.model.manifest_signature import SIGNATURE_NAME, SIGNATURE_RECORD_NAME
from yolact_runtime.terminal import Terminal, check_json_destination, write_json

if TYPE_CHECKING:
    from yolact_export.engine.bundle import WrittenEngine
    from yolact_export.precision.existing_bundle import ExtendedBundle

__all__ = ["run_on_bundle"]


def run_on_bundle(options: argparse.Namespace, terminal: Terminal) -> int:
    """Do what was asked for to a bundle; ``options.checkpoint`` is its folder.

    Args:
        options: Of ``yolact-export``.
        terminal: To talk on.

    Returns:
        The exit status: 3 if a network was rejected.

    Raises:
        UsageError: Nothing was asked for.
    """
    if options.job == NETWORKS:
        return _add_precisions(options, options.checkpoint, terminal)
    if options.job == ENGINES:
        return run_engine(options, terminal)
    if options.job == SIGNATURE:
        return sign_existing(options, terminal)
    raise UsageError(_what_can_be_done(options.checkpoint, options))


def _what_can_be_done(bundle: Path, options: argparse.Namespace) -> str:
    try:
        artefacts = read_manifest(bundle).artefacts.values()
    except YolactError as error:
        return f"{bundle} is a bundle that cannot be read ({error}); to make a new one, name a .pth checkpoint"
    has = ", ".join(artefact.precision for artefact in artefacts if artefact.role == NETWORK_ROLE)
    word = shlex.quote(str(bundle))
    words = f"yolact-export {word}"
    signature = f"To sign it: {words} --sign KEY. "
    if options.verify_key:
        keys = "".join(f" --verify-key {shlex.quote(str(key))}" for key in options.verify_key)
        signature += f"To verify it: yolact-run {word} --self-test{keys}. "
    if options.drop_signature:
        files = shlex.join([str(bundle / SIGNATURE_NAME), str(bundle / SIGNATURE_RECORD_NAME)])
        signature += f"To remove its signature and do nothing else: rm {files}. "
    return (
        f"{bundle} is a bundle ({has or 'no network'}): say what to do with it. To add networks: "
        f"{words} --int8 --fp16 --calib DIR. To build its engines: {words} --engine. {signature}To make a new one, "
        f"name a .pth checkpoint"
    )


def _add_precisions(options: argparse.Namespace, bundle: Path, terminal: Terminal) -> int:
    check_precision_options(options)
    if options.engine:
        check_engine_options(options)
    check_json_destination(options.json)
    require_packages("yolact-export BUNDLE --int8", "precision", "onnx", "onnxruntime", "faster_coco_eval", "cv2")
    from yolact_export.precision.existing_bundle import ExistingBundle

    seal = open_seal(options, bundle, terminal)
    started = time.monotonic()
    existing = ExistingBundle(bundle)
    with without_reminder():
        existing.require_sound(options.threads or 0)
    usual = existing.manifest.input.bit_depth
    adder = network_adder(options, terminal, existing.earlier_rows, usual)
    if None not in (usual, options.bit_depth) and usual != options.bit_depth:
        terminal.warn(f"{bundle} states {usual} bits; it states {options.bit_depth} from now on, as --bit-depth says")
    engines: list[WrittenEngine] = []
    with seal.reported():
        extended = existing.extend(adder, options.bit_depth, seal.finish, terminal)
        if options.engine:
            say_what_is_left_out(options, terminal)
            # Without any library the first one's error says what to install.
            targets = engine_targets(options) or tuple(LIBRARIES)[:1]
            engines = write_engines(bundle, targets, options, terminal, seal)
    _close(options, bundle, extended, engines, time.monotonic() - started, terminal)
    return guard_status(extended.precisions, terminal)


def _close(
    options: argparse.Namespace,
    bundle: Path,
    extended: ExtendedBundle,
    engines: Sequence[WrittenEngine],
    seconds: float,
    terminal: Terminal,
) -> None:
    """The last words: what the bundle has now, and what to type next."""
    manifest = read_manifest(bundle)
    terminal.heading(f"{bundle} extended in {seconds:.1f} s")
    for name, artefact in manifest.artefacts.items():
        terminal.say(f"  {bundle / name}  {human_size(artefact.size_bytes)}  sha256 {artefact.sha256[:16]}…")
    say_precisions(extended.report, bundle, terminal)
    terminal.say(f"next:  yolact-run {shlex.quote(str(bundle))} IMAGE -o out")
    if options.json:
        document = {
            "bundle": str(bundle),
            "manifest": json.loads(manifest.to_json()),
            "precision": extended.report,
            "removed": list(extended.removed),
            "engines": [engine.document() for engine in engines],
            "seconds": round(seconds, 2),
        }
        write_json(document, options.json)
