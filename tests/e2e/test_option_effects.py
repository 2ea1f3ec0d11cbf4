"""Every option of every command, in each of its jobs, is used, or refused with the reason: none is ignored in silence.

Each job is done once with recorded reads of its options, with stubs where training, calibration and builders would
start. What is only read to be checked is not used.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from support.bench_records import bench_record, steady_ms
from support.commands import PARSERS, entry_point, parser_of
from support.engine_graphs import write_engine_bundle
from support.precision_trials import write_small_bundle
from support.scenes import Thing, with_precisions, write_bundle
from support.signing_keys import write_keys
from support.training_data import square, write_set
from yolact_export.pipeline import ExportResult
from yolact_plugins.command_line import CommandParser, Options
from yolact_plugins.command_line import parser as parser_module
from yolact_plugins.compile import compiler
from yolact_plugins.compile.cache import CubinCache
from yolact_plugins.errors import UsageError
from yolact_runtime.errors import BundleError

# Reads in these functions find out whether an option is right, and not what to do with it.
CHECKS = re.compile(r"_?(check(?!ed$|_model$).*|require_effects|refuse.*|is_given|_?option_of_field|_typed)")
TRAIN = "--annotations labels.json --images images -o out.pth --steps 5"
# Command, words, exit status.
JOBS = [
    ("yolact-run", "small.bundle images/0.png", 0),
    ("yolact-run", "small.bundle images/0.png -o out", 0),
    ("yolact-run", "small.bundle --self-test", 8),
    ("yolact-eval", "small.bundle --against small.bundle --images images/0.png", 0),
    ("yolact-eval", "small.bundle --against small.bundle --images images/0.png --bootstrap 0", 0),
    ("yolact-eval", "small.bundle --annotations labels.json --images images", 0),
    ("yolact-bench", "small.bundle --size 128x72", 0),
    ("yolact-bench", "small.bundle --size 128x72 --layers", 0),
    ("yolact-bench", "small.bundle --images images", 0),
    ("yolact-bench", "small.bundle --images images --annotations labels.json", 0),
    ("yolact-bench compare", "compare record.json record.json", 0),
    ("yolact-export", "model.pth", 0),
    ("yolact-export", "model.pth --engine", 0),
    ("yolact-export", "model.pth --engine --target rtx", 0),
    ("yolact-export", "model.pth --int8 --calib images", 0),
    ("yolact-export", "model.pth --int8 --int8-all --calib images --target cpu", 0),
    ("yolact-export", "model.pth --fp16 --calib images", 0),
    ("yolact-export", "model.pth --fp16 --no-engine --calib images --annotations labels.json --images images", 0),
    ("yolact-export", "model.pth --prune 0.4 --calib images", 0),
    ("yolact-export", "model.pth --prune 0.4 --calib images --recover-steps 0", 0),
    ("yolact-export", "model.pth --prune 0.4 --calib images --recover-annotations labels.json", 0),
    ("yolact-export", "float.bundle --int8 --calib images", 0),
    ("yolact-export", "float.bundle --fp16 --calib images", 0),
    ("yolact-export", "float.bundle --int8 --calib images --engine", 0),
    ("yolact-export", "engine.bundle --engine", 0),
    ("yolact-export", "engine.bundle --engine --target rtx", 0),
    ("yolact-export", "engine.bundle --sign private.pem", 0),
    ("yolact-finetune", f"yolact_tiny {TRAIN}", 1),
    ("yolact-finetune", f"model.pth {TRAIN}", 1),
    ("yolact-finetune", f"yolact_tiny {TRAIN} --no-augment --validation-fraction 0", 1),
    ("yolact-finetune", f"yolact_tiny {TRAIN} --validation-annotations labels.json", 1),
    ("python -m yolact_calibration.shapes", "--count 1 -o scenes", 0),
    ("python -m yolact_plugins.compile", "--arch sm_87", 1),
    ("python -m yolact_plugins.compile", "--arch sm_87 -o cubins", 1),
    ("python -m yolact_plugins.compile", "--arch sm_87 -o engine.bundle", 1),
]
# What was ignored in silence.
BUNDLE, CHECKPOINT = "engine.bundle --engine", "model.pth"
PRUNING = ("--restart", "--seed 0", "--round-to 8", "--no-augment", "--recover-batch 8", "--recover-rate 1e-3")
IGNORED = [
    *((BUNDLE, words) for words in (*PRUNING, "--deform-conv deform-conv", "--workers 1")),
    *((CHECKPOINT, words) for words in PRUNING),
    ("model.pth --target cpu --int8 --calib images", "--fp16"),
    (CHECKPOINT, "--verify-key public.pem"),
    (CHECKPOINT, "--workspace 2G"),
    (CHECKPOINT, "--target rtx"),
    ("model.pth --prune 0.4 --calib images --recover-steps 0", "--recover-rate 1e-3"),
]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle of every kind, images, labels, keys and records."""
    folder = tmp_path_factory.mktemp("ground")
    small = write_bundle(folder / "small.bundle", [Thing((0.25, 0.25, 0.75, 0.75), 0, 0.9)])
    with_precisions(small, "fp32", "int8-cpu")
    labels, images = write_set(folder / "set", [[{"segmentation": square(4, 4, 20)}]] * 16)
    labels.rename(folder / "labels.json")
    images.rename(folder / "images")
    write_small_bundle(folder / "float.bundle")
    write_engine_bundle(folder / "engine.bundle", ("fp32",))
    (folder / "model.pth").write_bytes(b"no checkpoint")
    (folder / "record.json").write_text(json.dumps(bench_record({("fp32", 1): steady_ms(1)})))
    private, public = write_keys(folder / "keys")
    private.rename(folder / "private.pem")
    public.rename(folder / "public.pem")
    return folder


@pytest.fixture(autouse=True)
def _stubs(ground: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is trained, calibrated or compiled."""

    def end(*_: object, **__: object) -> Any:
        raise BundleError("the work began")

    def export(checkpoint: Path, bundle: Path, *_: object) -> Any:
        verification = SimpleNamespace(table=list, document=dict)
        manifest = SimpleNamespace(artefacts={}, to_json=lambda: "{}")
        result: Any = ExportResult
        return result(ground / "engine.bundle", manifest, (), verification)

    extended = SimpleNamespace(precisions=None, report={}, removed=())
    loaded = SimpleNamespace(findings=(), model=None, config=SimpleNamespace(feature_sizes=[(1, 1)]))
    monkeypatch.chdir(ground)
    monkeypatch.setenv("YOLACT_SIGNING_KEY", "private.pem")
    results = json.loads((ground / "record.json").read_text())["results"]
    monkeypatch.setattr("yolact_benchmarks.facade.benchmark.run_bench", lambda *_: results)
    monkeypatch.setattr("yolact_export.pipeline.export_checkpoint", export)
    monkeypatch.setattr("yolact_export.precision.existing_bundle.ExistingBundle.extend", lambda *_: extended)
    monkeypatch.setattr("yolact_export.commands.bundle_cli.say_precisions", lambda *_: None)
    monkeypatch.setattr("yolact_export.training.pruning_request.load_checkpoint", lambda *_: loaded)
    pruned = SimpleNamespace(path=ground / "model.pth", record={})
    monkeypatch.setattr("yolact_export.training.pruning_request.prune_checkpoint", lambda *_: pruned)
    monkeypatch.setattr("yolact_export.facade.engines.build_engines", lambda *_: [])
    monkeypatch.setattr("yolact_export.training.finetune.finetune", end)
    monkeypatch.setattr(compiler, "compile_cubin", end)
    monkeypatch.setattr(CubinCache, "get", end)


def record_reads(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Let commands parse into options that note which of them are read to be used."""
    read: set[str] = set()

    class Recorded(Options):
        def __getattribute__(self, name: str) -> Any:
            frame = sys._getframe(1)
            while frame is not None and frame.f_code.co_name not in {"record_reads", "main"}:
                if frame.f_code.co_name == "job_of":
                    break
                if CHECKS.fullmatch(frame.f_code.co_name) or frame.f_code.co_filename == argparse.__file__:
                    return super().__getattribute__(name)
                frame = frame.f_back  # type: ignore[assignment]
            read.add(name)
            return super().__getattribute__(name)

    monkeypatch.setattr(parser_module, "Options", Recorded)
    return read


def value_of(action: argparse.Action) -> list[str]:
    if action.nargs == 0:
        return []
    if action.choices:
        return [str(list(action.choices)[-1])]
    if action.metavar == "WxH":
        return ["64x64"]
    return ["1" if action.metavar in {"N", "S", "C", "F", "P", "R"} else "x"]


@pytest.mark.parametrize(("command", "words", "status"), JOBS, ids=lambda value: str(value))
def test_every_option_is_used_or_refused(
    command: str, words: str, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        read = record_reads(patch)
        assert entry_point(command.removesuffix(" compare"))(words.split()) == status, capsys.readouterr().err
    parser = parser_of(command)
    typed = words.removeprefix("compare ").split()
    job = effects(parser, typed)
    ignored, refusals = [], []
    for action in parser.actions:
        if not action.option_strings or action.dest in {argparse.SUPPRESS, "version"}:
            continue
        more = [] if {*action.option_strings} & {*typed} else [action.option_strings[-1], *value_of(action)]
        try:
            is_same_job = effects(parser, [*typed, *more]) == job
        except UsageError as error:
            refusals.append(str(error))
        else:
            # What chooses the job was read to choose it.
            ignored += [action.option_strings[-1]] if is_same_job and action.dest not in read else []
    assert ignored == []
    reasons = re.compile(r"--.* (has|have) no effect .*; .*leave (it|them) out|.* exclude each other; .*")
    assert [refusal for refusal in refusals if not reasons.match(refusal)] == []


def effects(parser: CommandParser, words: list[str]) -> str:
    """The job of a command line, if all of its options have an effect."""
    options = parser.parse_args(words)
    parser.require_effects(options)
    job: str = options.job
    return job


@pytest.mark.parametrize(("words", "more"), IGNORED)
def test_what_was_ignored_in_silence_is_refused(words: str, more: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = more.split()[0]
    assert entry_point("yolact-export")([*words.split(), *more.split()]) == 2
    assert re.fullmatch(rf"error: {name} has no effect .*; .*leave it out\n", capsys.readouterr().err)


def test_every_command_has_a_job_here() -> None:
    assert {command for command, _, _ in JOBS} == set(PARSERS)
