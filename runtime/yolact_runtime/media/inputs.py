"""The inputs of a command line: files, folders and patterns, classified as images, videos and archives by content."""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from yolact_runtime.formats import file_format as formats
from yolact_runtime.formats.file_format import FileKind
from yolact_runtime.formats.file_probe import FileProbe, expected_kind, probe_file, why_not_regular
from yolact_runtime.media.patterns import expand_pattern, is_folder

__all__ = ["Inputs", "find_inputs"]


@dataclass(frozen=True)
class Inputs:
    """The inputs named on a command line, in order, with folders and patterns sorted by name.

    Attributes:
        images: Files to read as images.
        videos: Files to read as videos, including animated GIF and PNG.
        failures: Words that match nothing, with the reason.
        left_out: Sentences that count the excluded files, one for each kind.
        archives: NumPy archives, if they were requested.
    """

    images: tuple[Path, ...]
    videos: tuple[Path, ...]
    failures: tuple[tuple[str, str], ...]
    left_out: tuple[str, ...] = ()
    archives: tuple[Path, ...] = ()


def find_inputs(words: Iterable[str], *, archives: bool = False) -> Inputs:
    """Find the files that words name, by reading the first bytes of every file.

    A file that is named directly is used whatever it is: its reader reports what is wrong with it. In folders (without
    sub-folders) and patterns, files that are neither images nor videos by content or by name are excluded and counted,
    and so are hidden files, leftovers of macOS and file managers, and further names of an included file. Only regular
    files are ever opened.

    Args:
        words: Words of the command line.
        archives: Whether to include NumPy archives (``.npz``).
    """
    search = _Search(archives)
    for word in words:
        search.look_for(word)
    return search.finish()


_ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")
_CAMERA = re.compile(r"\d{1,3}|-|/dev/(video|media|v4l).*")
_LIVE = (
    "live frames go through yolact_runtime.Segmenter in a program of your own, and yolact-bench --images camera:N "
    "opens a camera by its number"
)
_LEFT_BEHIND = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", ".ds_store", "icon\r"})
_FOLDERS_LEFT_BEHIND = frozenset({"@eaDir", ".thumbnails", ".Trashes", "#recycle"})
# Singular and plural.
_APPLE_DOUBLES = ("AppleDouble companion", "AppleDouble companions")
_PREVIEWS = ("file of previews or folder settings", "files of previews or folder settings")
_HIDDEN = ("hidden file", "hidden files")
_OTHERS = ("that is neither image nor video", "that are neither image nor video")
_ARCHIVES = ("NumPy archive", "NumPy archives")
_SECOND_NAMES = ("further name of a file that is already included", "further names of files that are already included")
_SPECIAL = ("that is not a regular file", "that are not regular files")
_UNREADABLE = ("that cannot be opened", "that cannot be opened")


@dataclass
class _Search:
    """The files found so far."""

    wants_archives: bool
    found: dict[FileKind, list[Path]] = field(default_factory=lambda: {kind: [] for kind in FileKind})
    failures: list[tuple[str, str]] = field(default_factory=list)
    left_out: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    sub_folders: dict[str, int] = field(default_factory=dict)
    passed_over: list[str] = field(default_factory=list)
    identities: set[tuple[int, int]] = field(default_factory=set)
    # Text, because a Path is slow to hash.
    paths: set[str] = field(default_factory=set)

    def look_for(self, word: str) -> None:
        """Add the files that a word names."""
        if not word:
            self.failures.append((word, "an empty name: is a shell variable not set?"))
            return
        try:
            mode = Path(word).stat().st_mode
        except (OSError, ValueError) as error:
            self._look_for_missing(word, error)
            return
        if stat.S_ISDIR(mode):
            self._look_into(word)
        elif reason := why_not_regular(mode):
            is_device = stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
            self.failures.append((word, f"{reason}; {_LIVE}" if is_device else reason))
        else:
            self._take_named(Path(word))

    def finish(self) -> Inputs:
        """Return everything found, and sentences on excluded files."""
        sentences = []
        if self.left_out:
            count = sum(map(len, self.left_out.values()))
            kinds = ", ".join(_kind_words(kind, names) for kind, names in self.left_out.items())
            sentences.append(f"{count} {'file is' if count == 1 else 'files are'} left out: {kinds}")
        for folder, count in self.sub_folders.items():
            what = (
                "1 sub-folder is not searched; name it"
                if count == 1
                else (f"{count} sub-folders are not searched; name them")
            )
            sentences.append(f'{folder}: {what}, or use the pattern "{_below(folder)}"')
        sentences += self.passed_over
        images, videos, archives = (self.found[kind] for kind in (FileKind.IMAGE, FileKind.VIDEO, FileKind.ARCHIVE))
        return Inputs(tuple(images), tuple(videos), tuple(self.failures), tuple(sentences), tuple(archives))

    def _look_for_missing(self, word: str, error: Exception) -> None:
        if glob.has_magic(word):
            self._look_through(word)
        elif _ADDRESS.match(word) or _CAMERA.fullmatch(word):
            self.failures.append((word, f"it is not a file, folder or pattern, and only these are read here; {_LIVE}"))
        elif isinstance(error, FileNotFoundError) and Path(word).is_symlink():
            self.failures.append((word, f"it is a link to {Path(word).readlink()}, which does not exist"))
        else:
            self.failures.append((word, getattr(error, "strerror", None) or str(error)))

    def _look_into(self, folder: str) -> None:
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            self.failures.append((folder, error.strerror or str(error)))
            return
        parent, num_used, num_folders = Path(folder), 0, 0
        left = _left_folder(parent)
        for entry in entries:
            if is_folder(entry):
                num_folders += 1
            else:
                is_regular = entry.is_file(follow_symlinks=False)
                reason = left or _left_behind(entry.name, wants_hidden=False)
                num_used += self._take_found(parent / entry.name, reason, is_regular=is_regular)
        if num_folders:
            self.sub_folders[folder] = num_folders
        if not num_used:
            self.failures.append((folder, "the folder contains no image or video"))

    def _look_through(self, pattern: str) -> None:
        matches = expand_pattern(pattern)
        paths = matches.paths
        wants_hidden = Path(pattern).name.startswith(".")
        self.failures += [(str(folder), reason) for folder, reason in sorted(matches.unreadable.items())]
        for folders, what in ((matches.hidden, "hidden folder"), (matches.links, "link to a folder")):
            if folders:
                self.passed_over.append(_passed_over(pattern, sorted(folders), what))
        if not paths:
            self.failures.append((pattern, "no file matches this pattern"))
            return
        reasons = [_left_folder(path.parent) or _left_behind(path.name, wants_hidden) for path in paths]
        if not sum([self._take_found(path, reason) for path, reason in zip(paths, reasons, strict=True)]):
            self.failures.append((pattern, "no file that matches this pattern is an image or a video"))

    def _take_named(self, path: Path) -> None:
        """Add a file that was named directly; if unreadable, it is an image, whose reader reports the reason."""
        suffix = path.suffix.lower()
        try:
            probe = probe_file(path, suffix)
        except OSError:
            self._add(path, expected_kind(suffix) or FileKind.IMAGE)
            return
        kind = self._kind(probe, suffix) or FileKind.IMAGE
        self.identities.add(probe.identity)
        self._add(path, kind)

    def _take_found(self, path: Path, left: tuple[str, str] | None, *, is_regular: bool = False) -> bool:
        """Include or exclude a file of a folder or pattern; return True if it is used, by this word or an earlier one.

        Args:
            path: Path of the file.
            left: Reason to exclude the file whatever it is, or None.
            is_regular: Whether the folder's listing says that it is a regular file.
        """
        if str(path) in self.paths:
            return True
        if left:
            return self._leave_out(left, path)
        suffix = path.suffix.lower()
        try:
            probe = probe_file(path, suffix, is_regular)
        except OSError:
            # A broken link, a loop of links, or an unreadable file: its reader reports the same error.
            kind = expected_kind(suffix)
            return self._add(path, kind) if kind else self._leave_out(_UNREADABLE, path)
        kind = self._kind(probe, suffix)
        if kind is None:
            return self._leave_out(_reason(probe), path)
        if probe.identity in self.identities:
            self._leave_out(_SECOND_NAMES, path)
            return True
        self.identities.add(probe.identity)
        return self._add(path, kind)

    def _kind(self, probe: FileProbe, suffix: str) -> FileKind | None:
        kind = probe.kind(suffix)
        return None if kind is FileKind.ARCHIVE and not self.wants_archives else kind

    def _add(self, path: Path, kind: FileKind) -> bool:
        if str(path) not in self.paths:
            self.paths.add(str(path))
            self.found[kind].append(path)
        return True

    def _leave_out(self, reason: tuple[str, str], path: Path) -> bool:
        self.left_out.setdefault(reason, []).append(path.name)
        return False


def _left_behind(name: str, wants_hidden: bool) -> tuple[str, str] | None:
    if name.startswith("._"):
        return _APPLE_DOUBLES
    if name.lower() in _LEFT_BEHIND:
        return _PREVIEWS
    return _HIDDEN if name.startswith(".") and not wants_hidden else None


def _left_folder(folder: Path) -> tuple[str, str] | None:
    if "__MACOSX" in folder.parts:
        return _APPLE_DOUBLES
    return None if _FOLDERS_LEFT_BEHIND.isdisjoint(folder.parts) else _PREVIEWS


def _reason(probe: FileProbe) -> tuple[str, str]:
    if probe.not_regular:
        return _SPECIAL
    if probe.file_format is formats.APPLE_DOUBLE:
        return _APPLE_DOUBLES
    return _ARCHIVES if probe.file_format is formats.NUMPY_ARCHIVE else _OTHERS


def _kind_words(kind: tuple[str, str], names: Sequence[str]) -> str:
    one, many = kind
    return f"1 {one} ({names[0]})" if len(names) == 1 else f"{len(names)} {many} ({names[0]} first)"


def _passed_over(pattern: str, folders: Sequence[Path], what: str) -> str:
    if len(folders) == 1:
        return f"{pattern}: 1 {what} ({folders[0]}) is not searched; name it"
    many = what.replace("link to a folder", "links to folders").replace("hidden folder", "hidden folders")
    return f"{pattern}: {len(folders)} {many} ({folders[0]} first) are not searched; name them"


def _below(folder: str) -> str:
    return str(Path(glob.escape(folder)) / "**")
