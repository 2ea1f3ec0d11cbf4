"""What training frameworks write around the weights."""

from __future__ import annotations

import itertools
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from support.properties import examples
from yolact_export.checkpoint.checkpoint import CheckpointOptions, load_checkpoint
from yolact_export.checkpoint.keys import REQUIRED
from yolact_export.checkpoint.weights import TOP_LEVEL, find_weights
from yolact_export.errors import CheckpointError

State = dict[str, torch.Tensor]


def model(value: float = 1.0) -> State:
    """Enough of a YOLACT model to be recognised."""
    keys = (*REQUIRED, "backbone.bn1.running_mean")
    return {key: torch.full((2,), value + number) for number, key in enumerate(keys)}


def prefixed(state: Mapping[str, torch.Tensor], prefix: str) -> State:
    return {prefix + key: value for key, value in state.items()}


def found_in(content: object, **options: Any) -> tuple[str, float, str]:
    """Name of the weights, the value that :func:`model` was given, and the findings."""
    weights, findings = find_weights(content, "x.pth", **options)
    assert set(weights.tensors) == set(model())
    return weights.name, float(weights.tensors[REQUIRED[0]][0]), "\n".join(findings)


LIGHTNING = {
    "epoch": 3,
    "global_step": 1000,
    "pytorch-lightning_version": "2.5.0",
    "state_dict": {**prefixed(model(), "model."), "criterion.weight": torch.ones(81)},
    "loops": {"fit_loop": {"state_dict": {}}},
    "callbacks": {"ModelCheckpoint{'monitor': 'map'}": {"best_model_score": torch.tensor(0.3)}},
    "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}],
    "lr_schedulers": [],
    "hparams_name": "kwargs",
    "hyper_parameters": {"lr": 0.1},
}


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (model(), TOP_LEVEL),
        (OrderedDict(model()), TOP_LEVEL),
        (prefixed(model(), "module."), "module"),
        ({"state_dict": model()}, "state_dict"),
        ({"checkpoint": {"model": model()}}, "checkpoint.model"),
        ([{"epoch": 3}, model()], "1"),
        ((3, {"net": model()}), "1.net"),
        ({"model": prefixed(model(), "module._orig_mod.")}, "model.module"),
        ({**prefixed(model(), "module.net."), "module.criterion.weight": torch.ones(3)}, "module.net"),
        ({"n_averaged": torch.tensor(7), **prefixed(model(), "module.")}, "module"),
        ({"model": model(), "optimizer": {"state": {0: {"momentum_buffer": torch.ones(9)}}}}, "model"),
        (LIGHTNING, "state_dict.model"),
    ],
)
def test_the_model_is_found_wherever_it_lies(content: object, name: str) -> None:
    assert found_in(content)[:2] == (name, 1.0)


def test_what_is_left_out_is_said() -> None:
    *_, findings = found_in(LIGHTNING)
    assert 'state dict from the entry "state_dict"; ignored beside it: callbacks, epoch' in findings
    assert 'prefix "model." removed from every key' in findings
    assert "1 tensors outside of the model ignored: criterion.weight" in findings
    *_, findings = found_in({**model(), "epoch": 3})
    assert "1 entries beside its tensors ignored: epoch" in findings


def test_wrappers_inside_of_keys_are_removed() -> None:
    state = {re.sub(r"^(\w+)\.", r"\1._orig_mod.", key): value for key, value in model().items()}
    assert found_in(state)[:2] == (TOP_LEVEL, 1.0)


words = st.sampled_from(["model", "net", "module", "state_dict", "checkpoint", "a", "detector", "_orig_mod", "best"])


@examples(200)
@given(
    path=st.lists(st.one_of(words, st.integers(0, 2)), max_size=4),
    prefix=st.lists(words, max_size=4),
    extra=st.booleans(),
)
def test_any_wrapper_and_any_prefix(path: list[str | int], prefix: list[str], extra: bool) -> None:
    content: Any = prefixed(model(), "".join(f"{part}." for part in prefix))
    if extra and prefix:
        content |= {"loss.weight": torch.ones(1)}
    for part in reversed(path):
        content = [{}] * part + [content] if isinstance(part, int) else {part: content, "epoch": 1}
    name, value, findings = found_in(content)
    assert value == 1.0
    expected = [*map(str, path), *(part for part in prefix if part != "_orig_mod")]
    assert name == (".".join(expected) or TOP_LEVEL)
    assert ("loss.weight" in findings) == (extra and bool(prefix))


AVERAGES: dict[str, Callable[[State, State], Any]] = {
    "ema": lambda raw, average: {"model": raw, "ema": average},
    "timm": lambda raw, average: {"state_dict": raw, "state_dict_ema": average},
    "torchvision": lambda raw, average: {
        "model": raw,
        "model_ema": {"n_averaged": torch.tensor(3), **prefixed(average, "module.")},
    },
    "ema_state_dict": lambda raw, average: {"model_state_dict": raw, "ema_state_dict": average},
    "nested": lambda raw, average: {"model": raw, "ema": {"decay": 0.999, "shadow": average}},
    "prefix": lambda raw, average: {"state_dict": {**prefixed(raw, "model."), **prefixed(average, "ema.module.")}},
    "beside": lambda raw, average: {**raw, **prefixed(average, "ema_model.")},
    "first": lambda raw, average: {"EMA": average, "net": raw},
    # These two put the average into "state_dict".
    "lightning": lambda raw, average: {"state_dict": average, "current_model_state": raw, "averaging_state": {}},
    "mmengine": lambda raw, average: {
        "state_dict": average,
        "ema_state_dict": {"steps": torch.tensor(3), **prefixed(raw, "module.")},
        "message_hub": {},
    },
}


@pytest.mark.parametrize("kind", AVERAGES)
def test_the_moving_average_is_taken_and_said(kind: str) -> None:
    content = AVERAGES[kind](model(1.0), model(100.0))
    name, value, findings = found_in(content)
    assert value == 100.0
    assert f'weights "{name}" are used (the moving average); the file also has ' in findings
    (other,) = re.findall(r"the file also has (\S+) \(--weights NAME\)", findings)
    assert found_in(content, chosen=other)[:2] == (other, 1.0)
    assert found_in(content, chosen=name)[:2] == (name, 100.0)


@pytest.mark.parametrize(
    "content",
    [
        {"student": model(1.0), "teacher": model(2.0)},
        {**prefixed(model(1.0), "student."), **prefixed(model(2.0), "teacher.")},
        {"model": model(1.0), "best_model": model(2.0)},
        {"ema_fast": model(1.0), "ema_slow": model(2.0), "model": model(3.0)},
    ],
)
def test_weights_that_fit_equally_are_refused_with_their_names(content: Any) -> None:
    with pytest.raises(CheckpointError, match="sets of weights in the file fit equally") as caught:
        find_weights(content, "my x.pth", command="yolact-finetune")
    names = re.findall(r"yolact-finetune 'my x\.pth' --weights (\S+)", str(caught.value))
    values = {found_in(content, chosen=name)[1] for name in names}
    assert values == set(itertools.islice([1.0, 2.0, 3.0], len(names)))
    assert len(names) >= 2


def test_equal_weights_need_no_choice() -> None:
    name, value, findings = found_in({"state_dict": model(), "model": model()})
    assert (name, value) == ("state_dict", 1.0)
    assert 'weights "state_dict" are used (all are equal)' in findings


def test_a_name_that_is_not_there_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r'with the name "swa" \(--weights\); there are: model, ema'):
        find_weights({"model": model(1), "ema": model(2)}, "x.pth", "swa")
    with pytest.raises(CheckpointError, match="there are: none"):
        find_weights({"a": torch.zeros(1)}, "x.pth", "swa")


@pytest.mark.parametrize("chosen", ["state_dict_ema", "module", "module.net", "state_dict_ema.module.net"])
def test_an_unambiguous_beginning_or_end_of_a_name_is_enough(chosen: str) -> None:
    content = {"state_dict": model(1.0), "state_dict_ema": prefixed(model(2.0), "module.net.")}
    if chosen == "module":  # neither a beginning nor an end
        expected = r'with the name "module" \(--weights\); there are: state_dict, state_dict_'
        with pytest.raises(CheckpointError, match=expected):
            found_in(content, chosen=chosen)
    else:
        assert found_in(content, chosen=chosen)[:2] == ("state_dict_ema.module.net", 2.0)


@pytest.mark.parametrize("chosen", ["run", "net", "", ".", "run.", "ru", "run.b.net.x"])
def test_a_part_of_several_names_or_of_a_component_is_refused(chosen: str) -> None:
    content = {"run": {"a": prefixed(model(1.0), "net."), "b": prefixed(model(2.0), "net.")}}
    with pytest.raises(CheckpointError, match=re.escape(f'"{chosen}"')) as caught:
        found_in(content, chosen=chosen)
    assert "there are: run.a.net, run.b.net" in str(caught.value)


def test_a_whole_name_goes_before_a_part_of_another() -> None:
    content = {"model": model(1.0), "best": {"model": model(2.0)}}
    assert found_in(content, chosen="model")[:2] == ("model", 1.0)
    assert found_in(content, chosen="best")[:2] == ("best.model", 2.0)


def test_an_average_of_the_parameters_alone_is_no_model() -> None:
    average = {key: value for key, value in model(2.0).items() if "running" not in key}
    with pytest.raises(CheckpointError, match=r"\(ema\) has no batch norm statistics.*x\.pth --weights model"):
        find_weights({"model": model(), "ema": average}, "x.pth")


def test_a_container_that_holds_itself_has_an_end() -> None:
    content: dict[str, Any] = {"model": model()}
    content["self"] = content
    content["list"] = [content]
    assert found_in(content)[0] == "model"


def test_a_model_without_a_required_key_is_named_under_its_prefix() -> None:
    state = prefixed(model(), "net.")
    del state[f"net.{REQUIRED[1]}"]
    weights, _ = find_weights({"state_dict": state, "other": {str(i): torch.ones(1) for i in range(99)}}, "x.pth")
    assert REQUIRED[0] in weights.tensors


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (torch.zeros(3), "the file contains a Tensor"),
        ([torch.zeros(1)], "the file contains a list"),
        ({}, "the dict is empty"),
        ({"epoch": 3, "model": {"step": 4}}, "epoch, model, model.step"),
    ],
)
def test_a_file_without_a_state_dict_is_refused(content: object, part: str) -> None:
    with pytest.raises(CheckpointError, match=f"no state dict .* found; .*{part}"):
        find_weights(content, "x.pth")


@examples(100)
@given(
    content=st.recursive(
        st.one_of(st.none(), st.integers(), st.text(max_size=3), st.just(torch.zeros(2)), st.just(model())),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(st.one_of(st.integers(0, 3), st.text(max_size=3)), inner, max_size=3),
        ),
        max_leaves=8,
    )
)
def test_any_content_gives_weights_or_an_error(content: object) -> None:
    try:
        weights, _ = find_weights(content, "x.pth")
    except CheckpointError:
        assume(False)
    assert weights.tensors


def test_a_training_of_a_whole_model_loads(narrow_state: Callable[[str], State], save: Callable[..., Any]) -> None:
    raw = narrow_state("yolact_small")
    average = {key: value * 2 if value.is_floating_point() else value for key, value in raw.items()}
    content = {
        "epoch": 7,
        "best_map": np.float64(0.31),
        "steps": np.int64(9),
        "state_dict": prefixed({key: value.bfloat16() if value.ndim else value for key, value in raw.items()}, "net."),
        "ema": {"decay": 0.999, "module": average},
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": np.float32(0.1)}]},
    }
    path = save(content)
    loaded = load_checkpoint(path)
    assert loaded.weights == "ema.module"
    assert loaded.identity == f"{loaded.sha256} ema.module"
    assert all(torch.equal(value, average[key]) for key, value in loaded.model.state_dict().items())
    other = load_checkpoint(path, CheckpointOptions(weights="state_dict.net"))
    assert any("bfloat16 converted to float32" in finding for finding in other.findings)
    assert torch.equal(other.model.state_dict()["proto_net.0.weight"], raw["proto_net.0.weight"].bfloat16().float())
