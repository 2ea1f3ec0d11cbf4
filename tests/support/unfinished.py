"""Files that still break the rules of CONTRIBUTING.md's "Words": ``unfinished.txt``, which may only get shorter.

``python tests/support/unfinished.py`` writes it anew, without what is clean now; it adds nothing.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.docstrings import fragments_of
from support.words import ROOT, avoided_phrases, checked_files, hits_in, pattern_of

LIST = Path(__file__).with_suffix(".txt")


def unfinished(kind: str) -> set[Path]:
    """Return the files that are listed for ``docstrings`` or for ``words``."""
    lines = [line.split() for line in LIST.read_text(encoding="utf-8").splitlines()]
    return {ROOT / folder / name for its_kind, folder, *names in lines if its_kind == kind for name in names}


def _remaining(kind: str) -> list[Path]:
    if kind == "docstrings":
        return sorted(path for path in unfinished(kind) if path.exists() and fragments_of(path))
    pattern = pattern_of(avoided_phrases((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))
    return sorted(path for path in unfinished(kind) & set(checked_files()) if hits_in(path, pattern))


def main() -> None:
    """Write the list anew."""
    lines = []
    for kind in ("docstrings", "words"):
        names = defaultdict(list)
        for path in _remaining(kind):
            names[path.parent.relative_to(ROOT)].append(path.name)
        lines += [" ".join([kind, str(folder), *files]) + "\n" for folder, files in names.items()]
    LIST.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
