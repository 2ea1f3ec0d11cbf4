"""Where images may lie: below their folder, by any spelling; elsewhere only when that is allowed."""

from __future__ import annotations

import os
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from yolact_calibration.data.annotated_images import AnnotatedImages
from yolact_calibration.errors import DatasetError
from yolact_calibration.labels.coco import CocoAnnotations
from yolact_calibration.labels.options import FileRules
from yolact_runtime.media.images import write_image

ANYWHERE, SKIP = FileRules(allow_outside=True), FileRules(skip_missing=True)


def labels(*names: str) -> CocoAnnotations:
    images = [{"id": i, "file_name": name, "height": 4, "width": 6} for i, name in enumerate(names)]
    document = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    return CocoAnnotations.from_document(document, "labels.json")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``images/`` with ``a.png`` and ``sub/b.png``, links of every kind, and ``secret.png`` beside it."""
    root = tmp_path_factory.mktemp("place").resolve()
    for name in ("images/a.png", "images/sub/b.png", "secret.png", "elsewhere/c.png", "images/odd\\name.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(root / "plain.png", np.zeros((4, 6, 3), np.uint8))
        (root / "plain.png").rename(root / name)
    folder = root / "images"
    (folder / "inner.png").symlink_to("sub/b.png")
    (folder / "outer.png").symlink_to("../secret.png")
    (folder / "door").symlink_to("../elsewhere")
    (folder / "circle.png").symlink_to("circle.png")
    (folder / "lost.png").symlink_to("../nowhere.png")
    os.mkfifo(folder / "pipe.png")
    return root


def find(place: Path, name: str, rules: FileRules | None = None) -> Path:
    annotations = labels(name)
    data = AnnotatedImages.open(annotations, place / "images", rules)
    return data.path(annotations.images[0]).resolve()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.png", "images/a.png"),
        ("./a.png", "images/a.png"),
        ("sub/../a.png", "images/a.png"),
        ("sub\\b.png", "images/sub/b.png"),
        (".\\sub\\..\\a.png", "images/a.png"),
        ("odd\\name.png", "images/odd\\name.png"),
        ("inner.png", "images/sub/b.png"),
    ],
)
def test_every_spelling_of_a_place_inside_is_found(place: Path, name: str, expected: str) -> None:
    assert find(place, name) == place / expected


def test_an_absolute_path_into_the_folder_is_inside(place: Path) -> None:
    assert find(place, str(place / "images" / "a.png")) == place / "images" / "a.png"


@pytest.mark.parametrize("name", ["../secret.png", "sub/../../secret.png", "..\\secret.png", "outer.png", "door/c.png"])
def test_what_leads_outside_is_refused_by_name_and_read_when_that_is_allowed(place: Path, name: str) -> None:
    with pytest.raises(DatasetError, match=r"1 of the 1 images of labels\.json is outside") as caught:
        find(place, name)
    assert name in str(caught.value)
    assert "--allow-outside" in str(caught.value)
    # Going on without missing images is no leave to look elsewhere.
    with pytest.raises(DatasetError, match="is outside"):
        find(place, name, SKIP)
    assert find(place, name, ANYWHERE) in {place / "secret.png", place / "elsewhere" / "c.png"}


def test_an_absolute_path_is_outside_whether_it_is_there_or_not(place: Path) -> None:
    for name in (str(place / "secret.png"), "/nowhere/at/all.png", "../nowhere.png", "lost.png"):
        with pytest.raises(DatasetError, match="is outside"):
            find(place, name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        *((name, "Is it the right folder? It has none of them") for name in ("gone.png", ".", "a.png/b.png")),
        ("x" * 3000, "x…. Is it the right folder?"),
        ("circle.png", "circle.png is a link that leads nowhere."),
        ("pipe.png", "pipe.png is a pipe or a device."),
        ("sub", "sub is a folder."),
    ],
)
def test_what_is_no_file_is_missing(place: Path, name: str, reason: str) -> None:
    with pytest.raises(DatasetError, match=r"1 of the 1 images of labels.json is not in ") as caught:
        find(place, name)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 500


def test_missing_images_are_skipped_on_demand_with_a_count(place: Path) -> None:
    annotations = labels("a.png", "gone.png", "sub/b.png", "lost2.png")
    with pytest.raises(DatasetError, match="--skip-missing continues without them"):
        AnnotatedImages.open(annotations, place / "images")
    data = AnnotatedImages.open(annotations, place / "images", SKIP)
    assert [image.file_name for image in data.annotations.images] == ["a.png", "sub/b.png"]
    assert data.findings == (f"2 of 4 images are not in {place / 'images'} and skipped: gone.png, lost2.png",)
    with pytest.raises(DatasetError, match="It has none of them"):
        AnnotatedImages.open(labels("gone.png"), place / "images", SKIP)


def test_a_folder_that_is_a_link_is_the_folder(place: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(place / "images")
    data = AnnotatedImages.open(labels("a.png", "sub/b.png"), tmp_path / "link")
    assert data.check() == AnnotatedImages.open(labels("a.png", "sub/b.png"), place / "images").check()


PARTS = st.sampled_from(["..", ".", "sub", "door", "a.png", "b.png", "c.png", "secret.png", "images", "", "outer.png"])


@examples(300)
@given(parts=st.lists(PARTS, min_size=1, max_size=6), separator=st.sampled_from(["/", "\\"]))
def test_no_way_of_writing_leads_outside(place: Path, parts: list[str], separator: str) -> None:
    name = separator.join(parts)
    if not name.strip():
        return
    try:
        found = find(place, name)
    except DatasetError:
        return
    assert found.is_relative_to(place / "images")
    assert found.is_file()


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """A folder of an image, and a second one in a folder in it."""
    write_image(tmp_path / "plain.png", np.zeros((4, 6, 3), np.uint8))
    (tmp_path / "album" / "day 1").mkdir(parents=True)
    shutil.copy(tmp_path / "plain.png", tmp_path / "album" / "IMG 1.PNG")
    (tmp_path / "plain.png").rename(tmp_path / "album" / "day 1" / "b.png")
    return tmp_path / "album"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("album/IMG 1.PNG", "IMG 1.PNG exists: give the folder that contains album, {above}."),
        ("train/IMG 1.PNG", "IMG 1.PNG exists: file_name should not begin with train/."),
        ("b.png", "b.png is in {album}/day 1: give that folder, or correct file_name."),
        (
            "img 1.png",
            "IMG 1.PNG exists, a different name because this file system distinguishes upper and lower case.",
        ),
        ("IMG%201.PNG", "file_name is URL-encoded: IMG 1.PNG exists."),
        ("day 1/b.jpg", "b.png exists, with another suffix."),
        ("c.png", "Is it the right folder?"),
    ],
)
def test_an_image_that_is_missing_is_looked_for_where_it_could_be(album: Path, name: str, sentence: str) -> None:
    with pytest.raises(DatasetError) as caught:
        AnnotatedImages.open(labels(name), album)
    assert sentence.format(above=album.parent, album=album) in str(caught.value)


def test_a_folder_that_is_none_is_told_instead_of_its_images(album: Path) -> None:
    for folder, what in ((album / "IMG 1.PNG", "is not a folder"), (album / "gone", "does not exist")):
        with pytest.raises(DatasetError, match=f"{folder}, the folder of images, {what}"):
            AnnotatedImages.open(labels("a.png"), folder)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_characters_are_the_same_however_unicode_composes_them(album: Path, form: Any) -> None:
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    (album / unicodedata.normalize(form, "Größe")).mkdir()
    (album / "IMG 1.PNG").rename(album / unicodedata.normalize(form, "Größe/é.png"))
    for separator in "/\\":
        data = AnnotatedImages.open(labels(unicodedata.normalize(other, f"Größe{separator}é.png")), album)
        assert next(iter(data.paths.values())).is_file()


def test_of_two_files_whose_characters_are_the_same_none_is_guessed(album: Path) -> None:
    for form in ("NFC", "NFD"):
        shutil.copy(album / "IMG 1.PNG", album / unicodedata.normalize(form, "ấ.png"))
    with pytest.raises(DatasetError, match="is not in"):
        AnnotatedImages.open(labels("\u00e2\u0301.png"), album)


@pytest.mark.parametrize("second", ["./a.png", "sub/../a.png", "sub\\..\\a.png", "again/../a.png", ".//a.png"])
def test_two_spellings_of_one_file_are_refused(place: Path, second: str) -> None:
    (place / "images" / "again").mkdir(exist_ok=True)
    with pytest.raises(DatasetError, match=r"the images 0 and 1 are the same file, 'a\.png' and "):
        AnnotatedImages.open(labels("a.png", second), place / "images")


def test_two_names_of_one_file_are_told(album: Path) -> None:
    (album / "soft.png").symlink_to("IMG 1.PNG")
    (album / "hard.png").hardlink_to(album / "IMG 1.PNG")
    data = AnnotatedImages.open(labels("IMG 1.PNG", "soft.png", "hard.png", "day 1/b.png"), album)
    assert data.findings == (
        "2 images are linked to the file of another image, whose content therefore counts more than once: "
        "soft.png, hard.png",
    )
