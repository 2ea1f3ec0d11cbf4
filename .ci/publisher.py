"""The publisher of this project, and the files that name it: one table of ``pyproject.toml`` for the owner to fill in.

The table ``[tool.yolact-deploy.publisher]`` has the owner's name, the address of the repository on GitHub (home) and an
address for reports of vulnerabilities (contact). Each may be empty if it is unknown. ``make publisher`` updates
SECURITY.md, CITATION.cff and the chooser of issue forms from the table; ``readme_hook.py`` adds it to the metadata of
packages.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    # A dependency of hatchling and of pytest.
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
TABLE = "[tool.yolact-deploy.publisher] of pyproject.toml"
_HOME = re.compile(r"https://github\.com/[A-Za-z0-9-]+/[A-Za-z0-9._-]+")
_CONTACT = re.compile(r"[^\s@<>()]+@[^\s@<>()]+\.[^\s@<>()]+")
_UNKNOWN_HOME = "<this repository>"


class PublisherError(Exception):
    """The table, or a file generated from it, is invalid; the message says what to do."""


@dataclass(frozen=True)
class Publisher:
    """Content of the table.

    Attributes:
        owner: Name of a person or an organisation; empty if unknown.
        home: Address of the repository, ``https://github.com/OWNER/NAME``; empty if there is none.
        contact: E-mail address for reports of vulnerabilities; empty if there is none.
    """

    owner: str = ""
    home: str = ""
    contact: str = ""

    def urls(self) -> dict[str, str]:
        """Return the links of ``[project.urls]``; empty without a home."""
        if not self.home:
            return {}
        return {
            "Homepage": self.home,
            "Documentation": f"{self.home}/tree/HEAD/docs",
            "Issues": f"{self.home}/issues",
            "Changelog": f"{self.home}/blob/HEAD/CHANGELOG.md",
            "Security": f"{self.home}/security/policy",
        }

    def file_url(self, path: str, version: str, raw: bool = False) -> str:
        """Return the address of a file of a release; `raw` is for images."""
        return f"{self.home}/{'raw' if raw else 'blob'}/v{version}/{path}"

    def texts(self) -> dict[str, str]:
        """Return the text between the two marks of each file, by the name of the file."""
        return {
            "SECURITY.md": self._security(),
            "CITATION.cff": self._citation(),
            ".github/ISSUE_TEMPLATE/config.yml": self._chooser(),
        }

    def _security(self) -> str:
        ways = []
        if self.contact:
            ways.append(f"Write to <{self.contact}>.")
        if self.home:
            ways.append(f"Report it privately on GitHub: <{self.home}/security/advisories/new>.")
        if ways:
            return "\n".join(f"* {way}" for way in ways)
        return (
            "No address for private reports has been published yet. Ask the person or company that gave you this\n"
            "software for one; do not describe the vulnerability in a public place."
        )

    def _citation(self) -> str:
        lines = ["authors:", '  - name: "The yolact-deploy developers"']
        if self.owner:
            lines.append(f"  - name: {_quoted(self.owner)}")
        if self.home:
            lines.append(f'repository-code: "{self.home}"')
        return "\n".join(lines)

    def _chooser(self) -> str:
        if not self.home:
            return "blank_issues_enabled: true"
        return (
            "blank_issues_enabled: true\n"
            "contact_links:\n"
            "  - name: Vulnerability\n"
            f"    url: {self.home}/security/policy\n"
            "    about: Please report it privately, as SECURITY.md says."
        )


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def read_publisher(root: Path = ROOT) -> Publisher:
    """Read the table.

    Raises:
        PublisherError: A value is invalid.
    """
    document = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    table = document.get("tool", {}).get("yolact-deploy", {}).get("publisher", {})
    names = set(Publisher.__dataclass_fields__)
    if set(table) != names or not all(isinstance(value, str) for value in table.values()):
        raise PublisherError(f"{TABLE} must have the strings {', '.join(sorted(names))}; found {table}")
    if table["owner"] != " ".join(table["owner"].split()) or not table["owner"].isprintable():
        raise PublisherError(f"owner in {TABLE} must be a name on one line, found {table['owner']!r}")
    if table["home"] and not _HOME.fullmatch(table["home"]):
        raise PublisherError(f"home in {TABLE} must be https://github.com/OWNER/NAME or empty, found {table['home']!r}")
    if table["contact"] and not _CONTACT.fullmatch(table["contact"]):
        raise PublisherError(f"contact in {TABLE} must be an e-mail address or empty, found {table['contact']!r}")
    return Publisher(**table)


def filled(text: str, said: str) -> str:
    """Put a text between the two marks of a file, which are comments with ``publisher`` and ``/publisher``.

    Raises:
        PublisherError: The marks are missing.
    """
    marks = re.compile(r"(^(?:<!--|#) publisher\b.*\n)(?:.*\n)*?((?:<!--|#) /publisher\b)", re.MULTILINE)
    made, count = marks.subn(lambda found: f"{found[1]}{said}\n{found[2]}", text)
    if count != 1:
        raise PublisherError("a comment 'publisher' and a comment '/publisher' must each stand on one line")
    return made


def stale_files(publisher: Publisher, root: Path = ROOT) -> dict[Path, str]:
    """Return the files that do not match the table, with the content that they should have.

    Raises:
        PublisherError: A file has lost its marks.
    """
    stale = {}
    for name, said in publisher.texts().items():
        path = root / name
        text = path.read_text(encoding="utf-8")
        try:
            made = filled(text, said)
        except PublisherError as error:
            raise PublisherError(f"{name}: {error}") from None
        if made != text:
            stale[path] = made
    readme = root / "README.md"
    text = readme.read_text(encoding="utf-8")
    if publisher.home and _UNKNOWN_HOME in text:
        stale[readme] = text.replace(_UNKNOWN_HOME, publisher.home)
    return stale


def main(arguments: list[str] | None = None) -> int:
    """Update the files, or list stale ones with ``--check``; return 1 if there are any, 2 for an invalid table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with status 1 if something would change"
    )
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        stale = stale_files(read_publisher(options.root), options.root)
    except PublisherError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for path, text in stale.items():
        print(f"{'differs' if options.check else 'written'}: {path.relative_to(options.root)}")
        if not options.check:
            path.write_text(text, encoding="utf-8")
    if stale and options.check:
        print("make publisher writes them")
    return int(options.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
