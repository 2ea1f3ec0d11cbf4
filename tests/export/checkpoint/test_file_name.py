from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from support.properties import examples
from yolact_export.checkpoint.file_name import config_name_of, read_file_name
from yolact_export.model.registry import CONFIGS

# What programs and people put before and after the name of a download, with its epoch and iteration.
COPIES = [
    "",
    " (1)",
    "(2)",
    " - Copy",
    " - Copy (3)",
    " - Kopie",
    " - copie",
    " - copia",
    " - cópia",
    " - 副本",
    " - コピー",
    "のコピー",
    " copy 2",
    " копия",
    "_best",
    "-last",
    "_interrupt",
    "_backup",
]
BEFORE = ["", "final-", "best_", "Copy of ", "Kopie von ", "Copia de ", "model_", "old "]
EXTENSIONS = [".pth", ".pt", ".pth.tar", ".ckpt", ".PTH", ".pth.bak", ".pth.old", ""]


@pytest.mark.parametrize(
    ("file_name", "config"),
    [
        ("yolact_base_54_800000.pth", "yolact_base"),
        ("yolact_base.pth", "yolact_base"),
        ("yolact_im700_54_800000.pth", "yolact_im700"),
        ("yolact_plus_resnet50_54_800000_interrupt.pth", "yolact_plus_resnet50"),
        ("yolact_resnet50_pascal_120_1200.pth", "yolact_resnet50_pascal"),
        ("yolact_im400_config_54_800000.pth", "yolact_im400"),
        ("Yolact_im400_54_800000.pth", "yolact_im400"),
        ("yolact-im400-54-800000.pth", "yolact_im400"),
        ("yolact_base_epoch_120.pth", "yolact_base"),
        ("my_model.pth", None),
        ("yolact.pth", None),
        # The rest of these names could mean another input.
        ("yolact_base_im400_mine.pth", None),
        ("yolact_base_400.pth", None),
        ("yolact_base_960_544.pth", None),
        ("yolact_base_550x550.pth", None),
        ("yolact_base_700_best.pth", None),
        ("yolact_base_5_400.pth", None),
        ("yolact_base_1_700.pth", None),
        ("yolact_base_31_700_best.pth", None),
        ("yolact_base_config_2_544.pth", None),
        ("yolact_base_2_1024.pth", None),
        ("yolact_base_2_1056.pth", "yolact_base"),
        ("im400_yolact_base.pth", None),
        ("yolact_base_yolact_im400.pth", None),
        ("yolact_edge_vid_847_50000.pth", None),
        ("yolact++_base.pth", None),
        ("yolact_im4000_54_800000.pth", None),
        ("myyolact_base.pth", None),
    ],
)
def test_configuration_is_in_the_file_name(file_name: str, config: str | None) -> None:
    assert config_name_of(Path("folder_1_2") / file_name) == config


INPUT_SIZES = {384, 400, 512, 550, 700, *range(32, 1025, 32)}


@given(
    name=st.sampled_from(list(CONFIGS)),
    epoch=st.integers(0, 999),
    iterations_per_epoch=st.integers(4, 10**4),
    suffix=st.sampled_from(["", "_interrupt"]),
)
def test_epoch_and_iteration_are_stripped(name: str, epoch: int, iterations_per_epoch: int, suffix: str) -> None:
    iteration = epoch * iterations_per_epoch
    assume(iteration not in INPUT_SIZES)
    assert config_name_of(Path(f"{name}_{epoch}_{iteration}{suffix}.pth")) == name


@given(
    name=st.sampled_from(list(CONFIGS)),
    number=st.integers(0, 999),
    size=st.sampled_from(sorted(INPUT_SIZES)),
    suffix=st.sampled_from(["", "_best", "_interrupt", " (1)"]),
)
def test_an_input_size_after_a_number_is_a_doubt(name: str, number: int, size: int, suffix: str) -> None:
    found = read_file_name(Path(f"{name}_{number}_{size}{suffix}.pth"))
    assert found.config is None
    assert str(size) in found.doubts


@examples(300)
@given(
    name=st.sampled_from(list(CONFIGS)),
    before=st.sampled_from(BEFORE),
    numbers=st.sampled_from(["", "_54_800000", "_config_54_800000"]),
    copy=st.sampled_from(COPIES),
    extension=st.sampled_from(EXTENSIONS),
    upper=st.booleans(),
    decomposed=st.booleans(),
)
def test_a_renamed_copy_is_recognised(
    name: str, before: str, numbers: str, copy: str, extension: str, upper: bool, decomposed: bool
) -> None:
    text = before + (name.upper() if upper else name) + numbers + copy + extension
    text = unicodedata.normalize("NFD" if decomposed else "NFC", text)
    assert config_name_of(Path(text)) == name


@examples(500)
@given(name=st.sampled_from(list(CONFIGS)), before=st.text(max_size=12), after=st.text(max_size=12))
def test_any_decoration_gives_that_configuration_or_none(name: str, before: str, after: str) -> None:
    found = read_file_name(Path(f"x/{before}{name}{after}".replace("\0", "")))
    assert found.config in {None, name} or found.config in name + after.casefold()


@examples(200)
@given(
    name=st.sampled_from(list(CONFIGS)),
    word=st.sampled_from(
        ["im400", "im700", "550", "400x400", "plus", "pascal", "resnet101", "darknet", "tiny", "mine"]
    ),
    place=st.sampled_from(["{word}_{name}", "{name}_{word}", "{name}_54_800000_{word}", "{name}_{word}_54_800000"]),
)
def test_a_word_that_could_mean_another_model_is_not_passed_over(name: str, word: str, place: str) -> None:
    text = place.format(name=name, word=word)
    found = config_name_of(Path(f"{text}.pth"))
    # With the word it may be a configuration of its own: yolact_resnet50 and pascal.
    assert found in {None, f"{name}_{word}"}


@given(names=st.lists(st.sampled_from(list(CONFIGS)), min_size=2, max_size=3))
def test_two_configurations_are_ambiguous(names: list[str]) -> None:
    found = read_file_name(Path("-and-".join(names) + ".pth"))
    assert found.config is None
    assert set(found.mentioned) == set(names)
