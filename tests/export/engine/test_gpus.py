"""GPUs that TensorRT-RTX does not build for are refused when an engine is built, not by surprise on the robot."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from support.engine_graphs import write_engine_bundle
from yolact_export.commands import cli, engine_cli
from yolact_export.engine import gpus as engine_gpus
from yolact_export.engine import targets as engine_targets
from yolact_export.engine.gpus import check_rtx, objection_to_rtx
from yolact_export.errors import MissingDependencyError, UsageError
from yolact_runtime.backends.cuda_driver import Gpu
from yolact_runtime.backends.tensorrt_library import LIBRARIES
from yolact_runtime.terminal import Terminal

KNOWN = r"7\.5, 8\.0, 8\.6, 8\.9, 12\.0, 12\.1"


def put_in(monkeypatch: pytest.MonkeyPatch, name: str, capability: str) -> None:
    """A GPU into this machine."""
    for module in (engine_gpus, engine_targets):
        monkeypatch.setattr(module, "find_gpu", lambda: Gpu(name, capability, "13.0"))


@pytest.mark.parametrize("capability", ["8.7", "9.0", "11.0", "5.3"])
def test_a_named_gpu_that_rtx_does_not_know(capability: str) -> None:
    with pytest.raises(
        UsageError, match=rf"^tensorrt_rtx \S+ does not build for compute capability {capability}"
    ) as raised:
        check_rtx(("8.6", capability))
    assert raised.match(f"it supports {KNOWN}")
    assert raised.match("Orin.*needs full TensorRT: yolact-export BUNDLE --engine --target tensorrt")


@pytest.mark.parametrize(
    ("name", "capability", "message"),
    [
        ("Orin", "8.7", rf"does not build for; it supports {KNOWN}.*needs full TensorRT: --target tensorrt"),
        ("NVIDIA H100", "9.0", r"For other machines, name their GPUs: --compute-capability 8\.6,8\.9$"),
        ("RTX 2080", "7.5", r"builds for only on request: --compute-capability 7\.5$"),
    ],
)
def test_a_gpu_in_this_machine_that_the_engine_would_not_run_on(
    monkeypatch: pytest.MonkeyPatch, name: str, capability: str, message: str
) -> None:
    put_in(monkeypatch, name, capability)
    with pytest.raises(UsageError, match=message) as raised:
        check_rtx(())
    assert str(raised.value).startswith(
        f"this machine has {name} (compute capability {capability}), which tensorrt_rtx"
    )
    # An engine for another machine can be built here.
    check_rtx(("8.9",))


@pytest.mark.parametrize("capability", ["8.0", "8.9", "12.1", "13.0"])
def test_a_gpu_that_the_engine_runs_on(monkeypatch: pytest.MonkeyPatch, capability: str) -> None:
    put_in(monkeypatch, "RTX", capability)
    check_rtx(())


def test_without_the_library_there_is_nothing_to_object_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(target: str) -> None:
        raise MissingDependencyError(LIBRARIES[target], "This", target)

    put_in(monkeypatch, "Orin", "8.7")
    monkeypatch.setattr(engine_gpus, "load_tensorrt", fail)
    assert objection_to_rtx(()) is None
    check_rtx(("8.7",))


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [["--target", "rtx"], ["--target", "rtx", "--compute-capability", "8.7"], ["--compute-capability", "8.6,8.7"]],
)
def test_the_command_ends_before_any_work_is_done(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_in(monkeypatch, "Orin", "8.7")
    bundle = write_engine_bundle(tmp_path / "b", ("fp32",))
    assert cli.main([str(bundle), "--engine", *words]) == 2
    assert "needs full TensorRT" in capsys.readouterr().err
    assert not list(bundle.glob("*.plan"))
    assert cli.main([str(tmp_path / "no.pth"), *words]) == 2


def test_with_target_auto_rtx_is_left_out_and_that_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put_in(monkeypatch, "Orin", "8.7")
    options = cli._parser().parse_args([str(tmp_path), "--engine"])
    assert "rtx" not in engine_cli.engine_targets(options)
    stream = io.StringIO()
    engine_cli.say_what_is_left_out(options, Terminal(stream=stream))
    assert "no TensorRT-RTX engine: this machine has Orin (compute capability 8.7)" in stream.getvalue()
    named = cli._parser().parse_args([str(tmp_path), "--engine", "--compute-capability", "8.9"])
    assert "rtx" in engine_cli.engine_targets(named)
