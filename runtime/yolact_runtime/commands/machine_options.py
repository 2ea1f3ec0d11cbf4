"""Options of every command that runs a model: on what it runs, with which network, and whom the user trusts."""

from __future__ import annotations

from yolact_plugins.command_line import CommandParser, Rule
from yolact_runtime.backends.select import BACKENDS
from yolact_runtime.backends.tensorrt import TARGETS
from yolact_runtime.commands.signature_options import add_trust_options
from yolact_runtime.option_numbers import whole_number

__all__ = ["BACKEND_NAMES", "add_machine_options"]

BACKEND_NAMES = ("auto", *BACKENDS)
_PRECISIONS = ("fp32", "fp16", "int8", "int8-cpu")
_HAS_NETWORKS = Rule(
    lambda options: not options.model.is_file(), "on a file, which holds one network", "name the bundle"
)
_USES_THREADS = Rule(
    lambda options: options.backend not in TARGETS, "on TensorRT, which runs the whole network on the GPU"
)


def add_machine_options(parser: CommandParser, several_networks: bool = False) -> None:
    """Add ``--backend``, ``--precision``, ``--threads``, ``--verify-key`` and ``--trust-engine``.

    Args:
        parser: Parser of a command that runs a model.
        several_networks: ``--precision`` takes several names, or ``all``.
    """
    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "--backend",
        choices=BACKEND_NAMES,
        default="auto",
        metavar="NAME",
        main=True,
        help=f"{', '.join(BACKEND_NAMES[1:-1])} or {BACKEND_NAMES[-1]} (default: the fastest that runs here)",
    )
    if several_networks:
        machine.add_argument(
            "--precision",
            default="",
            metavar="NAMES",
            main=True,
            rules=[_HAS_NETWORKS],
            suggest=(*_PRECISIONS, "all"),
            help=f"networks of a bundle to compare, such as {_PRECISIONS[0]},{_PRECISIONS[-1]}, or all "
            "(default: the one that the backend runs best)",
        )
    else:
        machine.add_argument(
            "--precision",
            metavar="NAME",
            main=True,
            rules=[_HAS_NETWORKS],
            suggest=_PRECISIONS,
            help=f"network of a bundle: {', '.join(_PRECISIONS)} (default: the one that the backend runs best)",
        )
    machine.add_argument(
        "--threads",
        type=whole_number,
        default=0,
        metavar="N",
        field="num_threads",
        rules=[_USES_THREADS],
        help="CPU threads (default 0: the backend decides)",
    )
    add_trust_options(machine)
