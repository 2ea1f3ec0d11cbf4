"""The command ``python -m yolact_plugins.compile``.

Compile every kernel ahead of time, for robots without a compiler.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from yolact_plugins.command_line import CommandParser, Example, Rule, TextRequested
from yolact_plugins.command_line.process import escaped_stdout, log_on_stderr
from yolact_plugins.command_line.standard_streams import (
    StdoutError,
    abandon_stdout,
    finish_streams,
    open_closed_streams,
    write_stdout,
)
from yolact_plugins.compile import compiler
from yolact_plugins.compile.cache import CubinCache
from yolact_plugins.compile.cubin_folder import MANIFEST_NAME, find_bundle, write_cubins
from yolact_plugins.compile.manifest_entry import KERNELS_ARTEFACT, check_manifest, put_kernels
from yolact_plugins.compile.sources import KernelSource, families, read_source
from yolact_plugins.driver.cubin import Cubin, check_arch
from yolact_plugins.errors import KernelCompileError, UsageError, YolactError
from yolact_plugins.files import check_words, counted, typed_folder
from yolact_plugins.leftovers import remove_leftovers
from yolact_plugins.plain_text import GuardedStream, guarded_stderr, printable_line, printable_lines

__all__ = ["main"]

_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status. Results go to stdout, errors and notes to stderr."""
    open_closed_streams()
    with guarded_stderr(), escaped_stdout(), log_on_stderr():
        status = _main(arguments)
        finish_streams()
        return status


def _main(arguments: list[str] | None) -> int:
    try:
        return _work(sys.argv[1:] if arguments is None else arguments)
    except YolactError as error:
        _complain(str(error))
        return error.exit_status
    except BrokenPipeError:
        abandon_stdout()
        return 1
    except StdoutError as error:
        _complain(str(error))
        return 1
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        _complain(f"{named}{error.strerror or error}")
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED


def _work(words: list[str]) -> int:
    check_words(words)
    parser = _parser()
    try:
        options = parser.parse_args(words)
    except TextRequested as request:
        write_stdout(request.text)
        return 0
    for name in options.overridden:
        print(f"{name} was given more than once; its last value counts", file=sys.stderr)  # noqa: T201
    parser.require_effects(options)
    status = _run(options)
    write_stdout()
    return status


def _complain(text: str) -> None:
    # Written past the guard, which lets no other text begin a line like this.
    stream = sys.stderr.unguarded if isinstance(sys.stderr, GuardedStream) else sys.stderr
    print(f"error: {printable_lines(text)}", file=stream)


def _parser() -> CommandParser:
    parser = CommandParser(
        "python -m yolact_plugins.compile",
        "Compile the CUDA kernels for the GPUs of your robots; no GPU is needed. With YOLACT_FORBID_JIT=1 the robot "
        "then refuses to compile anything itself.",
        usage=("--arch sm_XY... [-o BUNDLE] [options]",),
        exit_statuses="0 done; 1 failed; 2 usage; 130 interrupted.",
        examples=(Example("a bundle for Jetson Orin", "python -m yolact_plugins.compile --arch sm_87 -o my.bundle"),),
        completes=False,
    )
    options = parser.add_argument_group("options")
    options.add_argument(
        "--arch",
        nargs="+",
        required=True,
        metavar="sm_XY",
        main=True,
        help="architectures: sm_87 Jetson Orin, sm_110 Jetson Thor, sm_86 and sm_89 RTX 30 and 40, sm_90 H100, "
        "sm_120 RTX 50",
    )
    options.add_argument(
        "-o",
        "--output",
        type=typed_folder,
        metavar="DIR",
        main=True,
        help="a bundle, which gets a folder cubins/ that its manifest lists, or any other folder; existing cubins are "
        "replaced (default: this machine's cache)",
    )
    options.add_argument(
        "--drop-signature",
        action="store_true",
        main=True,
        rules=[Rule(_is_in_bundle, "outside of a bundle", "name a bundle with -o")],
        help="of a signed bundle: remove the signature, which the new kernels make invalid; sign it again with "
        "yolact-export BUNDLE --sign KEY",
    )
    options.add_argument(
        "--family", nargs="+", metavar="NAME", main=True, help="compile only these families of kernels (default: all)"
    )
    return parser


def _is_in_bundle(options: argparse.Namespace) -> bool:
    # The name of a missing folder says what it is meant to be.
    output: Path | None = options.output
    return output is not None and (output.suffix == ".bundle" or find_bundle(output) is not None)


def _run(options: argparse.Namespace) -> int:
    names = options.family or families()
    if options.output is not None:
        _check_output(options.output)
    archs = [_typed_arch(arch) for arch in dict.fromkeys(options.arch)]
    try:
        sources = [read_source(name) for name in names]
    except KernelCompileError as error:
        raise UsageError(str(error)) from error
    if not sources:
        raise KernelCompileError(
            "this installation has no kernels: the folder yolact_plugins/kernels is missing; reinstall it"
        )
    if options.output is None:
        cache = CubinCache()
        cubins = [cache.get(source, arch) for source in sources for arch in archs]
        where = cache.folder
    else:
        cubins, where = _compile_into(options.output, sources, archs, options.drop_signature)
    for cubin in cubins:
        _report(cubin)
    size = sum(len(cubin.code) for cubin in cubins)
    # All were compiled by one NVRTC; the robot's driver may be older than this machine's compiler.
    drivers = f"for drivers of CUDA {cubins[0].nvrtc_version.split('.')[0]} and newer"
    print(f"{printable_line(str(where))}: {counted(len(cubins), 'cubin')}, {size / 1000:.0f} kB, {drivers}")  # noqa: T201
    return 0


def _typed_arch(arch: str) -> str:
    try:
        return check_arch(arch)
    except KernelCompileError as error:
        raise UsageError(f"--arch: {error}") from error


def _check_output(output: Path) -> None:
    """Reject a missing bundle: cubins in a new folder of its name would be useless to a robot.

    Raises:
        UsageError: The path is a file, or has a bundle's name but is not a bundle.
    """
    if output.exists() and not output.is_dir():
        raise UsageError(f"-o takes a bundle or another folder; {output} is a file")
    # A bundle whose replacement was killed between two renames is restored first.
    remove_leftovers(output)
    if output.suffix == ".bundle" and find_bundle(output) is None:
        raise UsageError(
            f"no bundle at {output}: there is no {output / MANIFEST_NAME}. Correct the path; yolact-export writes "
            "bundles, and cubins alone go to a folder that is not called .bundle"
        )


def _compile_into(
    output: Path, sources: list[KernelSource], archs: list[str], drop_signature: bool
) -> tuple[list[Cubin], Path]:
    """Compile into a folder and return the cubins and their index; all compile before the first file is written."""
    bundle = find_bundle(output)
    if bundle is not None:
        check_manifest(bundle, drop_signature)
    cubins = [compiler.compile_cubin(source, arch) for source in sources for arch in archs]
    if bundle is None:
        return cubins, write_cubins(output, cubins, prune=True)
    if put_kernels(bundle, cubins):
        print(  # noqa: T201
            f"the signature of {bundle} was removed, because it does not cover the new kernels; sign it again: "
            f"yolact-export {shlex.quote(str(bundle))} --sign KEY",
            file=sys.stderr,
        )
    return cubins, bundle / KERNELS_ARTEFACT


def _report(cubin: Cubin) -> None:
    for name, figures in sorted(cubin.figures.items()):
        spills = figures.spill_store_bytes + figures.spill_load_bytes
        print(  # noqa: T201
            f"{cubin.arch:7} {name:40} {figures.registers:4} registers {figures.shared_bytes:6} B shared "
            f"{figures.stack_bytes:5} B stack {spills:5} B spilled"
        )
