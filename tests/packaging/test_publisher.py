"""Who publishes the project is one table: empty, nothing pretends to know it; filled, everything leads there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager

from support.ci_scripts import load_script
from yolact_plugins import __version__

pytestmark = pytest.mark.checks
ROOT = Path(__file__).parents[2]
FILES = ("SECURITY.md", "CITATION.cff", ".github/ISSUE_TEMPLATE/config.yml")
PACKAGED = ("pyproject.toml", "README.md", "LICENSE", "plugins/yolact_plugins/__init__.py")
HOME = "https://github.com/example/yolact-deploy"
FILLED = {"owner": 'Example "Robotics" \\ Sons', "home": HOME, "contact": "security@example.com"}


@pytest.fixture
def script() -> ModuleType:
    return load_script("publisher")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What the publisher is written into, and what packages take their metadata from; the table is emptied."""
    for name in (*FILES, *PACKAGED, ".ci/publisher.py", ".ci/readme_hook.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    fill(tmp_path, owner="", home="", contact="")
    return tmp_path


def fill(root: Path, **values: str) -> None:
    """Write values into the table of a copy."""
    path = root / "pyproject.toml"
    text = path.read_text(encoding="utf-8")
    for name, value in values.items():
        text, count = re.subn(rf"(?m)^{name} = .*$", lambda _, n=name, v=value: f"{n} = '{v}'", text)
        assert count == 1
    path.write_text(text, encoding="utf-8")


def metadata(root: Path) -> Any:
    """What a wheel would say."""
    return ProjectMetadata(str(root), PluginManager()).core


def test_the_files_say_what_the_table_says(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--check"]) == 0, capsys.readouterr().out


def test_an_empty_table_is_nobody(script: ModuleType, copy: Path) -> None:
    assert script.main(["--root", str(copy)]) == 0
    assert metadata(copy).urls == {}
    assert metadata(copy).maintainers_data == {"name": [], "email": []}
    assert "No address for private reports" in (copy / "SECURITY.md").read_text(encoding="utf-8")
    for name in FILES:
        said = "".join(re.findall(r"(?s)publisher\b(.*)/publisher", (copy / name).read_text(encoding="utf-8")))
        assert said
        assert "github.com" not in said
        assert "@" not in said
    citation = yaml.safe_load((copy / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["authors"] == [{"name": "The yolact-deploy developers"}]
    assert "repository-code" not in citation


def test_a_filled_table_is_said_everywhere(script: ModuleType, copy: Path) -> None:
    fill(copy, **FILLED)
    assert script.main(["--root", str(copy), "--check"]) == 1
    assert script.main(["--root", str(copy)]) == 0
    assert script.main(["--root", str(copy), "--check"]) == 0
    security = (copy / "SECURITY.md").read_text(encoding="utf-8")
    assert "<security@example.com>" in security
    assert f"<{HOME}/security/advisories/new>" in security
    assert "No address" not in security
    citation = yaml.safe_load((copy / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["authors"][-1] == {"name": FILLED["owner"]}
    assert citation["repository-code"] == HOME
    (link,) = yaml.safe_load((copy / FILES[2]).read_text(encoding="utf-8"))["contact_links"]
    assert link["url"] == f"{HOME}/security/policy"
    assert "<this repository>" not in (copy / "README.md").read_text(encoding="utf-8")
    for schema, name in (("citation-file-format", FILES[1]), ("github-issue-config", FILES[2])):
        command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", str(copy / name)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_packages_of_a_filled_table_link_to_files_that_are_there(script: ModuleType, copy: Path) -> None:
    fill(copy, **FILLED)
    script.main(["--root", str(copy)])
    found = metadata(copy)
    assert set(found.urls) == {"Homepage", "Documentation", "Issues", "Changelog", "Security"}
    assert all(url.startswith(HOME) for url in found.urls.values())
    assert found.maintainers_data["name"] == [FILLED["owner"]]
    links = re.findall(r"\]\(([^)#\s]*)(?:#[^)]*)?\)", found.readme)
    assert [link for link in links if link and not link.startswith("https://")] == []
    files = [re.sub(rf"^{HOME}/(?:blob|raw)/v{__version__}/", "", link) for link in links if link.startswith(HOME)]
    assert len(files) > 5
    assert f"{HOME}/raw/v{__version__}/docs/images/balloons.jpg" in found.readme
    assert [name for name in files if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("home", ["", HOME])
def test_no_form_of_a_link_or_picture_stays_relative(home: str) -> None:
    hook, publisher = load_script("readme_hook"), load_script("publisher").Publisher(home=home)
    text = (
        "# T\n\n![a](pages/a.png)\n\n"
        "[![b](pages/b.png)](pages/b.md) [c](pages/c.md#x) [d](#t) [e](https://e.org) ![f](pages/f.png)\n\n"
        '<picture><source srcset="pages/g.png"><img alt="g" src="pages/h.png"></picture> <img src="https://e.org/i.png">\n'
    )
    made = hook.packaged_readme(text, publisher, "1.0")
    targets = re.findall(r"\]\(([^)]*)\)|(?:src|srcset)=\"([^\"]*)\"", made)
    found = [one or other for one, other in targets]
    assert [target for target in found if not target.startswith(("https://", "#"))] == []
    assert {"#t", "https://e.org", "https://e.org/i.png"} <= set(found)
    if home:
        assert {f"{HOME}/raw/v1.0/pages/{name}.png" for name in "abfgh"} <= set(found)
        assert {f"{HOME}/blob/v1.0/pages/b.md", f"{HOME}/blob/v1.0/pages/c.md#x"} <= set(found)
    with pytest.raises(ValueError, match="write a relative link as Markdown"):
        hook.packaged_readme('# T\n\n<a href="pages/a.md">a</a>', publisher, "1.0")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("home", "https://example.com/x"),
        ("home", "https://github.com/example"),
        ("home", "http://github.com/example/x"),
        ("home", "https://github.com/example/x/"),
        ("contact", "security"),
        ("contact", "a@example.com b@example.com"),
        ("contact", "<a@example.com>"),
        ("owner", " "),
        ("owner", "Example "),
    ],
)
def test_what_is_no_address_is_refused(
    script: ModuleType, copy: Path, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    fill(copy, **{name: value})
    before = {name: (copy / name).read_bytes() for name in FILES}
    assert script.main(["--root", str(copy)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {name} in [tool.yolact-deploy.publisher] of pyproject.toml must be ")
    assert repr(value) in said
    assert {name: (copy / name).read_bytes() for name in FILES} == before


@pytest.mark.parametrize("name", FILES)
def test_a_file_without_its_marks_is_named(
    script: ModuleType, copy: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (copy / name).write_text("nothing\n", encoding="utf-8")
    assert script.main(["--root", str(copy)]) == 2
    assert f"error: {name}: a comment 'publisher'" in capsys.readouterr().err


def test_the_citation_is_of_this_version() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == __version__
