"""The part of ``yolact-export`` that adds networks and engines to an existing bundle, without torch."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from yolact_export.commands.engine_cli import (
    check_engine_options,
    chosen_engines,
    run_engine,
    say_what_is_left_out,
)
from yolact_export.commands.jobs import ENGINES, NETWORKS, SIGNATURE
from yolact_export.commands.precision_cli import (
    check_precision_options,
    guard_status,
    labels_of,
    precision_options,
    say_precisions,
)
from yolact_export.commands.signing_cli import sign_existing, signing_options
from yolact_export.errors import UsageError, YolactError
from yolact_export.facade.networks import NetworksResult, add_networks
from yolact_plugins.files import human_size
from yolact_runtime.model.bundle import NETWORK_ROLE, read_manifest
from yolact_runtime.model.manifest_signature import SIGNATURE_NAME, SIGNATURE_RECORD_NAME
from yolact_runtime.terminal import Terminal, check_json_destination, write_json

__all__ = ["run_on_bundle"]


def run_on_bundle(options: argparse.Namespace, terminal: Terminal) -> int:
    """Add networks or engines to a bundle, or sign it, as the options say; ``options.checkpoint`` is its folder.

    Args:
        options: Options of ``yolact-export``.
        terminal: Reporter of messages and progress.

    Returns:
        The exit status: 3 if a network was rejected.

    Raises:
        UsageError: The options say nothing to do.
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
    if options.engine:
        say_what_is_left_out(options, terminal)
    result = add_networks(
        bundle,
        options.calib,
        precision_options(options),
        labels=labels_of(options),
        bit_depth=options.bit_depth,
        engines=chosen_engines(options) if options.engine else (),
        signing=signing_options(options),
        num_threads=options.threads,
        command=options.command_line,
        reporter=terminal,
    )
    _close(result, options, terminal)
    return guard_status(result.extended.precisions, terminal)


def _close(result: NetworksResult, options: argparse.Namespace, terminal: Terminal) -> None:
    """Report what the bundle has now, and what to type next."""
    bundle = result.bundle
    terminal.heading(f"{bundle} extended in {result.seconds:.1f} s")
    for name, artefact in result.manifest.artefacts.items():
        terminal.say(f"  {bundle / name}  {human_size(artefact.size_bytes)}  sha256 {artefact.sha256[:16]}…")
    say_precisions(result.extended.report, bundle, terminal)
    terminal.say(f"next:  yolact-run {shlex.quote(str(bundle))} IMAGE -o out")
    if options.json:
        write_json(result.document(), options.json)
