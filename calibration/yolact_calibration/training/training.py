"""The training loop, with an objective, a sequence of batches, and a state on disk that survives a kill."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from yolact_calibration.data.batch import Batch
from yolact_calibration.data.dataset import told_of_dead_workers
from yolact_calibration.errors import TrainingError
from yolact_calibration.training.training_options import TrainingOptions
from yolact_calibration.training.training_state import Curve, TrainingState, read_state, write_state
from yolact_plugins.file_errors import explain
from yolact_runtime.errors import OutputError

__all__ = ["Objective", "Progress", "Training", "TrainingOptions", "freeze_batch_norms", "safe_memory_format"]

# Weight of the past in the average speed from which the remaining time is estimated.
_SPEED_MEMORY = 0.95
# Input channels below which oneDNN corrupts memory; see safe_memory_format.
_SAFE_CHANNELS = 16


class Objective(Protocol):
    """Objective of a training, which minimises the sum of named terms."""

    def __call__(self, model: Any, batch: Batch) -> dict[str, torch.Tensor]:
        """Compute the weighted scalar terms of one batch, with the same names every time."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """Progress of a training after a step.

    Attributes:
        step: Number of completed steps.
        num_steps: Total number of steps.
        terms: Loss terms of this step.
        seconds_left: Estimated remaining time in seconds, without evaluations.
        accuracy: Result of an evaluation after this step; None after most steps.
    """

    step: int
    num_steps: int
    terms: Mapping[str, float]
    seconds_left: float
    accuracy: Mapping[str, float] | None = None


class Training:
    """One training of one model.

    Args:
        model: Model to train in place, on its device.
        objective: Objective to minimise.
        batches: Function such that ``batches(first, last)`` yields the batches of these steps; a step's batch depends
            on nothing else.
        options: Options of the training.
        state_path: Path of the state file; an unfinished training is continued.
        identity: Other inputs of the training as text (data digest, start checkpoint): a state with another identity is
            refused.
        evaluate: Function called with the model in eval mode, which returns numbers for the curve.

    Attributes:
        curve: Course of the training up to the last step.
        saved_step: Number of steps in the state on disk, as far as this object wrote or read it; otherwise 0.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        batches: Callable[[int, int], Iterator[Batch]],
        options: TrainingOptions,
        state_path: Path,
        identity: Mapping[str, str],
        evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    ) -> None:
        self._device = next(model.parameters()).device
        self._memory_format = safe_memory_format(model)
        self.model = model.to(memory_format=self._memory_format)  # type: ignore[call-overload] # missing in torch's stubs
        self.options = options
        self._objective = objective
        self._batches = batches
        self._state_path = state_path
        # The interval between saves does not affect the course.
        names = [field.name for field in dataclasses.fields(options) if field.name != "save_every"]
        self._identity = {**identity, **{name: str(getattr(options, name)) for name in names}}
        self._evaluate = evaluate
        self._optimizer = _make_optimizer(model, options)
        self._step = 0
        self._is_whole = True
        self.saved_step = 0
        self.curve = Curve.empty()

    def resume(self) -> int:
        """Continue from the state on disk, if there is one; return the number of completed steps.

        Raises:
            TrainingError: The state is unreadable, or of another training; the message lists the differences.
        """
        state = read_state(self._state_path)
        if state is None:
            return 0
        names = sorted(set(self._identity) | set(state.identity))
        changed = [
            f"{name} was {state.identity.get(name, 'unset')}, now {self._identity.get(name, 'unset')}"
            for name in names
            if self._identity.get(name) != state.identity.get(name)
        ]
        if changed:
            raise TrainingError(
                f"{self._state_path}: the state of another training ({'; '.join(changed)}). Give the same options to "
                f"continue it, --restart to discard it, or another output"
            )
        self.model.load_state_dict(state.model)
        self._optimizer.load_state_dict(state.optimizer)
        self._step, self.curve = state.step, state.curve
        self.saved_step = self._step
        return self._step

    def run(self, on_progress: Callable[[Progress], None] = lambda _: None) -> Curve:
        """Train to the last step, saving the state at intervals, and before an error or interruption is raised.

        SIGINT and SIGTERM are delivered after the current step: half a step cannot be continued.

        Raises:
            TrainingError: The loss or its gradient is no longer finite, and the last state on disk is from before; or
                the state cannot be written; or a process that prepares batches has died.
        """
        with told_of_dead_workers():
            try:
                self._run(on_progress)
            except (Exception, KeyboardInterrupt, SystemExit):
                with _dead_children_wait():
                    self._save_on_the_way_out()
                raise
        return self.curve

    def _save_on_the_way_out(self) -> None:
        """Save the last step if it is complete and its weights have not diverged."""
        if not self._is_whole or self._step in (0, self.saved_step):
            return
        # The original error is raised, not one about a full disk that has no room for the state.
        with contextlib.suppress(TrainingError):
            self._save()

    def _run(self, on_progress: Callable[[Progress], None]) -> None:
        options = self.options
        pace = 0.0
        # An interrupt may have come between a step and its evaluation.
        self._evaluate_if_due()
        begun = time.monotonic()
        for batch in self._batches(self._step, options.num_steps):
            with _interrupts_wait():
                terms = self._train_step(batch)
                self._step += 1
            took, begun = time.monotonic() - begun, time.monotonic()
            pace = took if pace == 0.0 else _SPEED_MEMORY * pace + (1 - _SPEED_MEMORY) * took
            accuracy = self._evaluate_if_due()
            if self._step == options.num_steps or self._step % options.save_every == 0:
                self._save()
            on_progress(
                Progress(self._step, options.num_steps, terms, pace * (options.num_steps - self._step), accuracy)
            )
            begun = time.monotonic() if accuracy is not None else begun

    def _train_step(self, batch: Batch) -> dict[str, float]:
        """Run one step and return its terms. Model, optimizer and curve change only if all of it succeeds."""
        self._is_whole = False
        # The forward pass updates the statistics of batch norms; they are restored if the step fails later.
        buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        try:
            values = self._compute_gradient(batch)
        except TrainingError:
            raise
        except BaseException:
            for buffer, before in buffers:
                buffer.copy_(before)
            self._is_whole = True
            raise
        self._optimizer.step()
        self.curve.add_step(values)
        self._is_whole = True
        return values

    def _compute_gradient(self, batch: Batch) -> dict[str, float]:
        """Compute the gradients of a batch in the parameters; return the terms of the loss."""
        self.model.train()
        if self.options.freeze_batch_norm:
            freeze_batch_norms(self.model)
        for group in self._optimizer.param_groups:
            group["lr"] = self.options.rate(self._step)
        with self._autocast():
            terms = self._objective(self.model, batch.to(self._device, self._memory_format))
        total = torch.stack(list(terms.values())).sum()
        values = {name: float(term.detach()) for name, term in terms.items()}
        if not math.isfinite(sum(values.values())):
            raise self._diverged("loss", values)
        self._optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.options.max_gradient_norm)
        if not math.isfinite(float(norm)):
            raise self._diverged("gradient", values)
        return values

    def _diverged(self, what: str, values: Mapping[str, float]) -> TrainingError:
        return TrainingError(
            f"the {what} of step {self._step + 1} is not finite ({_list(values)}). Use a lower learning rate (now "
            f"{self.options.learning_rate:g}) or a longer warm-up; the state on disk is from before"
        )

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self.options.autocast)

    def _evaluate_if_due(self) -> Mapping[str, float] | None:
        """Evaluate the model at the interval of the options and after the last step, once for each."""
        is_due = self._step == self.options.num_steps or self._step % self.options.evaluate_every == 0
        is_done = bool(self.curve.accuracy) and self.curve.accuracy[-1][0] == self._step
        if self._evaluate is None or self._step == 0 or not is_due or is_done:
            return None
        self.model.eval()
        try:
            accuracy = dict(self._evaluate(self.model))
        except OutputError as error:
            self._is_whole = False
            raise TrainingError(
                f"the outputs of the model are not finite after step {self._step}. Use a lower learning rate (now "
                f"{self.options.learning_rate:g}) or a longer warm-up; a state on disk is from before"
            ) from error
        self.curve.add_accuracy(self._step, accuracy)
        return accuracy

    def _save(self) -> None:
        state = TrainingState(
            self._step, self._identity, self.model.state_dict(), self._optimizer.state_dict(), self.curve
        )
        try:
            write_state(self._state_path, state)
        except OSError as error:
            kept = f"the state of step {self.saved_step} is kept" if self.saved_step else "no state was kept"
            raise TrainingError(
                f"cannot write {self._state_path} after step {self._step}: {explain(error, self._state_path)}. Then "
                f"run the same command again: {kept}"
            ) from error
        self.saved_step = self._step


@contextlib.contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Deliver SIGINT and SIGTERM after the block instead of inside it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pending: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: pending.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is not None  # a handler of a host program in C could not be restored
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if pending:
        signal.raise_signal(pending[0])


@contextlib.contextmanager
def _dead_children_wait() -> Iterator[None]:
    """Disable SIGCHLD handlers inside the block: PyTorch's raises for each dead process that loads data."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGCHLD) is None:
        yield
        return
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def safe_memory_format(model: nn.Module) -> torch.memory_format:
    """Return channels-last, which is faster for convolutions, unless it would corrupt memory.

    On the CPU, oneDNN writes past its workspace in the weight gradient of a 1x1 convolution with a stride, channels
    last, and fewer input channels than a vector register holds (16 with AVX-512, 8 with AVX2): oneDNN issue 6035, seen
    with PyTorch 2.13. The shortcuts of narrow and of pruned ResNets are such convolutions.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.weight.device.type == "cpu":
            is_strided_1x1 = module.kernel_size == (1, 1) and module.stride != (1, 1)
            if is_strided_1x1 and module.in_channels < _SAFE_CHANNELS:
                return torch.contiguous_format
    return torch.channels_last


def freeze_batch_norms(model: nn.Module) -> None:
    """Make batch norms use their stored statistics, and stop updating these and their parameters."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
            for parameter in module.parameters():
                parameter.requires_grad_(False)


def _make_optimizer(model: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    if options.freeze_batch_norm:
        freeze_batch_norms(model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if options.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=options.learning_rate)
    return torch.optim.SGD(groups, lr=options.learning_rate, momentum=0.9)


def _list(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in values.items())
