"""README and docs name files and commands that exist."""

from __future__ import annotations

import functools
import re
import shlex
from itertools import pairwise, takewhile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        found = path.parent / name if name else path
        assert found.exists(), f"{path.name} links to {target}"
        assert not anchor or anchor in _anchors(found), f"{path.name} links to {target}"


def _anchors(path: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"(?m)^#+ (.+)$", path.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_to_sections_lead_to_a_heading(path: Path) -> None:
    """A section that gets another heading loses every link to it."""
    for target, section in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", path.read_text(encoding="utf-8")):
        document = path.parent / target if target else path
        headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
        assert section in map(_anchor, headings), f"{path.name} links to {target}#{section}"


def _anchor(heading: str) -> str:
    """As GitHub makes it of a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_names_of_modules_exist() -> None:
    """Whatever documents, docstrings and messages call ``yolact_<package>.<name>`` is a module, or a name in one."""
    # The changelog tells of former places, tests of names that are not there.
    sources = [path for folder in ROOT.glob("*/yolact_*") for path in folder.rglob("*.py")]
    scripts = [ROOT / "Makefile", ROOT / "pyproject.toml", *ROOT.glob(".ci/*.*"), *ROOT.glob("examples/**/*.*")]
    texts = [*DOCUMENTS, *scripts, *sources]
    packages = "|".join(sorted({path.parent.name for path in ROOT.glob("*/yolact_*")}))
    dotted = rf"\byolact_(?:{packages})(?:\.[A-Za-z_]\w*)+"
    names, commands = set(), set()
    for path in texts:
        if path.suffix in {".md", ".py", ".toml", ""} and path.name != "CHANGELOG.md":
            text = path.read_text(encoding="utf-8")
            names |= {(name, path) for name in re.findall(dotted, text)}
            commands |= {(name, path) for name in re.findall(rf"-m[\",]* [\"']?({dotted})", text)}
    assert len(names) > 500
    assert len(commands) > 30
    assert not {f"{path.relative_to(ROOT)}: {name}" for name, path in names if not _exists(name)}
    assert not {f"{path.relative_to(ROOT)}: {name}" for name, path in commands if not _is_command(name)}


def _is_command(name: str) -> bool:
    """``python -m`` runs it."""
    package, *parts = name.split(".")
    place = Path(ROOT, package.removeprefix("yolact_"), package, *parts)
    module = place.with_suffix(".py")
    return (place / "__main__.py").exists() or (module.exists() and "__main__" in module.read_text(encoding="utf-8"))


def test_paths_in_texts_exist() -> None:
    """Paths of this repository in documents, comments and scripts lead to a file, wherever they are named from."""
    folders = r"\.ci|docs|tests|examples|benchmarks|export|calibration|runtime|plugins"
    pattern = rf"(?<![\w./-])(?:{folders})/[\w./-]*\.(?:py|md|cuh?|toml)\b"
    inside = [path for name in folders.replace("\\", "").split("|") for path in (ROOT / name).rglob("*")]
    texts = [path for path in (*inside, *ROOT.glob("*.*")) if path.suffix in {".py", ".md", ".toml"}]
    texts = [path for path in (*texts, ROOT / "Makefile", ROOT / ".ci" / "run") if path.name != "CHANGELOG.md"]
    found = set()
    for path in texts:
        found |= {(name, path) for name in re.findall(pattern, path.read_text(encoding="utf-8"))}
    assert len(found) > 10
    assert not {f"{path.relative_to(ROOT)}: {name}" for name, path in found if not (ROOT / name).exists()}


def _exists(name: str) -> bool:
    """The name leads to a module and, where more follows, that word stands in it."""
    package, *parts = name.split(".")
    place = ROOT / package.removeprefix("yolact_") / package
    for position, part in enumerate(parts):
        if (place / part).is_dir() and part != "__pycache__":
            place = place / part
            continue
        module = place / f"{part}.py"
        if not module.exists():
            return f'"{part}"' in (place / "__init__.py").read_text(encoding="utf-8").partition("__all__")[2]
        rest = parts[position + 1 :]
        return not rest or re.search(rf"\b{rest[0]}\b", module.read_text(encoding="utf-8")) is not None
    return True


def test_commands_of_the_documents_parse() -> None:
    """Every yolact-… command line in a code block is accepted by that command's own parser."""
    from yolact_benchmarks.commands import bench_cli, compare_cli, eval_cli
    from yolact_export.commands import cli as export_cli
    from yolact_export.commands import finetune_cli
    from yolact_runtime.commands import run_cli

    parsers = {
        "yolact-bench": bench_cli._parser(),
        "yolact-eval": eval_cli._parser(),
        "yolact-export": export_cli._parser(),
        "yolact-finetune": finetune_cli._parser(),
        "yolact-run": run_cli._parser(),
    }
    text = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    blocks = re.findall(r"```(?:console|sh|bash)\n(.*?)```", text, re.DOTALL)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith(tuple(parsers))]
    assert {words[0] for words in commands} == set(parsers)
    for name, *words in commands:
        if [name, *words[:1]] == ["yolact-bench", "compare"]:
            compare_cli.compare_parser().parse_args(words[1:])
            continue
        parsers[name].parse_args(list(takewhile(lambda word: word not in {">", "|"}, words)))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_no_table_is_broken_by_a_blank_line(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if line.startswith("|") and not (number and lines[number - 1].startswith("|")):
            assert re.fullmatch(r"\|( :?-+:? \|)+", lines[number + 1]), f"line {number + 1} shows raw: {line[:60]}"


@pytest.mark.parametrize("path", sorted(ROOT.glob("docs/**/*.md")), ids=lambda path: path.name)
def test_every_list_is_one_on_the_site_too(path: Path) -> None:
    """Python-Markdown wants an empty line before a list, and after a paragraph inside of one; GitHub does not."""
    lines = re.sub(r"(?ms)^ *```.*?^ *```", "", path.read_text(encoding="utf-8")).splitlines()
    marker = re.compile(r"(?:[*-]|\d+\.) ")
    for before, line in pairwise(lines):
        continues = marker.match(before) or re.match(r" {2,3}\S", before)
        assert not marker.match(line) or not before.strip() or continues, f"{path.name}: {line[:60]}"


# Of pip, NVRTC, venv and docker.
FOREIGN_OPTIONS = {"--fmad", "--ptxas-options", "--runtime", "--system-site-packages"}


@functools.cache
def _options_of_the_project() -> set[str]:
    sources = "".join(
        path.read_text(encoding="utf-8") for path in (*ROOT.glob("*/yolact_*/**/*.py"), *ROOT.glob(".ci/*.py"))
    )
    return {*re.findall(r'"(--[a-z][a-z0-9-]*)"', sources), "--help", "--version"}


@pytest.mark.parametrize(
    "path", [path for path in DOCUMENTS if path.name != "CHANGELOG.md"], ids=lambda path: path.name
)
def test_options_that_prose_names_exist(path: Path) -> None:
    """The changelog also names options that were removed."""
    prose = re.sub(r"(?ms)^ *```.*?^ *```", "", path.read_text(encoding="utf-8"))
    code = " ".join(re.findall(r"`([^`\n]+)`", prose))
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", code))
    assert named <= _options_of_the_project() | FOREIGN_OPTIONS


def test_targets_of_make_exist() -> None:
    targets = set(re.findall(r"(?m)^([a-z][a-z0-9 -]*):", (ROOT / "Makefile").read_text(encoding="utf-8")))
    targets = {name for names in targets for name in names.split()}
    text = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS if path.name != "CHANGELOG.md")
    named = set(re.findall(r"(?:`|^\$ )make(?: [A-Z_]+=\S+)* ([a-z][a-z0-9-]*)", text, re.MULTILINE))
    assert {"demo", "docs", "gpu"} <= named
    assert named <= targets
