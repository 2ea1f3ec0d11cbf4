"""The documentation site: built strictly, complete, and without anything from the network."""

from __future__ import annotations

import ast
import html
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[2]
ZENSICAL = Path(sys.prefix, "bin", "zensical")
SOURCES = (".ci/docstring_roles.py", "docs", "mkdocs.yml", "runtime", "plugins", "calibration", "export", "benchmarks")
pytestmark = pytest.mark.skipif(not ZENSICAL.exists(), reason="needs zensical: make integrations INTEGRATIONS=docs")


def copy_sources(folder: Path) -> None:
    for name in SOURCES:
        copy = folder / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy, ignore=shutil.ignore_patterns("__pycache__", "results", "studies"))
        else:
            shutil.copy(ROOT / name, copy)


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(ZENSICAL), "build", "--clean", "--strict"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    copy_sources(folder)
    done = build(folder)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "No issues found" in said
    assert "arning" not in said
    return folder / "out" / "docs"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, str]:
    return {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}


def test_every_document_has_a_page_that_the_navigation_leads_to(site: Path, pages: dict[Path, str]) -> None:
    home = pages[site / "index.html"]
    for path in (ROOT / "docs").rglob("*.md"):
        name = path.relative_to(ROOT / "docs").with_suffix(".html").as_posix()
        assert site / name in pages
        assert re.search(rf'href="(\./)?{re.escape(name)}" class="md-nav__link', home), name


def test_links_and_anchors_lead_somewhere(site: Path, pages: dict[Path, str]) -> None:
    ids = {path: set(re.findall(r'\bid="([^"]+)"', text)) for path, text in pages.items()}
    seen = 0
    for path, text in pages.items():
        for target in re.findall(r'<a [^>]*href="([^"]*)"', text):
            name, _, anchor = unquote(html.unescape(target)).partition("#")
            if name.startswith(("http://", "https://")) or target == ".":
                continue
            # The page for addresses that do not exist is shown at any address: its links begin at the root.
            found = (
                (site / name.lstrip("/") if name.startswith("/") else path.parent / name).resolve() if name else path
            )
            assert found.exists(), f"{path.name}: {target}"
            assert not anchor or anchor in ids[found], f"{path.name}: {target}"
            seen += 1
    assert seen > 500


def test_nothing_is_loaded_from_the_network(pages: dict[Path, str]) -> None:
    """A robot's network leads nowhere, and what a user reads stays private."""
    for path, text in pages.items():
        loaded = re.findall(r'<(?:script|img|iframe|source)\b[^>]*\bsrc="([^"]*)"', text)
        loaded += re.findall(r'<link\b[^>]*\brel="(?:stylesheet|preload|preconnect|icon)"[^>]*\bhref="([^"]*)"', text)
        loaded += re.findall(r'<link\b[^>]*\bhref="([^"]*)"[^>]*\brel="(?:stylesheet|preload|preconnect|icon)"', text)
        assert loaded
        assert [name for name in loaded if re.match(r"(https?:)?//", name)] == [], path.name


def test_docstrings_are_shown_without_markup(pages: dict[Path, str]) -> None:
    for path, text in pages.items():
        shown = html.unescape(re.sub(r"<[^>]+>", "", text))
        assert re.findall(r":(?:attr|class|data|exc|func|meth|mod|obj):\S*", shown) == [], path.name
        assert "``" not in shown, path.name


@pytest.mark.parametrize("package", ["runtime", "plugins", "calibration", "export", "benchmarks"])
def test_every_public_name_has_a_place(pages: dict[Path, str], package: str) -> None:
    tree = ast.parse((ROOT / package / f"yolact_{package}" / "__init__.py").read_text(encoding="utf-8"))
    (names,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    text = "".join(pages.values())
    # Each package repeats the version of the project.
    names = [name for name in names if name != "__version__"]
    assert [name for name in names if f'id="yolact_{package}.{name}"' not in text and not _is_error(name, text)] == []


def _is_error(name: str, text: str) -> bool:
    """Errors are listed once, under the module that defines them."""
    return name.endswith("Error") and f'.errors.{name}"' in text


def test_search_works_from_the_disk(site: Path, pages: dict[Path, str]) -> None:
    script = (site / "search.js").read_text(encoding="utf-8")
    index = json.loads(script.removeprefix("var __index = ").rstrip().rstrip(";"))
    assert {"Segmenter", "Masks"} <= {item["title"] for item in index["items"]}
    assert all("assets/iframe-worker.js" in text for text in pages.values())


@pytest.mark.parametrize(
    "line", ["[a](nowhere.md)", "[a](index.md#nowhere)", "[a][yolact_runtime.Nothing]", "::: yolact_runtime.nothing"]
)
def test_a_reference_to_nothing_stops_the_build(tmp_path: Path, line: str) -> None:
    for name in SOURCES[:1]:
        copy = tmp_path / name
        copy.parent.mkdir()
        shutil.copy(ROOT / name, copy)
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[0]
    settings = settings.replace("paths: [", f"paths: [{ROOT / 'runtime'}, ")
    (tmp_path / "mkdocs.yml").write_text(settings)
    page = tmp_path / "docs" / "index.md"
    page.parent.mkdir()
    page.write_text("# A\n\ntext\n")
    assert build(tmp_path).returncode == 0
    page.write_text(f"# A\n\n{line}\n")
    assert build(tmp_path).returncode != 0
