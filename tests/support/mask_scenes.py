"""Scenes of detections for the tests of the mask kernels, assembled by these kernels step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from support.kernel_host import kernels_of, poisoned

__all__ = [
    "Assembled",
    "Float",
    "Scene",
    "assemble",
    "dense",
    "id_map",
    "make_scene",
    "runs",
    "unpack",
]

Float = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Scene:
    """Detections of one frame, with the network's outputs."""

    prototype: npt.NDArray[Any]  # (K, Hp, Wp)
    coefficient: npt.NDArray[Any]  # (P, K)
    prior: npt.NDArray[np.int32]  # (n,)
    xyxy: Float  # (n, 4)
    height: int
    width: int
    margin: float = 0.0
    fill: bool = False

    @property
    def frame(self) -> tuple[np.int32, np.int32]:
        """Height and width of the frame, as kernel arguments."""
        return np.int32(self.height), np.int32(self.width)


class Assembled(NamedTuple):
    """Results of the kernels, in their own buffers."""

    scene: Scene
    num_detections: npt.NDArray[np.int32]
    window: npt.NDArray[np.int32]
    offset: npt.NDArray[np.int64]
    plan: npt.NDArray[np.int32]
    soft: Float
    arena: npt.NDArray[np.uint32]
    task_runs: npt.NDArray[np.int32]
    status: npt.NDArray[np.uint32]
    seed: int

    @property
    def bits(self) -> list[npt.NDArray[Any]]:
        """Arguments of kernels that read the bits."""
        return [self.arena, self.window, self.offset, self.num_detections]


def make_scene(rng: np.random.Generator, n: int, frame: tuple[int, int], proto: tuple[int, int, int]) -> Scene:
    """Make random boxes, some of them unusual, and network outputs; `frame` is (H, W), `proto` (K, Hp, Wp)."""
    centre, size = rng.uniform(-0.2, 1.2, (n, 2)), rng.choice([0.02, 0.2, 0.6, 1.5], (n, 1)) * rng.random((n, 2))
    xyxy = np.concatenate([centre - size / 2, centre + size / 2], axis=1).astype(np.float32)
    odd = rng.random(n)
    xyxy[odd < 0.05] += 3  # far outside
    xyxy[(odd > 0.05) & (odd < 0.1)] = xyxy[(odd > 0.05) & (odd < 0.1)][:, [2, 3, 0, 1]]
    xyxy[(odd > 0.1) & (odd < 0.15), 2:] = xyxy[(odd > 0.1) & (odd < 0.15), :2]
    xyxy[(odd > 0.15) & (odd < 0.18), 1] = rng.choice([np.nan, np.inf, -3e38])
    priors = n + int(rng.integers(1, 5))
    dtype = rng.choice(["float32", "float16"])
    return Scene(
        # Not cut off at 0 as a network's are: where all are 0 every probability is one half, and rounding decides.
        rng.normal(0, 1.5, proto).astype(dtype),
        np.tanh(rng.normal(0, 1, (priors, proto[0]))).astype(dtype),
        rng.integers(0, priors, n).astype(np.int32),
        xyxy,
        *frame,
        margin=float(rng.choice([0.0, 0.0, 0.1, 2.5, np.inf])),
        fill=bool(rng.integers(2)),
    )


def assemble(
    scene: Scene,
    arena_words: int | None = None,
    room: int = 2,
    seed: int = 0,
    wanted_tasks: int = 7,
    given: Float | None = None,
) -> Assembled:
    """Run the kernels up to the bits.

    Args:
        scene: Detections to assemble.
        arena_words: Size of the arena in words; by default, enough for all words of the frame in every mask.
        room: Number of buffer rows beyond the detections.
        seed: Seed of the order of threads and blocks.
        wanted_tasks: Number of tasks, as in the kernels.
        given: Probabilities ``(n, Hp, Wp)`` to use in place of the computed ones.
    """
    kernels = kernels_of("mask_assembly")
    n, rows = len(scene.xyxy), len(scene.xyxy) + room
    prototypes, *size = scene.prototype.shape
    hp_wp = [np.int32(side) for side in size]
    xyxy, prior = poisoned((rows, 4), np.float32), poisoned(rows, np.int32)
    xyxy[:n], prior[:n] = scene.xyxy, scene.prior
    count, status = np.array([n], np.int32), np.zeros(1, np.uint32)
    window, offset = poisoned((rows, 8), np.int32), poisoned(rows + 1, np.int64)
    plan, soft = poisoned((rows + 1, 4), np.int32), poisoned((rows, *size), np.float32)
    words = max(n, 1) * scene.width * -(-scene.height // 32) if arena_words is None else arena_words
    arena = poisoned(words, np.uint32)
    settings = [*hp_wp, *scene.frame, np.float32(scene.margin), np.int64(words), np.int32(wanted_tasks)]
    kernels("mask_layout", (1,), (256,), [xyxy, count, *settings, window, offset, plan, status], seed)
    suffix = "f16" if scene.prototype.dtype == np.float16 else "f32"
    inputs = [scene.prototype, scene.coefficient, prior, count, window, plan]
    sizes = [np.int32(prototypes), *hp_wp, np.int32(scene.fill)]
    kernels(f"mask_soft_{suffix}", (2,), (128,), [*inputs, *sizes, soft, status], seed)
    if given is not None:
        soft[:n] = given
    task_runs = poisoned(wanted_tasks + rows * (-(-scene.width // 32) - (-scene.height // 32)), np.int32)
    inputs = [soft, window, offset, count, *hp_wp, *scene.frame]
    kernels("mask_bits", (3,), (256,), [*inputs, plan, task_runs, arena], seed)
    assert (window[n:].view(np.uint8) == 0xCD).all()
    assert (plan[n + 1 :].view(np.uint8) == 0xCD).all()
    assert (soft[n:].view(np.uint8) == 0xCD).all()
    return Assembled(scene, count, window, offset, plan, soft, arena, task_runs, status, seed)


def unpack(result: Assembled) -> npt.NDArray[np.bool_]:
    """Unpack masks from the arena, by the rule of ``mask_window.cuh``."""
    scene = result.scene
    masks = np.zeros((len(scene.xyxy), -(-scene.height // 32) * 32, scene.width), bool)
    for mask, row, offset in zip(masks, result.window, result.offset, strict=False):
        _, _, _, _, word, words, column, columns = row.tolist()
        packed = result.arena[offset : offset + words * columns].reshape(words, 1, columns)
        bits = packed >> np.arange(32, dtype=np.uint32)[None, :, None] & 1
        mask[32 * word : 32 * (word + words), column : column + columns] = bits.reshape(32 * words, columns)
    assert not masks[:, scene.height :].any()
    return masks[:, : scene.height]


def dense(result: Assembled) -> npt.NDArray[np.bool_]:
    """Compute dense masks ``(n, H, W)`` with the kernel."""
    scene = result.scene
    out = poisoned((len(scene.xyxy), scene.height, scene.width), np.uint8)
    kernels_of("mask_views")("mask_dense", (2, len(out)), (256,), [*result.bits, *scene.frame, out], result.seed)
    assert (out <= 1).all()
    return out.astype(bool)


def id_map(result: Assembled) -> npt.NDArray[np.int32]:
    """Compute the id map ``(H, W)`` with the kernel."""
    scene = result.scene
    out = poisoned((scene.height, scene.width), np.int32)
    grid = (-(-scene.width // 256), -(-scene.height // 32))
    kernels_of("mask_views")("mask_id_map", grid, (256,), [*result.bits, *scene.frame, out], result.seed)
    return out


def runs(result: Assembled, capacity: int) -> tuple[npt.NDArray[np.int32], ...]:
    """Compute ``(offset, start, end)`` of all runs with the kernel."""
    offset = poisoned(len(result.window) + 1, np.int32)
    start, end = poisoned(capacity, np.int32), poisoned(capacity, np.int32)
    sizes = (np.int32(result.scene.height), np.int32(capacity))
    arguments = [*result.bits, result.plan, result.task_runs, *sizes, offset, start, end, result.status]
    kernels_of("mask_runs")("mask_runs_write", (2,), (256,), arguments, result.seed)
    used = min(int(offset[len(result.scene.xyxy)]), capacity)
    for rest in (start[used:], end[used:]):
        assert (rest.view(np.uint8) == 0xCD).all()
    return offset[: len(result.scene.xyxy) + 1], start[:used], end[:used]
