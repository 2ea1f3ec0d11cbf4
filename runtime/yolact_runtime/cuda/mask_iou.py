"""The mask-IoU network of YOLACT++ on the GPU: weights, memory and launches of ``mask_iou.cu``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_plugins.driver.device_array import DeviceArray
from yolact_plugins.driver.launch import ceil_div
from yolact_plugins.driver.module import Launch
from yolact_runtime.cuda.memory_plan import MemoryPlan
from yolact_runtime.model.mask_iou_network import WIDTHS, MaskIouNetwork

__all__ = ["map_sizes", "mask_iou_launches", "pack_network", "plan_mask_iou"]

# Rows and columns of outputs that a block computes at once, in each kernel; and threads of a block.
_FRONT_TILE, _THIRD_TILE, _FOURTH_TILE = (11, 11), (8, 8), (4, 7)
_FRONT_THREADS, _THREADS = 128, 256
_NAMES = {2: "mask_iou_second", 3: "mask_iou_third", 4: "mask_iou_fourth"}
_Launcher = Callable[..., Launch]


def pack_network(network: MaskIouNetwork) -> npt.NDArray[np.float32]:
    """Arrange the weights in the order in which the kernels read them; see the header of ``mask_iou.cu``.

    The output of each layer for an empty mask is computed here in float64, so that it is exact in float32.

    Returns:
        The packed weights, ``(values,)`` float32.
    """
    parts: list[npt.NDArray[np.floating[Any]]] = []
    blank = np.zeros(1)
    *convolutions, (last, last_bias) = network.layers
    for number, (weight, bias) in enumerate(convolutions, start=1):
        # (outputs, inputs, row, column) -> (row, column, inputs, outputs)
        parts += [weight.transpose(2, 3, 1, 0), bias]
        if number > 2:
            parts.append(blank)
        blank = np.maximum(weight.astype(np.float64).sum((2, 3)) @ blank + bias, 0)
    rows = last.reshape(len(last), -1)
    parts += [rows, last_bias, np.maximum(rows.astype(np.float64) @ blank + last_bias, 0)]
    # Weights near the limit of float32 overflow; the kernels detect the result.
    with np.errstate(over="ignore"):
        return np.concatenate([part.reshape(-1).astype(np.float32) for part in parts])


def map_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Return ``(rows, columns)`` of the mask and of the map after each convolution."""
    sizes = [(height, width)]
    for _ in WIDTHS[1:]:
        sizes.append(((sizes[-1][0] - 3) // 2 + 1, (sizes[-1][1] - 3) // 2 + 1))
    return sizes


def plan_mask_iou(plan: MemoryPlan, rows: int, height: int, width: int) -> None:
    """Reserve memory for the outputs of layers 2 to 4 for `rows` masks of ``(height, width)``."""
    sizes = map_sizes(height, width)
    for layer, name in _NAMES.items():
        plan.add(name, (rows, *sizes[layer], WIDTHS[layer]), np.float32)


def mask_iou_launches(
    launch: _Launcher, arrays: Mapping[str, DeviceArray], masks: str, num_classes: int
) -> list[Launch]:
    """Return the launches of the four kernels, in order.

    Args:
        launch: Function that packs a launch from name, grid, block and arguments.
        arrays: Arrays of the frame, and ``mask_iou_network``, the packed weights.
        masks: Prefix of the names of window and probabilities.
        num_classes: Number of classes without the background.
    """
    window, soft, count, network = (
        arrays[name] for name in (f"{masks}window", f"{masks}soft", "detection_count", "mask_iou_network")
    )
    rows, height, width = soft.shape
    sizes, size = map_sizes(height, width), (np.int32(height), np.int32(width))
    second, third, fourth = (arrays[name] for name in _NAMES.values())

    def tiles(layer: int, tile: tuple[int, int]) -> tuple[int, int]:
        return ceil_div(sizes[layer][0], tile[0]) * ceil_div(sizes[layer][1], tile[1]), rows

    grids = [tiles(2, _FRONT_TILE), tiles(3, _THIRD_TILE), tiles(4, _FOURTH_TILE)]
    found = [arrays[name] for name in ("detection_class", "detection_confidence")]
    made = [arrays[name] for name in ("predicted_iou", "mask_confidence", "status")]
    return [
        launch("mask_iou_layers_1_2", grids[0], _FRONT_THREADS, soft, window, count, *size, network, second),
        launch("mask_iou_layer_3", grids[1], _THREADS, second, window, count, *size, network, third),
        launch("mask_iou_layer_4", grids[2], _THREADS, third, window, count, *size, network, fourth),
        launch(
            "mask_iou_layers_5_6",
            (rows,),
            _THREADS,
            *(fourth, window, count, *found, *size, np.int32(num_classes), network, *made),
        ),
    ]
