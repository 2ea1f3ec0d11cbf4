"""README and docs name files and commands that exist."""

from __future__ import annotations

import re
import shlex
from itertools import takewhile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_commands_of_the_documents_parse() -> None:
    """Every yolact-… command line in a code block is accepted by that command's own parser."""
    from yolact_benchmarks import bench_cli, compare_cli, eval_cli
    from yolact_export import cli as export_cli
    from yolact_export import finetune_cli
    from yolact_runtime import cli as run_cli

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


def test_python_blocks_of_the_readme_compile() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        compile(block, "README.md", "exec")
