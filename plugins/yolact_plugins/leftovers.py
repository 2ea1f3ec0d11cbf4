"""Hidden names of unfinished files and folders, and removal of those that killed processes left behind.

A hidden name is ``.NAME.TOKEN.KIND``: the final name, 16 random hexadecimal digits, and the kind. The process that
creates such a file holds its lock (:mod:`yolact_plugins.locks`), so an unlocked one belongs to a process that has
ended. On a file system without locks this cannot be known, and leftovers stay.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import stat
import threading
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from yolact_plugins.locks import Lock, leads_to, open_folder, try_lock

__all__ = [
    "EARLIER",
    "FILE",
    "FOLDER",
    "hidden_folders",
    "hidden_path",
    "remove_leftovers",
    "remove_leftovers_in",
    "remove_scratch",
    "written_name",
]

FILE, FOLDER, EARLIER = "tmp", "partial", "earlier"
"""Kinds of hidden names: a file, a folder, and an earlier folder that is restored if its replacement never arrives."""
_NAME_BYTES = 160
"""Maximum number of bytes of the final name in a hidden name.

A name may have 255, and hidden names are longer than final ones.
"""
_EARLIER_NAME_BYTES, _EARLIER_STEM_BYTES = 200, 180
"""Cost of a call in directory entries: a folder is read again after (number of entries) / (this) calls."""
_HIDDEN = re.compile(r"\.(.+)\.([0-9a-f]{16}|[0-9]{1,7})\.(tmp|partial|earlier)(\.[0-9A-Za-z]{1,8})?", re.DOTALL)
_NO_NAME = "/"
_SCRATCH = re.compile(r"yolact-[a-z]+-[0-9a-f]{16}")
_VIDEO_SUFFIXES = (".mp4", ".webm")
_ENTRIES_A_CALL = 256
"""A folder is read again once this times the calls since exceeds its entries, so a call costs about as much as this."""
_MAX_FOLDERS = 64


@dataclass
class _Seen:
    """Hidden names found in a folder when it was last read."""

    num_entries: int
    hidden: dict[str, list[str]] = field(default_factory=dict)
    num_calls: int = 0


_seen: dict[str, _Seen] = {}
_seen_lock = threading.Lock()


def hidden_path(path: Path, kind: str, suffix: str = "") -> Path:
    """Return a new, unique hidden path beside `path`.

    Args:
        path: The final path of the file or folder.
        kind: :data:`FILE`, :data:`FOLDER` or :data:`EARLIER`.
        suffix: File name suffix to append, for programs that depend on it.
    """
    return path.with_name(f".{_short(path.name)}.{secrets.token_hex(8)}.{kind}{suffix}")


def hidden_folders(path: Path, kinds: Collection[str] = (FOLDER, EARLIER)) -> list[Path]:
    """List the hidden folders beside a folder, locked or not: new ones, and earlier ones that made room for a new one.

    An :data:`EARLIER` folder beside a missing folder means that its replacement is in progress (which takes an instant,
    on file systems that cannot exchange two names) or was killed at that point; the next writer restores it.

    Args:
        path: The folder, which need not exist.
        kinds: The kinds to list: :data:`FOLDER`, :data:`EARLIER` or both.
    """
    matches = {name: _HIDDEN.fullmatch(name) for name in _leftovers_of(path, fresh=True)}
    return sorted(path.parent / name for name, match in matches.items() if match and match[3] in kinds)


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes left of `path`, and restore an earlier `path` whose replacement never arrived.

    Files that another process has locked stay, and so do those that cannot be removed. Names of earlier releases
    contain a process id instead of a random number; they are leftovers if no such process runs here.

    Reading a large folder is slow, so it is not read again for each of its files.
    """
    for name in _leftovers_of(path):
        _settle(path.parent / name, path)


def written_name(name: str) -> str:
    """Return the final name for a hidden name (only its beginning if it is long); return other names unchanged."""
    match = _HIDDEN.fullmatch(name)
    return match[1] if match else name


def remove_leftovers_in(folder: Path) -> None:
    """Call :func:`remove_leftovers` for all files of a folder that only this project writes, such as a bundle."""
    for names in list(_read(folder, fresh=True).hidden.values()):
        for name in names:
            match = _HIDDEN.fullmatch(name)
            if match and match[3] == FILE:
                _settle(folder / name, folder / match[1])


def remove_scratch(folder: Path) -> None:
    """Remove unlocked scratch folders (``yolact-PURPOSE-TOKEN``) of this user from a folder such as ``/tmp``."""
    for name in _read(folder).hidden.get(_NO_NAME, ()):
        place = folder / name
        with contextlib.suppress(OSError):
            if place.lstat().st_uid == os.geteuid():
                _remove_unheld(place)


def _short(name: str) -> str:
    """Shorten a long name to its beginning and a hash, without cutting characters: OpenCV takes UTF-8 only."""
    if len(os.fsencode(name)) <= _NAME_BYTES:
        return name
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    return f"{_cut(name, _NAME_BYTES)}~{digest}"


def _cut(name: str, num_bytes: int) -> str:
    while len(os.fsencode(name)) > num_bytes:
        name = name[:-1]
    return name


def _leftovers_of(path: Path, *, fresh: bool = False) -> list[str]:
    hidden = _read(path.parent, fresh).hidden
    names = list(hidden.get(_short(path.name), ()))
    shortened = os.fsdecode(os.fsencode(path.name)[:_EARLIER_NAME_BYTES])
    names += [name for name in hidden.get(shortened, ()) if _process_of(name)]
    if path.suffix.lower() in _VIDEO_SUFFIXES:
        # Earlier releases used the stem without the suffix.
        stem = _cut(path.stem, _EARLIER_STEM_BYTES)
        names += [name for name in hidden.get(stem, ()) if _process_of(name) and name.endswith(_VIDEO_SUFFIXES)]
    return list(dict.fromkeys(names))


def _process_of(name: str) -> int:
    """Return the process id in a name of an earlier release; 0 for current names."""
    match = _HIDDEN.fullmatch(name)
    return int(match[2]) if match and len(match[2]) < 16 else 0


def _read(folder: Path, fresh: bool = False) -> _Seen:
    """Return the hidden names in a folder; those of large folders may have been read a while ago."""
    key = str(folder.absolute())
    with _seen_lock:
        seen = _seen.get(key)
        if seen is not None and not fresh:
            seen.num_calls += 1
            if seen.num_calls * _ENTRIES_A_CALL < seen.num_entries:
                return seen
        seen = _Seen(0)
        try:
            with os.scandir(folder) as entries:
                names = [entry.name for entry in entries]
        except OSError:  # an attempt to write there will report it
            return seen
        seen.num_entries = len(names)
        for name in names:
            match = _HIDDEN.fullmatch(name)
            if match or _SCRATCH.fullmatch(name):
                seen.hidden.setdefault(match[1] if match else _NO_NAME, []).append(name)
        while len(_seen) >= _MAX_FOLDERS:
            del _seen[next(iter(_seen))]
        _seen[key] = seen
        return seen


def _is_earlier(name: str) -> bool:
    match = _HIDDEN.fullmatch(name)
    return match is not None and match[3] == EARLIER


def _settle(place: Path, path: Path) -> None:
    process = _process_of(place.name)
    if process and _is_running(process):
        return
    with contextlib.suppress(OSError):
        if _is_earlier(place.name) and not os.path.lexists(path):
            _put_back(place, path)
        else:
            _remove_unheld(place)


def _put_back(place: Path, path: Path) -> None:
    descriptor = open_folder(place, follow=False)
    try:
        # Restored without a lock, too: a missing folder is worse than disturbing a concurrent swap, which tries again.
        if try_lock(descriptor) is not Lock.TAKEN and leads_to(place, descriptor):
            place.rename(path)
    finally:
        os.close(descriptor)


def _remove_unheld(place: Path) -> None:
    """Remove a file or folder that is not locked.

    A process that creates one locks it a moment later. If this function holds the lock by then, the creator notices and
    takes another name, so nothing in use is removed.
    """
    mode = place.lstat().st_mode
    if stat.S_ISDIR(mode):
        descriptor = open_folder(place, follow=False)
    elif stat.S_ISREG(mode):
        # NFS locks only files that are open for writing.
        descriptor = os.open(place, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    else:
        return
    try:
        if try_lock(descriptor) is not Lock.HELD or not leads_to(place, descriptor):
            return
        if stat.S_ISDIR(mode):
            shutil.rmtree(place, ignore_errors=True)
        else:
            place.unlink()
    finally:
        os.close(descriptor)


def _is_running(process: int) -> bool:
    if process == os.getpid():
        # Current names contain no process id, so this one comes from a container that is gone; containers reuse small
        # ids.
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
