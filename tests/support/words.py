"""The words of the project: the table of CONTRIBUTING.md, and every text in which its left column must not occur."""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEADING = "## Words"
NOT_NOUNS = "longer|more|less|fewer|larger|smaller|faster|slower|better|worse|older|newer|later|such"


def avoided_phrases(document: str) -> list[str]:
    """Return the phrases of the left column of the table; ``…`` stands for up to three words, ``[noun]`` for one."""
    section = document.partition(f"\n{HEADING}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return [phrase.strip() for left, *_ in rows[2:] for phrase in left.split(";")]


def pattern_of(phrases: list[str]) -> re.Pattern[str]:
    """Compile one expression that finds any of the phrases, in any case and across line ends."""
    parts = [re.escape(phrase).replace("…", r"(?:\S+\s+){0,2}\S+") for phrase in sorted(phrases, key=len, reverse=True)]
    # "There is no folder", "is no longer" and "is no larger than" are good English.
    parts = [part.replace(r"\[noun\]", rf"(?:(?!(?:{NOT_NOUNS})\b)\w+|{{}})") for part in parts]
    anywhere = "|".join(part.replace(r"\ ", r"\s+") for part in parts)
    return re.compile(rf"(?<![\w-])(?<!there )(?<!there\n)(?:{anywhere})(?![\w-])", re.IGNORECASE)


def texts_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line number and content of every text of a file that a reader meets."""
    content = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        is_test = path.is_relative_to(ROOT / "tests")
        yield from _literals(content, with_docstrings=not is_test)
        yield from () if is_test else _python_comments(content)
    elif path.suffix in {".cu", ".cuh"}:
        yield from _blocks(content, r"//(.*)")
    elif path.suffix in {".toml", ""}:
        yield from _blocks(content, r"#(.*)")
    elif path.name == "CONTRIBUTING.md":
        before, _, section = content.partition(f"\n{HEADING}\n")
        yield 1, before
        yield before.count("\n") + 2, section.partition("\n## ")[2]
    elif path.name == "CHANGELOG.md":
        yield 1, content.partition("\n## Unreleased\n")[2].partition("\n## ")[0]
    else:
        yield 1, content


def _literals(source: str, *, with_docstrings: bool) -> Iterator[tuple[int, str]]:
    """Yield string literals, those with holes in one piece."""
    tree = ast.parse(source)
    inside: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inside |= {id(part) for part in node.values}
            pieces = [str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values]
            yield node.lineno, "".join(pieces)
        elif not with_docstrings and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            inside.add(id(node.value))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.lineno, node.value


def _python_comments(source: str) -> Iterator[tuple[int, str]]:
    """Yield comments; those on consecutive lines are one text."""
    block: list[str] = []
    start = last = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if block and token.start[0] > last + 1:
                yield start, " ".join(block)
                block = []
            start = start if block else token.start[0]
            block.append(token.string.lstrip("# "))
            last = token.start[0]
    if block:
        yield start, " ".join(block)


def _blocks(content: str, comment: str) -> Iterator[tuple[int, str]]:
    """Yield the comments of a file in another language, line ends included."""
    lines = [re.search(comment, line) for line in content.splitlines()]
    yield 1, "\n".join(found[1].strip() if found else "." for found in lines)


def hits_in(path: Path, pattern: re.Pattern[str]) -> list[str]:
    """Return every place of a file in which a phrase occurs, with its line number and surroundings."""
    found = []
    for line, text in texts_of(path):
        for match in pattern.finditer(text):
            surroundings = " ".join(text[max(match.start() - 30, 0) : match.end() + 30].split())
            found.append(f"{line + text.count(chr(10), 0, match.start())}: {match[0]!r} in {surroundings!r}")
    return found


def checked_files() -> list[Path]:
    """Return the files whose words are checked."""
    packages = [path for path in ROOT.glob("*/yolact_*/**/*") if path.suffix in {".py", ".cu", ".cuh"}]
    planted = {"words.py", "test_words.py", "test_docstrings.py"}
    tests = [path for path in (ROOT / "tests").rglob("*.py") if path.name not in planted]
    others = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.py"), *ROOT.glob(".ci/*.py")]
    return sorted([*packages, *tests, *others, ROOT / "pyproject.toml", ROOT / "Makefile"])


def main(words: list[str]) -> int:
    """Print where avoided phrases occur, below the given paths or everywhere; return 1 if they do."""
    pattern = pattern_of(avoided_phrases((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))
    places = [Path(word).resolve() for word in words or [str(ROOT)]]
    files = [path for path in checked_files() if any(path.is_relative_to(place) for place in places)]
    lines = [f"{path.relative_to(ROOT)}:{hit}" for path in files for hit in hits_in(path, pattern)]
    sys.stdout.write("".join(f"{line}\n" for line in [*lines, f"{len(lines)} hits in {len(files)} files"]))
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
