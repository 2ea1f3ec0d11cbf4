"""``yolact-finetune`` as its users type it, on pictures of a few pixels; killed, interrupted and misused."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from support.training_data import square, write_scenes, write_set
from yolact_calibration.shapes.outline import CLASS_NAMES
from yolact_export.checkpoint.checkpoint import load_checkpoint
from yolact_export.checkpoint.note import CheckpointNote, write_checkpoint
from yolact_export.commands.cli import main as export_main
from yolact_export.commands.finetune_cli import main
from yolact_export.model.registry import CONFIGS
from yolact_export.model.yolact import create_model
from yolact_export.training.progress_report import ProgressReport
from yolact_runtime.media.images import write_image

Set = tuple[Path, Path]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Set:
    return write_scenes(tmp_path_factory.mktemp("scenes") / "set", 6)


def words(data: Set, output: Path, *more: str | Path, source: str | Path = "yolact_tiny") -> list[str]:
    """A command line for a training of a few seconds."""
    short = ["--steps", "3", "--batch-size", "2", "--input-size", "64", "--workers", "0", "--device", "cpu"]
    options = ["--annotations", data[0], "--images", data[1], "-o", output, *short, "--autocast", "off", *more]
    return [str(word) for word in (source, *options)]


def tensors_of(path: Path) -> dict[str, torch.Tensor]:
    content: dict[str, torch.Tensor] = torch.load(path, weights_only=True)
    return content


def assert_equal_checkpoints(a: Path, b: Path) -> None:
    first, second = tensors_of(a), tensors_of(b)
    assert list(first) == list(second)
    assert [key for key, value in first.items() if not torch.equal(value, second[key])] == []


def test_a_training_leaves_a_checkpoint_that_the_export_reads(
    scenes: Set, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new folder" / "shapes.pth"
    assert main(words(scenes, output, "--json", tmp_path / "copy.json", "--validation-fraction", "0.3")) == 0
    talk = capsys.readouterr()
    assert talk.out == ""
    assert f"next:  yolact-export '{output}'" in talk.err
    assert "4 images with instances to train on, 2 to measure accuracy on" in talk.err
    assert "warning: ASSUMED: the backbone starts from random weights" in talk.err.replace("  ", "")
    assert "2 images that were held back: box AP" in talk.err
    names = {path.name for path in output.parent.iterdir()}
    assert names == {"shapes.pth", "shapes.json", "shapes.html", "shapes.pth.state"}

    record = json.loads(output.with_suffix(".json").read_text())
    assert record == json.loads((tmp_path / "copy.json").read_text())
    assert record["checkpoint"] == "shapes.pth"
    assert record["class_names"] == list(CLASS_NAMES)
    assert record["config"]["input_height"] == 64
    assert (record["training"]["num_steps"], record["training"]["batch_size"]) == (3, 2)
    assert record["facts"]["start"] == "yolact_tiny, seed 0"
    assert set(record["versions"]) == {"yolact-deploy", "torch"}
    assert record["validation"]["images"] == 2
    assert record["curve"]["step"] == [1, 2, 3]
    assert set(record["curve"]["terms"]) == {"box", "class", "mask", "semantic"}
    (evaluation,) = record["curve"]["accuracy"]
    assert evaluation["step"] == 3
    assert {"box AP", "mask AP", "mask AP50"} <= set(evaluation)

    page = output.with_suffix(".html").read_text()
    assert page.startswith("<!doctype html>")
    assert "http://" not in page
    assert "https://" not in page
    # Labels beside what is found, in both images that were held back.
    assert page.count("data:image/jpeg;base64,") == 4
    assert "<span>labels</span>" in page
    assert "<dt>Command</dt><dd><code>yolact-finetune yolact_tiny " in page

    loaded = load_checkpoint(output)
    assert loaded.class_names == CLASS_NAMES
    assert (loaded.config.input_height, loaded.config.name) == (64, "yolact_tiny")
    assert not any(finding.startswith("ASSUMED") for finding in loaded.findings)
    assert export_main([str(output), "-o", str(tmp_path / "bundle"), "-q"]) == 0


def test_nothing_is_assumed_of_a_checkpoint_unasked(
    scenes: Set, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "mine.pth"
    torch.save(create_model(CONFIGS["yolact_tiny"]).state_dict(), source)
    assert main(words(scenes, tmp_path / "out.pth", source=source)) == 1
    assert f"yolact-finetune {source} --config yolact_tiny  (256 x 256" in capsys.readouterr().err
    assert not (tmp_path / "out.pth").exists()
    assert main([*words(scenes, tmp_path / "b.pth", source=source), "--assume", "-q"]) == 0
    assert "ASSUMED: input 550 x 550" in capsys.readouterr().err
    assert main([*words(scenes, tmp_path / "c.pth"), "--assume"]) == 2
    assert "--assume has no effect on a configuration, which has no weights" in capsys.readouterr().err


def test_a_checkpoint_is_trained_further_and_left_as_it_was(
    scenes: Set, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    model = create_model(dataclasses.replace(CONFIGS["yolact_tiny"], num_classes=len(CLASS_NAMES) + 1))
    source = tmp_path / "start.pth"
    write_checkpoint(source, model.state_dict(), CheckpointNote(model.config, CLASS_NAMES))
    before = source.read_bytes()
    assert main(words(scenes, tmp_path / "out.pth", source=source)) == 0
    assert source.read_bytes() == before
    assert "batch norms are frozen: a batch of 2 is too small" in capsys.readouterr().err
    start, end = tensors_of(source), tensors_of(tmp_path / "out.pth")
    same = {key for key, value in start.items() if torch.equal(value, end[key])}
    norms = {key for key in start if ".bn" in key or ".downsample.1." in key}
    assert same == norms


def test_small_batches_do_not_freeze_batch_norms_that_know_nothing(
    scenes: Set, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(scenes, tmp_path / "out.pth", "--validation-fraction", "0")) == 0
    assert "batch norms are trained, although a batch of 2 is small" in capsys.readouterr().err
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["training"]["freeze_batch_norm"] is False
    assert record["validation"] is None
    assert record["curve"]["accuracy"] == []
    assert int(tensors_of(tmp_path / "out.pth")["backbone.bn1.num_batches_tracked"]) == 3


def test_epochs_are_counted_in_images_with_instances(tmp_path: Path) -> None:
    thing = {"segmentation": square(8, 8, 30)}
    data = write_set(tmp_path / "set", [[thing], [], [thing], [{**thing, "iscrowd": 1}], [thing]])
    chosen = words(data, tmp_path / "out.pth", "--validation-fraction", "0")
    steps = chosen.index("--steps")
    chosen[steps : steps + 2] = ["--epochs", "2"]
    assert main(chosen) == 0
    assert json.loads((tmp_path / "out.json").read_text())["training"]["num_steps"] == 3


def test_validation_categories_may_come_in_another_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    thing = {"segmentation": square(8, 8, 30)}
    train = write_set(tmp_path / "train", [[thing], [{**thing, "category_id": 20}]], ("cat", "dog"))
    validation = write_set(tmp_path / "validation", [[thing]], ("dog", "horse", "cat"))
    asked: list[Any] = []
    monkeypatch.setattr(
        "yolact_export.training.finetune.evaluate_model",
        lambda model, data, names: asked.append(names) or _evaluate(model, data, names),
    )
    more = ["--validation-annotations", validation[0], "--validation-images", validation[1]]
    assert main(words(train, tmp_path / "out.pth", *more)) == 0
    assert asked == [("cat", "dog")]


def _evaluate(*arguments: Any) -> Any:
    from yolact_export.training.evaluation import evaluate_model

    return evaluate_model(*arguments)


def test_the_same_seed_gives_the_same_checkpoint_and_another_another(scenes: Set, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert main(words(scenes, tmp_path / f"{name}.pth", "--seed", str(seed))) == 0
    assert_equal_checkpoints(tmp_path / "a.pth", tmp_path / "b.pth")
    records = [json.loads((tmp_path / f"{name}.json").read_text()) for name in "abc"]
    assert records[0]["curve"] == records[1]["curve"]
    assert records[0]["curve"] != records[2]["curve"]


def test_a_finished_training_is_not_repeated_with_other_options(
    scenes: Set, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.pth"
    assert main(words(scenes, output)) == 0
    before = output.read_bytes()
    assert main(words(scenes, output, "--learning-rate", "0.01", "--expand", "2")) == 1
    message = capsys.readouterr().err
    assert "learning_rate was 0.001, now 0.01" in message
    assert "augment was AugmentOptions(colour=True, expand=4.0" in message
    assert output.read_bytes() == before
    assert main(words(scenes, output, "--learning-rate", "0.01", "--restart")) == 0
    assert output.read_bytes() != before


def test_a_damaged_state_is_explained_and_discarded_on_demand(
    scenes: Set, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "out.pth.state"
    state.write_bytes(b"not a state")
    assert main(words(scenes, tmp_path / "out.pth")) == 1
    assert f"{state}: not the state of a training" in capsys.readouterr().err
    assert state.read_bytes() == b"not a state"
    assert main(words(scenes, tmp_path / "out.pth", "--restart")) == 0


# In the background of a shell SIGINT is ignored, and children inherit that.
COMMAND = [
    sys.executable,
    "-c",
    "import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from yolact_export.commands.finetune_cli import main\nsys.exit(main())",
]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


# Starts the command once for every line: what all of them import is imported once. PyTorch is as it was after the
# import, and each process that is killed has done everything else itself. A line says after how many saves, and how
# much later in seconds of the process's own time: a busy machine does not make it later. Nothing handles SIGPROF: the
# kernel ends the process where it is, as SIGKILL does.
_FORKING = """
import os, signal, sys
import torch._dynamo
import yolact_export.training.finetune
from yolact_calibration.training import training
from yolact_export.commands.finetune_cli import main
write_state = training.write_state
def write_and_count(*arguments):
    global saves
    write_state(*arguments)
    saves -= 1
    if saves == 0:
        signal.setitimer(signal.ITIMER_PROF, later)
for line in sys.stdin:
    saves, later = int(line.split()[0]), float(line.split()[1])
    child = os.fork()
    if child == 0:
        training.write_state = write_and_count
        os._exit(main(sys.argv[1:]))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def _wait_for_saves(state: Path, count: int, has_ended: Callable[[], bool]) -> None:
    """Until the state was written `count` times from now, or the process has ended."""
    seen = state.stat().st_mtime_ns if state.exists() else 0
    while count and not has_ended():
        now = state.stat().st_mtime_ns if state.exists() else 0
        count -= now != seen
        seen = now
        time.sleep(0.005)


def _step_of(state: Path) -> int:
    return int(torch.load(state, weights_only=True)["step"])


@pytest.mark.long
def test_five_kills_at_random_moments_change_nothing(scenes: Set, tmp_path: Path) -> None:
    # Sums come out differently with another number of threads.
    torch.set_num_threads(1)
    more = ["--steps", "40", "--save-every", "2", "--evaluate-every", "15", "--optimizer", "adamw", "--quiet"]
    assert main(words(scenes, tmp_path / "whole.pth", *more)) == 0
    output, state = tmp_path / "killed.pth", tmp_path / "killed.pth.state"
    command = [sys.executable, "-c", _FORKING, *words(scenes, output, *more)]
    chance = random.Random(0)
    steps_at_death = []
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=ENVIRONMENT, text=True, bufsize=1, **pipes) as parent:
        assert parent.stdin
        assert parent.stdout
        for _ in range(5):
            parent.stdin.write(f"{chance.randint(1, 3)} {chance.uniform(1e-6, 0.1)}\n")
            assert int(parent.stdout.readline()) == -signal.SIGPROF
            assert not output.exists()
            steps_at_death.append(_step_of(state))
        parent.stdin.close()
    assert parent.returncode == 0
    assert steps_at_death == sorted(set(steps_at_death))
    assert 0 < steps_at_death[0] < steps_at_death[-1] < 40
    assert main(words(scenes, output, *more)) == 0
    assert_equal_checkpoints(output, tmp_path / "whole.pth")
    records = [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("whole", "killed")]
    assert records[0]["curve"] == records[1]["curve"]
    assert len(records[1]["curve"]["terms"]["mask"]) == 40
    assert [row["step"] for row in records[1]["curve"]["accuracy"]] == [15, 30, 40]
    assert records[0]["validation"] == records[1]["validation"]


def test_an_interrupt_saves_and_the_same_command_continues(scenes: Set, tmp_path: Path) -> None:
    """Ctrl-C reaches the command and the processes that prepare its batches."""
    more = ["--steps", "2000", "--save-every", "2", "--validation-fraction", "0", "--workers", "1"]
    output, state = tmp_path / "out.pth", tmp_path / "out.pth.state"
    command = COMMAND + words(scenes, output, *more)
    with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, start_new_session=True) as process:
        _wait_for_saves(state, 1, lambda: process.poll() is not None)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=300)
    message = said.decode()
    assert process.returncode == 130, message
    assert f"state kept in {state}; the same command continues" in message
    assert "Traceback" not in message
    assert not output.exists()
    content = torch.load(state, weights_only=True)
    assert content["step"] >= 2
    assert {len(values) for values in content["terms"].values()} == {content["step"]}


def test_an_interrupt_before_the_first_step_promises_nothing(
    scenes: Set, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("yolact_export.training.finetune.start_model", interrupt)
    assert main(words(scenes, tmp_path / "out.pth")) == 130
    assert "state kept" not in capsys.readouterr().err


def _refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    status = main(arguments)
    talk = capsys.readouterr()
    assert "Traceback" not in talk.err
    return status, talk.err


@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        (["-o", "model.onnx"], 2, "must end in .pth; found model.onnx"),
        (["--validation-fraction", "1"], 2, "--validation-fraction lies between 0 and 1"),
        (["--validation-fraction", "0.95"], 2, "leaves none to train on"),
        (["--workers", "-1"], 2, "--workers must be 0 or more"),
        (["--steps", "0"], 2, "--steps must be 1 or more"),
        (["--epochs", "2"], 2, "exclude each other"),
        (["--batch-size", "0"], 2, "--batch-size must be 1 or more"),
        (["--learning-rate", "-1"], 2, "--learning-rate must be above 0"),
        (["--warmup", "-1"], 2, "--warmup must be 0 or more"),
        (["--save-every", "0"], 2, "--save-every must be 1 or more"),
        (["--learning-rate", "inf"], 2, "--learning-rate must be above 0 and finite"),
        (["--seed", "-1"], 2, "--seed must be 0 or more"),
        (["--seed", str(2**63)], 2, "--seed must be below 2^63"),
        (["--expand", "nan"], 2, "--expand must be 1 (off) to 16, found nan"),
        (["--expand", "0.5"], 2, "--expand must be 1 (off) to 16, found 0.5"),
        (["--prior-scales", "a,b"], 2, "--prior-scales are numbers"),
        (["--prior-scales", "1,2"], 2, "--prior-scales has one level for each of P3 to P7"),
        (["--input-size", "16"], 2, "--input-size is 32 pixels or more"),
        (["--input-size", "0"], 2, "--input-size is 32 pixels or more"),
        (["--validation-images", "x"], 2, "--validation-images has no effect without --validation-annotations"),
        (["--images", "nowhere"], 1, "nowhere, the folder of images, does not exist"),
        (["--annotations", "nowhere.json"], 1, "cannot read the annotations nowhere.json"),
        (["--backbone-weights", "nowhere.pth"], 1, "nowhere.pth: cannot be read"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_words_are_refused(
    more: list[str],
    status: int,
    message: str,
    scenes: Set,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    found, said = _refused(words(scenes, tmp_path / "out.pth", *more), capsys)
    assert message in said
    assert found == status
    assert list(tmp_path.rglob("*.pth*")) == []


@pytest.mark.parametrize("epochs", ["0", "-1", "nan", "inf"])
def test_senseless_epochs_are_refused(
    epochs: str, scenes: Set, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = words(scenes, tmp_path / "out.pth")
    steps = chosen.index("--steps")
    chosen[steps : steps + 2] = [f"--epochs={epochs}"]
    assert _refused(chosen, capsys)[0] == 2


def test_an_unknown_source_lists_the_configurations(
    scenes: Set, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said = _refused(words(scenes, tmp_path / "out.pth", source="yolact_huge"), capsys)
    assert status == 1
    assert '"yolact_huge" is neither a file nor a configuration' in said


def test_outputs_never_overwrite_what_is_read(scenes: Set, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "instances.json", scenes[1]
    data[0].write_bytes(scenes[0].read_bytes())
    before = data[0].read_bytes()
    status, said = _refused(words(data, tmp_path / "instances.pth"), capsys)
    assert status == 2
    assert f"would overwrite {data[0]}, which the training reads" in said
    status, said = _refused(words(data, tmp_path / "out.pth", "--json", data[0]), capsys)
    assert status == 2
    assert "--json would overwrite" in said
    for name in ("out.pth", "out.html", "out.pth.state"):
        status, said = _refused(words(data, tmp_path / "out.pth", "--json", tmp_path / name), capsys)
        assert status == 2
        assert str(tmp_path / name) in said
        assert "--json would overwrite" in said or "--json and --output cannot both write" in said
    source = tmp_path / "start.pth"
    source.write_bytes(b"checkpoint")
    status, said = _refused(words(data, source, source=source), capsys)
    assert status == 2
    assert f"would overwrite {source}" in said
    assert data[0].read_bytes() == before
    assert source.read_bytes() == b"checkpoint"


def test_a_foreign_file_in_the_place_of_the_record_is_left_alone(
    scenes: Set, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out.json").write_text('{"mine": 1}')
    status, said = _refused(words(scenes, tmp_path / "out.pth"), capsys)
    assert status == 2
    assert f"would overwrite {tmp_path / 'out.json'}, which is not a record of a training" in said
    assert (tmp_path / "out.json").read_text() == '{"mine": 1}'


def _relabelled(data: Set, path: Path, change: Callable[[list[dict[str, Any]]], None]) -> Path:
    """A copy of the labels with other annotations."""
    document = json.loads(data[0].read_text())
    change(document["annotations"])
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize("which", ["training", "validation"])
def test_an_annotation_without_an_outline_is_found_before_the_first_step(
    which: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stray click is all that is left of an annotation: coco-annotator and CVAT write such."""
    data = write_set(tmp_path / "set", [[{"segmentation": square(4, 4, 30)}]] * 4)
    bad = _relabelled(data, tmp_path / "bad.json", lambda entries: entries[-1].update(segmentation=[[12.0, 12.0]]))
    train, validation = (bad, data[0]) if which == "training" else (data[0], bad)
    more = ["--validation-annotations", validation]
    assert main(words((train, data[1]), tmp_path / "out.pth", *more)) == 1
    said = capsys.readouterr().err
    assert "1 annotation with a segmentation of points and lines only" in said
    assert "4 in 3.png" in said
    assert list(tmp_path.glob("out*")) == []


def test_a_stray_click_beside_an_outline_is_said_and_trained_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_set(tmp_path / "set", [[{"segmentation": square(4, 4, 30)}]] * 2)
    stray = _relabelled(data, tmp_path / "stray.json", lambda entries: entries[1]["segmentation"].append([1.0, 2.0]))
    assert main([*words((stray, data[1]), tmp_path / "out.pth", "--validation-fraction", "0"), "-q"]) == 0
    assert f"warning: {stray}: left out: 1 piece with fewer than 3 different points" in capsys.readouterr().err


def test_labels_with_boxes_only_are_refused_before_the_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_set(tmp_path / "set", [[{"segmentation": square(4, 4, 30)}]] * 2)
    boxes = _relabelled(data, tmp_path / "b.json", lambda entries: [entry.pop("segmentation") for entry in entries])
    assert main(words((boxes, data[1]), tmp_path / "out.pth", "--validation-fraction", "0")) == 1
    assert "the labels have boxes only (2 annotations without a segmentation)" in capsys.readouterr().err
    assert main(words(data, tmp_path / "v.pth", "--validation-annotations", boxes)) == 0
    assert "2 of 2 annotations with a box and no segmentation" in capsys.readouterr().err
    assert json.loads((tmp_path / "v.json").read_text())["validation"]["segm"] is None


def test_labels_that_are_no_objects_are_refused_and_doubtful_ones_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Coordinates in parts of the width trained a model of nothing, with exit status 0."""
    data = write_set(tmp_path / "set", [[{"segmentation": square(4, 4, 30)}]] * 4)
    tiny = square(0, 0, 1)

    def relative(entries: list[dict[str, Any]]) -> None:
        for entry in entries:
            entry.update(segmentation=[[x / 64 for x in tiny[0]]], bbox=[0.1, 0.1, 0.4, 0.4])

    bad = _relabelled(data, tmp_path / "bad.json", relative)
    for train, validation in ((bad, data[0]), (data[0], bad)):
        assert main(words((train, data[1]), tmp_path / "a.pth", "--validation-annotations", validation)) == 1
        said = capsys.readouterr().err
        assert f"error: {bad}: no outline covers a pixel of its image" in said
        assert "coordinates must be pixels" in said
    one = _relabelled(data, tmp_path / "one.json", lambda entries: relative(entries[:1]))
    assert main([*words((one, data[1]), tmp_path / "b.pth", "--validation-fraction", "0"), "-q"]) == 0
    said = capsys.readouterr().err
    assert f"warning: {one}: 1 annotation with an outline that covers no pixel of the image" in said
    crowds = _relabelled(data, tmp_path / "crowds.json", lambda entries: [entry.update(iscrowd=1) for entry in entries])
    assert main(words((crowds, data[1]), tmp_path / "c.pth")) == 1
    assert "there is nothing to learn: none of 4 annotations in 4 images" in capsys.readouterr().err
    assert list(tmp_path.glob("[ac].pth*")) == []


def test_a_placeholder_category_becomes_no_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_set(tmp_path / "set", [[{"segmentation": square(4, 4, 30)}]] * 2)
    document = json.loads(data[0].read_text())
    document["categories"] = [
        {"id": 0, "name": "pets", "supercategory": "none"},
        {"id": 99, "name": "_background_"},
        *({**entry, "supercategory": "pets"} for entry in document["categories"]),
    ]
    data[0].write_text(json.dumps(document))
    assert main(words(data, tmp_path / "out.pth", "--validation-fraction", "0")) == 0
    assert json.loads((tmp_path / "out.json").read_text())["class_names"] == ["cat", "dog"]
    said = capsys.readouterr().err
    assert "stands for the whole data set: pets (id 0)" in said
    assert "is the background, not a class: _background_ (id 99)" in said


def test_missing_images_are_skipped_on_demand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_set(tmp_path / "set", [[{"segmentation": square(4, 4, 30)}]] * 3)
    (data[1] / "1.png").unlink()
    chosen = words(data, tmp_path / "out.pth", "--validation-fraction", "0")
    assert main(chosen) == 1
    assert "1 of the 3 images" in capsys.readouterr().err
    steps = chosen.index("--steps")
    chosen[steps : steps + 2] = ["--epochs", "2"]
    assert main([*chosen, "--skip-missing"]) == 0
    assert f"1 of 3 images is not in {data[1]} and skipped: 1.png" in capsys.readouterr().err
    assert json.loads((tmp_path / "out.json").read_text())["training"]["num_steps"] == 2


def test_an_image_that_is_spoilt_meanwhile_ends_the_training_and_keeps_its_steps(
    scenes: Set, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "images"
    shutil.copytree(scenes[1], folder)
    more = ["--steps", "8", "--batch-size", "1", "--validation-fraction", "0"]
    output, state = tmp_path / "out.pth", tmp_path / "out.pth.state"
    told = ProgressReport.__call__

    def spoil(self: ProgressReport, progress: Any) -> None:
        if progress.step == 3:
            for path in folder.iterdir():
                path.write_bytes(b"spoilt")
        told(self, progress)

    monkeypatch.setattr(ProgressReport, "__call__", spoil)
    assert main(words((scenes[0], folder), output, *more)) == 1
    said = capsys.readouterr().err
    assert f"state kept in {state}; the same command continues after step 3" in said
    assert "error: cannot read" in said
    assert _step_of(state) == 3
    monkeypatch.undo()
    shutil.rmtree(folder)
    shutil.copytree(scenes[1], folder)
    assert main(words((scenes[0], folder), output, *more)) == 0
    assert "continuing after step 3" in capsys.readouterr().err
    assert main(words(scenes, tmp_path / "whole.pth", *more)) == 0
    assert_equal_checkpoints(output, tmp_path / "whole.pth")


def test_a_worker_that_is_killed_costs_no_step(scenes: Set, tmp_path: Path) -> None:
    more = ["--steps", "2000", "--save-every", "500", "--validation-fraction", "0", "--workers", "1"]
    output, state = tmp_path / "out.pth", tmp_path / "out.pth.state"
    command = COMMAND + words(scenes, output, *more)
    with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        while b"  step " not in process.stderr.readline():
            assert process.poll() is None
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGKILL)
        _, said = process.communicate(timeout=300)
    message = said.decode()
    assert process.returncode == 1, message
    assert "a process that prepares batches has died" in message
    assert "Traceback" not in message
    assert f"state kept in {state}" in message
    assert _step_of(state) >= 1


def test_data_that_cannot_be_learned_from_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nothing = write_set(tmp_path / "nothing", [[], []])
    status, said = _refused(words(nothing, tmp_path / "a.pth", "--validation-fraction", "0"), capsys)
    assert status == 1
    assert "there is nothing to learn" in said
    turned = write_set(tmp_path / "turned", [[{"segmentation": square(4, 4, 30)}]] * 2)
    for name in ("0.png", "1.png"):
        write_image(turned[1] / name, torch.zeros(64, 32, 3, dtype=torch.uint8).numpy())
    status, said = _refused(words(turned, tmp_path / "b.pth", "--validation-fraction", "0"), capsys)
    assert status == 1
    assert "is 32 x 64 pixels, its annotations say 64 x 64" in said
