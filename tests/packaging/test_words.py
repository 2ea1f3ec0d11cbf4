"""Words that only this project would understand occur nowhere; the table is in CONTRIBUTING.md, "Words"."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.words import ROOT, avoided_phrases, checked_files, hits_in, pattern_of

PHRASES = avoided_phrases((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
PATTERN = pattern_of(PHRASES)


def test_the_table_is_read() -> None:
    assert len(PHRASES) > 40
    assert {"in turns", "as given", "is no [noun]"} <= set(PHRASES)
    assert "not" not in PHRASES


@pytest.mark.parametrize("phrase", PHRASES)
def test_every_phrase_is_found(phrase: str) -> None:
    text = phrase.replace("[noun]", "folder").replace("…", "some other")
    assert PATTERN.search(text)
    assert PATTERN.search(f"It says: {text.upper()}.")
    assert PATTERN.search(text.replace(" ", "\n    "))
    assert not PATTERN.search(f"x{text}y")


@pytest.mark.parametrize("text", ["There is no folder.", "It is no longer open.", "a column of it", "the lasso many"])
def test_good_english_is_not_found(text: str) -> None:
    assert not PATTERN.search(text)


SOURCES = {
    "a.py": [
        '"""A file in\n    turns."""',
        'raise E("a "\n  "file in turns")',
        'f"{x} in turns"',
        "# A file in\n# turns.",
    ],
    "a.cu": ["// A file in\n// turns.", "int a;  // in turns"],
    "a.toml": ["# in turns", 'a = "b"  # in turns'],
    "a.md": ["Files in turns.", "```\nFiles in\nturns\n```"],
    "CHANGELOG.md": ["# C\n\n## Unreleased\n\nFiles in turns.\n"],
}


@pytest.mark.parametrize(("name", "source"), [(name, source) for name in SOURCES for source in SOURCES[name]])
def test_phrases_are_found_wherever_they_are_read(name: str, source: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(source)
    assert len(hits_in(tmp_path / name, PATTERN)) == 1


@pytest.mark.parametrize(
    ("name", "source"),
    [("a.py", "in_turns = 1\nturns = x in turns"), ("a.cu", "int in, turns;"), ("CHANGELOG.md", "\n## 0.1\nin turns")],
)
def test_code_and_what_was_released_are_left_alone(name: str, source: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(source)
    assert hits_in(tmp_path / name, PATTERN) == []


def test_no_file_has_such_a_phrase() -> None:
    files = checked_files()
    assert len(files) > 700
    hits = {path: hits_in(path, PATTERN) for path in files}
    assert {str(path.relative_to(ROOT)): found for path, found in hits.items() if found} == {}
