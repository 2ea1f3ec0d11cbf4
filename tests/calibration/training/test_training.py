from __future__ import annotations

import copy
import errno
import itertools
import math
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from support.training_data import TinyObjective, tiny_batches, tiny_network
from yolact_calibration.data.batch import Batch
from yolact_calibration.errors import TrainingError, UsageError
from yolact_calibration.training.training import (
    Progress,
    Training,
    TrainingOptions,
    freeze_batch_norms,
    safe_memory_format,
)
from yolact_calibration.training.training_state import Curve, read_state, write_state
from yolact_runtime.errors import OutputError


def options(**changes: Any) -> TrainingOptions:
    values: dict[str, Any] = {
        "num_steps": 12,
        "batch_size": 2,
        "learning_rate": 0.05,
        "warmup_steps": 3,
        "save_every": 5,
        "evaluate_every": 4,
    }
    return TrainingOptions(**{**values, **changes})


def weight_sum(model: nn.Module) -> Mapping[str, float]:
    """Stands for an evaluation: a number that follows the weights."""
    assert not model.training
    return {"sum": sum(float(value.detach().sum()) for value in model.parameters())}


def training(path: Path, chosen: TrainingOptions | None = None, **changes: Any) -> Training:
    arguments: dict[str, Any] = {
        "model": tiny_network(),
        "objective": TinyObjective(),
        "batches": tiny_batches,
        "options": chosen or options(),
        "state_path": path,
        "identity": {"data": "abc"},
        "evaluate": weight_sum,
    }
    return Training(**{**arguments, **changes})


def assert_equal_ends(a: Training, b: Training) -> None:
    assert a.curve == b.curve
    for key, value in a.model.state_dict().items():
        assert torch.equal(value, b.model.state_dict()[key]), key


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Training:
    """A training that nothing disturbed."""
    undisturbed = training(tmp_path_factory.mktemp("whole") / "x.state")
    undisturbed.run()
    return undisturbed


def test_the_loss_falls_and_the_curve_has_every_step(whole: Training) -> None:
    assert set(whole.curve.terms) == {"distance", "size"}
    values = whole.curve.terms["distance"]
    assert len(values) == 12
    assert sum(values[-3:]) < 0.7 * sum(values[:3])


def test_evaluations_come_when_asked_for_and_at_the_end(tmp_path: Path) -> None:
    run = training(tmp_path / "x", options(num_steps=10))
    run.run()
    assert [step for step, _ in run.curve.accuracy] == [4, 8, 10]
    assert run.curve.accuracy[-1][1] == weight_sum(run.model.eval())


def test_without_an_evaluation_the_curve_has_none(tmp_path: Path) -> None:
    run = training(tmp_path / "x", evaluate=None)
    assert run.run().accuracy == []


class Stopped(BaseException):
    """Stands for a kill: nothing cleans up after it."""


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_killed_training_ends_as_if_nothing_had_happened(optimizer: str, tmp_path: Path) -> None:
    chosen = options(optimizer=optimizer)
    undisturbed = training(tmp_path / "whole", chosen)
    undisturbed.run()

    def batches(first: int, last: int) -> Iterator[Batch]:
        for batch in tiny_batches(first, last):
            if batch.step in deaths:
                deaths.remove(batch.step)
                raise Stopped
            yield batch

    deaths = [2, 7, 9, 11]
    done = []
    while True:
        run = training(tmp_path / "x", chosen, batches=batches)
        done.append(run.resume())
        try:
            run.run()
        except Stopped:
            continue
        break
    assert done == [0, 0, 5, 5, 10]
    assert_equal_ends(run, undisturbed)


def test_a_finished_training_is_not_run_again(tmp_path: Path) -> None:
    run = training(tmp_path / "x")
    run.run()
    again = training(tmp_path / "x")
    assert again.resume() == 12
    again.run()
    assert_equal_ends(again, run)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_waits_for_the_step_and_saves_it(number: int, tmp_path: Path, whole: Training) -> None:
    class Interrupted(TinyObjective):
        """Interrupted when the batch norm has seen the batch and the weights have not learned from it."""

        def __call__(self, model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
            terms = super().__call__(model, batch)
            if batch.step == 6:
                os.kill(os.getpid(), number)
            return terms

    # Not what this process was started with: in the background of a shell, SIGINT is ignored.
    before = signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            training(tmp_path / "x", objective=Interrupted()).run()
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)
    run = training(tmp_path / "x")
    assert run.resume() == 7
    run.run()
    assert_equal_ends(run, whole)


def test_an_evaluation_that_was_interrupted_is_made_up_for(tmp_path: Path, whole: Training) -> None:
    def interrupted(model: nn.Module) -> Mapping[str, float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training(tmp_path / "x", evaluate=interrupted).run()
    run = training(tmp_path / "x")
    assert run.resume() == 4
    assert run.curve.accuracy == []
    run.run()
    assert_equal_ends(run, whole)


def test_a_thread_can_train(tmp_path: Path, whole: Training) -> None:
    run = training(tmp_path / "x")
    thread = threading.Thread(target=run.run)
    thread.start()
    thread.join()
    assert_equal_ends(run, whole)


def test_other_options_are_refused_and_listed(tmp_path: Path) -> None:
    training(tmp_path / "x").run()
    with pytest.raises(TrainingError) as caught:
        training(tmp_path / "x", options(learning_rate=0.1, seed=3), identity={"data": "xyz", "more": "1"}).resume()
    message = str(caught.value)
    assert "data was abc, now xyz; learning_rate was 0.05, now 0.1; more was unset, now 1; seed was 0, now 3" in message
    assert "num_steps" not in message
    assert "--restart" in message


def test_how_often_a_state_is_written_may_change(tmp_path: Path, whole: Training) -> None:
    with pytest.raises(Stopped):
        training(tmp_path / "x", batches=_stopped_at(6)).run()
    run = training(tmp_path / "x", options(save_every=1))
    assert run.resume() == 5
    run.run()
    assert_equal_ends(run, whole)


def _stopped_at(stop: int) -> Any:
    def batches(first: int, last: int) -> Iterator[Batch]:
        yield from tiny_batches(first, min(last, stop))
        raise Stopped

    return batches


class Diverging(TinyObjective):
    """Fine until a step, and then not a number, or with a gradient that is none."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        terms = super().__call__(model, batch)
        if batch.step == 6 and self.kind == "loss":
            terms["size"] = terms["size"] * math.inf
        if batch.step == 6 and self.kind == "gradient":
            # The root of 0 is 0, and its slope is infinite.
            terms["size"] = (terms["size"] * 0.0).sqrt()
        return terms


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_a_diverging_training_stops_and_keeps_its_last_good_state(kind: str, tmp_path: Path) -> None:
    run = training(tmp_path / "x", options(save_every=1), objective=Diverging(kind))
    with pytest.raises(TrainingError, match=rf"the {kind} of step 7 is not finite .*learning rate \(now 0.05\)"):
        run.run()
    state = read_state(tmp_path / "x")
    assert state is not None
    assert state.step == 6
    assert all(torch.isfinite(value).all() for value in state.model.values())
    assert len(state.curve.terms["size"]) == 6


def test_a_model_that_diverged_in_the_last_step_is_not_kept(tmp_path: Path) -> None:
    evaluations = itertools.count(1)

    def evaluate(model: nn.Module) -> Mapping[str, float]:
        if next(evaluations) == 2:
            raise OutputError('the network output "x" holds NaN or infinity')
        return {"AP": 0.5}

    run = training(tmp_path / "x", options(save_every=2, evaluate_every=3), evaluate=evaluate)
    with pytest.raises(TrainingError, match=r"not finite after step 6\. Use a lower learning rate \(now 0.05\)"):
        run.run()
    state = read_state(tmp_path / "x")
    assert state is not None
    assert state.step == 4


def test_frozen_batch_norms_do_not_change_by_a_bit(tmp_path: Path) -> None:
    model = tiny_network()
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        norm.running_mean.uniform_()
        norm.weight.uniform_()
    before = copy.deepcopy(model.state_dict())
    training(tmp_path / "x", options(freeze_batch_norm=True), model=model).run()
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"0.weight", "0.bias", "3.weight", "3.bias"}


def test_other_batch_norms_learn(tmp_path: Path) -> None:
    model = tiny_network()
    before = copy.deepcopy(model.state_dict())
    training(tmp_path / "x", model=model).run()
    assert all(not torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_freezing_reaches_every_batch_norm() -> None:
    model = nn.Sequential(tiny_network(), tiny_network()).train()
    freeze_batch_norms(model)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 2
    assert not any(norm.training or norm.weight.requires_grad for norm in norms)
    assert model[0][0].weight.requires_grad


def test_autocast_computes_in_bfloat16_and_learns(tmp_path: Path, whole: Training) -> None:
    seen = []

    class Watching(TinyObjective):
        def __call__(self, model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
            seen.append(model[0](batch.image).dtype)
            return super().__call__(model, batch)

    run = training(tmp_path / "x", options(autocast=True), objective=Watching())
    run.run()
    assert set(seen) == {torch.bfloat16}
    assert all(value.dtype in (torch.float32, torch.int64) for value in run.model.state_dict().values())
    expected = whole.curve.terms["distance"]
    assert run.curve.terms["distance"] == pytest.approx(expected, rel=0.05)
    assert run.curve.terms["distance"] != expected


def test_long_gradients_are_shortened(tmp_path: Path) -> None:
    def moved(limit: float) -> float:
        model = tiny_network()
        before = [parameter.detach().clone() for parameter in model.parameters()]
        chosen = options(num_steps=1, max_gradient_norm=limit, weight_decay=0.0, warmup_steps=0)
        training(tmp_path / str(limit), chosen, model=model).run()
        pairs = zip(model.parameters(), before, strict=True)
        return math.sqrt(sum(float((after.detach() - b).square().sum()) for after, b in pairs))

    assert moved(1e-3) == pytest.approx(0.05 * 1e-3, rel=1e-3)
    assert moved(1e3) > 0.05 * 1e-2


def test_weights_decay_and_biases_and_norms_do_not(tmp_path: Path) -> None:
    class Constant:
        def __call__(self, model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
            return {"nothing": sum((p.sum() * 0.0 for p in model.parameters()), torch.zeros(()))}

    model = tiny_network()
    before = copy.deepcopy(dict(model.named_parameters()))
    chosen = options(num_steps=1, weight_decay=0.1, learning_rate=1.0, warmup_steps=0)
    training(tmp_path / "x", chosen, model=model, objective=Constant()).run()
    for name, parameter in model.named_parameters():
        factor = 0.9 if parameter.ndim > 1 else 1.0
        torch.testing.assert_close(parameter, before[name] * factor)


def test_the_learning_rate_rises_and_falls() -> None:
    chosen = options(num_steps=100, warmup_steps=10, learning_rate=2.0)
    rates = [chosen.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == pytest.approx(2.0 * 0.5 * (1 + math.cos(math.pi * 0.09)))
    assert rates[50] == pytest.approx(1.0)
    assert all(a < b for a, b in itertools.pairwise(rates[:10]))
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert 0 < rates[-1] < 0.01


def test_progress_says_where_it_is(tmp_path: Path) -> None:
    reports: list[Progress] = []
    run = training(tmp_path / "x")
    curve: Curve = run.run(reports.append)
    assert [report.step for report in reports] == list(range(1, 13))
    assert {report.num_steps for report in reports} == {12}
    assert [report.terms["size"] for report in reports] == curve.terms["size"]
    assert [report.step for report in reports if report.accuracy] == [4, 8, 12]
    assert reports[-1].seconds_left == 0
    assert reports[0].seconds_left > 0


@pytest.mark.parametrize(
    "changes",
    [
        {"num_steps": 0},
        {"batch_size": 0},
        {"save_every": 0},
        {"evaluate_every": 0},
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"optimizer": "lion"},
        {"weight_decay": -1.0},
        {"warmup_steps": -1},
        {"seed": -1},
    ],
    ids=str,
)
def test_senseless_options_are_refused_by_name(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(changes))):
        options(**changes)


@pytest.mark.parametrize(
    ("layer", "is_safe"),
    [
        (nn.Conv2d(8, 16, 1, 2), False),
        (nn.Conv2d(15, 64, 1, (1, 2)), False),
        (nn.Conv2d(16, 32, 1, 2), True),
        (nn.Conv2d(8, 16, 1), True),
        (nn.Conv2d(8, 16, 3, 2), True),
    ],
    ids=str,
)
def test_narrow_shortcuts_keep_away_from_the_memory_format_that_crashes(layer: nn.Module, is_safe: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), layer)
    expected = torch.channels_last if is_safe else torch.contiguous_format
    assert safe_memory_format(model) == expected


@pytest.mark.parametrize("channels", [8, 16])
def test_the_model_and_its_images_have_the_same_memory_format(channels: int, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.Conv2d(channels, 4, 1, 2))
    formats = []

    class Watching:
        def __call__(self, model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
            formats.append(batch.image.is_contiguous(memory_format=torch.channels_last))
            formats.append(model[0].weight.is_contiguous(memory_format=torch.channels_last))
            return {"loss": model(batch.image).square().mean()}

    training(tmp_path / "x", model=model, objective=Watching()).run()
    assert set(formats) == {channels == 16}


class UnforeseenError(Exception):
    """What nobody expected."""


def _broken_at(stop: int, error: BaseException) -> Any:
    def batches(first: int, last: int) -> Iterator[Batch]:
        yield from tiny_batches(first, min(last, stop))
        raise error

    return batches


@pytest.mark.parametrize(
    "error", [UnforeseenError(), MemoryError(), TrainingError("x"), KeyboardInterrupt(), SystemExit(143)]
)
def test_whatever_ends_a_training_keeps_the_last_step(error: BaseException, tmp_path: Path, whole: Training) -> None:
    run = training(tmp_path / "x", batches=_broken_at(8, error))
    with pytest.raises(type(error)):
        run.run()
    assert run.saved_step == 8
    again = training(tmp_path / "x")
    assert again.resume() == again.saved_step == 8
    again.run()
    assert_equal_ends(again, whole)


def test_an_evaluation_that_fails_keeps_the_step_before_it(tmp_path: Path, whole: Training) -> None:
    def fail(model: nn.Module) -> Mapping[str, float]:
        raise UnforeseenError

    with pytest.raises(UnforeseenError):
        training(tmp_path / "x", evaluate=fail).run()
    again = training(tmp_path / "x")
    assert again.resume() == 4
    again.run()
    assert_equal_ends(again, whole)


class FailingOnce(TinyObjective):
    """Breaks off a step between the forward pass, which moves statistics, and the gradient."""

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        terms = super().__call__(model, batch)
        if batch.step == 7:
            raise MemoryError
        return terms


def test_a_step_that_breaks_off_leaves_no_trace(tmp_path: Path, whole: Training) -> None:
    with pytest.raises(MemoryError):
        training(tmp_path / "x", objective=FailingOnce()).run()
    again = training(tmp_path / "x")
    assert again.resume() == 7
    again.run()
    assert_equal_ends(again, whole)


def test_before_the_first_step_nothing_is_written(tmp_path: Path) -> None:
    run = training(tmp_path / "x", batches=_broken_at(0, UnforeseenError()))
    with pytest.raises(UnforeseenError):
        run.run()
    assert run.saved_step == 0
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_and_leaves_the_earlier_state(
    tmp_path: Path, whole: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def write(path: Path, state: Any) -> None:
        written.append(state.step)
        if state.step > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_state(path, state)

    monkeypatch.setattr("yolact_calibration.training.training.write_state", write)
    told = r"after step 10: No space left on device; free some space \(df -h .*Then run .*: the state of step 5 is kept"
    with pytest.raises(TrainingError, match=told):
        training(tmp_path / "x").run()
    assert written == [5, 10, 10]
    # Something else ends the training, and the disk is full as well: the first is what is told.
    with pytest.raises(UnforeseenError):
        training(tmp_path / "y", batches=_broken_at(7, UnforeseenError())).run()
    monkeypatch.undo()
    again = training(tmp_path / "x")
    assert again.resume() == 5
    again.run()
    assert_equal_ends(again, whole)
