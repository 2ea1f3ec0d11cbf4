"""Numbers in the dataclasses of options are checked where they are given, whoever gives them, and named by field."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import math
import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.commands import ROOT, parser_of
from support.properties import examples
from yolact_calibration.errors import PruningError
from yolact_calibration.quantisation.qdq_placement import Dialect
from yolact_export.errors import ExportError
from yolact_runtime import SegmenterOptions
from yolact_runtime.errors import UsageError, YolactError
from yolact_runtime.terminal import named_as_options

ANY = Path("any")
ENDING = re.compile(r"[a-z0-9](Options|Settings|Request|Limits|Grid)$")
# What each needs besides its numbers.
NEEDED: dict[str, dict[str, Any]] = {
    "yolact_benchmarks.facade.evaluation:EvaluationOptions": {},
    "yolact_benchmarks.measure.measurement:Plan": {},
    "yolact_benchmarks.measure.request:BenchmarkOptions": {},
    "yolact_benchmarks.measure.request:BenchRequest": {"model": ANY},
    "yolact_benchmarks.statistics.stability:StabilityLimits": {},
    "yolact_calibration.data.augment:AugmentOptions": {},
    "yolact_calibration.evaluation.bootstrap:BootstrapSettings": {},
    "yolact_calibration.pruning.channel_groups:WidthGrid": {},
    "yolact_calibration.pruning.prune:PruneOptions": {},
    "yolact_calibration.quantisation.int8:Int8Options": {"dialect": Dialect.CPU},
    "yolact_calibration.report.contact_sheet:SheetOptions": {},
    "yolact_calibration.shapes.scene:SceneOptions": {},
    "yolact_calibration.training.distill:DistillationOptions": {},
    "yolact_calibration.training.loss:LossOptions": {},
    "yolact_calibration.training.prior_matching:MatchingOptions": {},
    "yolact_calibration.training.pseudo_instances:PseudoInstanceOptions": {},
    "yolact_calibration.training.training_options:TrainingOptions": {"num_steps": 8},
    "yolact_export.engine.options:EngineOptions": {},
    "yolact_export.graph.export:ExportOptions": {},
    "yolact_calibration.precision.options:PrecisionOptions": {"int8": True},
    "yolact_calibration.precision.network_maker:PrecisionRequest": {
        "float16": True,
        "dialects": (),
        "calibration": None,
        "guard": None,
    },
    "yolact_export.training.finetune:FinetuneOptions": {
        "source": "x",
        "annotations": ANY,
        "images": ANY,
        "output": ANY,
        "training": None,
    },
    "yolact_export.training.pruning:PruneRequest": {"output": ANY, "options": None, "images": None},
    "yolact_export.training.pruning_options:PruningOptions": {},
    "yolact_export.training.training_start:StartOptions": {"source": "x", "class_names": ("a",)},
    "yolact_runtime.segmenter_options:SegmenterOptions": {},
}
# Made by this project alone, of numbers that were checked; or without any number of their own.
OTHERS = {"CheckpointOptions", "SigningOptions", "DeviceLimits", "NmsSettings", "SessionSettings"}
# Of fields that are None by default.
VALID = {
    "bit_depth": 12,
    "input_size": 550,
    "iou_threshold": 0.5,
    "limit": 5,
    "max_drop": 0.5,
    "max_instances": 10,
    "memory_limit_bytes": 1 << 30,
    "min_confidence": 0.5,
    "num_guard_images": 5,
    "optimisation_level": 3,
    "until_ci": 0.25,
    "workspace_bytes": 1 << 30,
}
# Nothing is cropped, and nothing is refused.
INFINITE = {"crop_margin", "max_drop"}


def number_fields(options: type) -> dict[str, str]:
    """Field -> ``int`` or ``float``."""
    kinds = {field.name: str(field.type).removesuffix(" | None") for field in dataclasses.fields(options)}
    return {name: kind for name, kind in kinds.items() if kind in {"int", "float"}}


def load(name: str) -> type:
    module, _, cls = name.partition(":")
    loaded: type = getattr(importlib.import_module(module), cls)
    return loaded


FIELDS = [(name, field, kind) for name in NEEDED for field, kind in number_fields(load(name)).items()]

not_numbers = st.one_of(
    st.booleans(), st.sampled_from([np.True_, "5", b"5", [], (), 1j, object]), st.text(max_size=3), st.complex_numbers()
)
beyond = st.integers(min_value=2**63).map(lambda value: value if value % 2 else 10**5000)
no_count = st.one_of(
    not_numbers,
    st.floats(),
    st.floats().map(np.float64),
    st.fractions(),
    beyond,
    beyond.map(lambda value: -value),
    st.just(-1),
)
no_real = st.one_of(
    not_numbers,
    st.sampled_from([math.nan, -math.inf, np.float32("nan"), -1e-9, -1, Fraction(-1, 3)]),
    beyond.map(lambda value: -value),
)
too_large = st.one_of(st.just(math.inf), st.floats(min_value=1e9, allow_infinity=True), beyond)


def test_all_options_are_known_here() -> None:
    """A dataclass of options that is new is tried, too."""
    found = set()
    for path in ROOT.glob("*/yolact_*/**/*.py"):
        if "studies" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.ClassDef) or not ENDING.search(node.name):
                continue
            if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
                found.add(node.name)
    listed = {name.partition(":")[2] for name in NEEDED}
    assert found - OTHERS == listed - {"Plan"}


def refused(name: str, field: str, value: object) -> None:
    with pytest.raises((UsageError, PruningError, ExportError), match=rf"\b{field}\b") as raised:
        load(name)(**{**NEEDED[name], field: value})
    assert len(str(raised.value)) < 1000


def tried(kind: str) -> st.SearchStrategy[tuple[str, str]]:
    return st.sampled_from([(name, field) for name, field, of in FIELDS if of == kind])


@examples(400)
@given(tried("int"), no_count)
def test_what_is_no_count_is_refused_by_name(place: tuple[str, str], value: object) -> None:
    refused(*place, value)


@examples(400)
@given(tried("float"), st.one_of(no_real, too_large))
def test_what_is_no_measure_is_refused_by_name(place: tuple[str, str], value: Any) -> None:
    name, field = place
    large = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    if field in INFINITE and large:
        # Only what fits no float.
        if value < 10**300 or value == math.inf:
            assert getattr(load(name)(**{**NEEDED[name], field: value}), field) == float(value)
        return
    refused(name, field, value)


@pytest.mark.parametrize(("name", "field", "kind"), FIELDS)
def test_numbers_of_numpy_are_kept_as_pythons_own(name: str, field: str, kind: str) -> None:
    options = load(name)
    needed: Mapping[str, Any] = NEEDED[name]
    default = next(item.default for item in dataclasses.fields(options) if item.name == field)
    value = needed.get(field, VALID[field] if default is None else default)
    for scalar in (np.int64, np.uint32) if kind == "int" else (np.float64, np.float32):
        made = getattr(options(**{**needed, field: scalar(value)}), field)
        assert type(made) is (int if kind == "int" else float)
        assert made == pytest.approx(value)


@pytest.mark.parametrize("size", [(0, 5), (math.nan, 5), (5, math.inf), (True, 5), (5, 2.5), (5, 10**5000), (5,)])
def test_the_size_of_a_frame_is_two_counts(size: Any) -> None:
    with pytest.raises(UsageError, match="frame_size must be"):
        SegmenterOptions(frame_size=size)
    assert SegmenterOptions(frame_size=(np.int64(5), np.uint16(6))).frame_size == (5, 6)  # type: ignore[arg-type]


# --- names of fields --------------------------------------------------------------------------------------------------

# The commands that make each of the options; those that no command line makes are left out.
MAKERS = {
    "Plan": ["yolact-bench"],
    "BenchRequest": ["yolact-bench"],
    "AugmentOptions": ["yolact-finetune"],
    "BootstrapSettings": ["yolact-eval"],
    "WidthGrid": ["yolact-export"],
    "PruneOptions": ["yolact-export"],
    "SceneOptions": ["python -m yolact_calibration.shapes"],
    "TrainingOptions": ["yolact-finetune", "yolact-export"],
    "EngineOptions": ["yolact-export"],
    "ExportOptions": ["yolact-export"],
    "PrecisionRequest": ["yolact-export"],
    "FinetuneOptions": ["yolact-finetune"],
    "PruneRequest": ["yolact-export"],
    "StartOptions": ["yolact-finetune"],
    "SegmenterOptions": ["yolact-run", "yolact-eval", "yolact-bench"],
}
# Fields that these commands do not set.
NOT_SET = {
    *("least_frames", "confidence_level", "min_share", "max_widths", "rest_share", "max_shapes", "weight_decay"),
    *("max_gradient_norm", "max_batch", "batch", "num_importance_images", "iou_threshold", "max_instances"),
    "frames_in_flight",
}
# yolact-export has them from the steps.
DERIVED = {("yolact-export", "warmup_steps"), ("yolact-export", "save_every"), ("yolact-export", "evaluate_every")}
DERIVED |= {("yolact-eval", "crop_margin"), ("yolact-bench", "crop_margin")}


@pytest.mark.parametrize(("name", "field", "kind"), FIELDS)
def test_an_error_about_a_field_names_the_option_that_was_typed(name: str, field: str, kind: str) -> None:
    if field in NOT_SET:
        return
    for command in MAKERS.get(name.partition(":")[2], ()):
        option = parser_of(command).option_of_field().get(field)
        if option is None:
            assert (command, field) in DERIVED
            continue
        with pytest.raises(YolactError) as raised, named_as_options({field: option}):
            load(name)(**{**NEEDED[name], field: math.nan if kind == "float" else -5})
        if isinstance(raised.value, UsageError):
            assert str(raised.value).startswith(option)
            assert not re.search(rf"(?<!-){field}", str(raised.value))
        else:
            # These have a check of the command's own before.
            assert field in {"removed_latency", "round_to", "bit_depth"}


def test_all_makers_are_options() -> None:
    assert set(MAKERS) <= {name.partition(":")[2] for name in NEEDED}
    assert {field for _, field, _ in FIELDS} >= NOT_SET
