from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from yolact_calibration.pruning import network_timer
from yolact_calibration.pruning.network_timer import time_networks_ms
from yolact_runtime.model.manifest import InputSpec

SPEC = InputSpec(8, 16, (0, 0, 0), (1, 1, 1))


class _Clock:
    """Time that passes only when a network runs."""

    def __init__(self) -> None:
        self.now = 0.0


class _Network:
    def __init__(self, clock: _Clock, seconds: Callable[[int], float], turns: list[str], name: str) -> None:
        self._clock, self._seconds, self._turns, self._name = clock, seconds, turns, name
        self.closed = False
        self._calls = 0

    def infer(self, tensor: np.ndarray) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
        assert tensor.shape == (1, 3, 8, 16)
        self._clock.now += self._seconds(self._calls)
        self._calls += 1
        self._turns.append(self._name)
        return {}

    def close(self) -> None:
        self.closed = True


def test_networks_take_turns_and_outliers_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, turns = _Clock(), []  # type: ignore[var-annotated]
    networks = {
        # Slow after the other's turn, and once by chance.
        "a": _Network(clock, lambda call: 9.0 if call == 5 else 0.5 if call % 2 == 0 else 0.2, turns, "a"),
        "b": _Network(clock, lambda call: 0.1, turns, "b"),
    }
    monkeypatch.setattr(network_timer, "create_backend", lambda backend, path, threads: networks[path.stem])
    monkeypatch.setattr(network_timer.time, "perf_counter", lambda: clock.now)
    times = time_networks_ms({name: Path(f"{name}.onnx") for name in networks}, SPEC, seconds=1.0)
    assert times == pytest.approx({"a": 200.0, "b": 100.0})
    measured = turns[4:]
    assert measured == ["a", "a", "b", "b"] * (len(measured) // 4)
    assert len(measured) >= 36
    assert all(network.closed for network in networks.values())


def test_networks_are_closed_when_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(call: int) -> float:
        raise RuntimeError("no")

    networks = {"a": _Network(_Clock(), lambda call: 0.1, [], "a"), "b": _Network(_Clock(), fail, [], "b")}
    monkeypatch.setattr(network_timer, "create_backend", lambda backend, path, threads: networks[path.stem])
    with pytest.raises(RuntimeError, match="no"):
        time_networks_ms({name: Path(f"{name}.onnx") for name in networks}, SPEC)
    assert all(network.closed for network in networks.values())
