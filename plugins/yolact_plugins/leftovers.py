"""Hidden names of what is not finished, and what killed processes have left under them.

A name is ``.NAME.TOKEN.KIND``, with the name that it will have and 16 random hexadecimal digits. Whoever makes it holds
its lock (:mod:`yolact_plugins.locks`), so one that nobody holds belongs to a process that is gone. Where the file
system has no locks nobody can know, and leftovers stay.
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
"""Kinds: a file, a folder, and a folder that made room for the next one and is put back if that never came."""
_NAME_BYTES = 160
"""Of a name in a hidden one: a name may have 255, and ours are longer than the one that was asked for."""
_EARLIER_NAME_BYTES, _EARLIER_STEM_BYTES = 200, 180
"""The same of earlier releases, for files and for videos."""
_HIDDEN = re.compile(r"\.(.+)\.([0-9a-f]{16}|[0-9]{1,7})\.(tmp|partial|earlier)(\.[0-9A-Za-z]{1,8})?", re.DOTALL)
_NO_NAME = "/"
_SCRATCH = re.compile(r"yolact-[a-z]+-[0-9a-f]{16}")
_VIDEO_SUFFIXES = (".mp4", ".webm")
_ENTRIES_A_CALL = 256
"""A folder is read again once this times the calls since exceeds its entries, so a call costs about as much as this."""
_MAX_FOLDERS = 64


@dataclass
class _Seen:
    """What was found in a folder when it was read last."""

    num_entries: int
    hidden: dict[str, list[str]] = field(default_factory=dict)
    num_calls: int = 0


_seen: dict[str, _Seen] = {}
_seen_lock = threading.Lock()


def hidden_path(path: Path, kind: str, suffix: str = "") -> Path:
    """A new hidden name beside `path`, which nobody else has.

    Args:
        path: What it is to become.
        kind: :data:`FILE`, :data:`FOLDER` or :data:`EARLIER`.
        suffix: Appended, for programs that go by it.
    """
    return path.with_name(f".{_short(path.name)}.{secrets.token_hex(8)}.{kind}{suffix}")


def hidden_folders(path: Path, kinds: Collection[str] = (FOLDER, EARLIER)) -> list[Path]:
    """The hidden folders beside a folder, whoever holds them: new ones, and those that made room for a new one.

    One of :data:`EARLIER` beside a folder that is missing says that its replacement is under way, which lasts for an
    instant on file systems that cannot exchange two names, or was killed then; the next writer puts it back.

    Args:
        path: The folder, which need not be there.
        kinds: :data:`FOLDER` and :data:`EARLIER`, or one of them.
    """
    matches = {name: _HIDDEN.fullmatch(name) for name in _leftovers_of(path, fresh=True)}
    return sorted(path.parent / name for name, match in matches.items() if match and match[3] in kinds)


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes have left of `path`; put back what made room for a `path` that never came.

    What another process holds stays, and so does what cannot be removed. Names of earlier releases have a process id
    instead of a random one: they are leftovers when no such process runs here.

    Reading a folder takes long where there are many files, so a large one is not read for each of them again.
    """
    for name in _leftovers_of(path):
        _settle(path.parent / name, path)


def written_name(name: str) -> str:
    """The name that a hidden one is to become, or its beginning where it is long; other names as they are."""
    match = _HIDDEN.fullmatch(name)
    return match[1] if match else name


def remove_leftovers_in(folder: Path) -> None:
    """:func:`remove_leftovers` of all files of a folder that belongs to this project alone, such as a bundle."""
    for names in list(_read(folder, fresh=True).hidden.values()):
        for name in names:
            match = _HIDDEN.fullmatch(name)
            if match and match[3] == FILE:
                _settle(folder / name, folder / match[1])


def remove_scratch(folder: Path) -> None:
    """Remove scratch folders (``yolact-PURPOSE-TOKEN``) of this user that nobody holds, such as in ``/tmp``."""
    for name in _read(folder).hidden.get(_NO_NAME, ()):
        place = folder / name
        with contextlib.suppress(OSError):
            if place.lstat().st_uid == os.geteuid():
                _remove_unheld(place)


def _short(name: str) -> str:
    """A name, or where it is long its beginning and a hash of it. Characters stay whole: OpenCV takes UTF-8 only."""
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
        # Earlier releases had the stem alone.
        stem = _cut(path.stem, _EARLIER_STEM_BYTES)
        names += [name for name in hidden.get(stem, ()) if _process_of(name) and name.endswith(_VIDEO_SUFFIXES)]
    return list(dict.fromkeys(names))


def _process_of(name: str) -> int:
    """The process that a name of an earlier release has; 0 for our names."""
    match = _HIDDEN.fullmatch(name)
    return int(match[2]) if match and len(match[2]) < 16 else 0


def _read(folder: Path, fresh: bool = False) -> _Seen:
    """The hidden names in a folder: read now, or in large ones a while ago."""
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
        except OSError:  # whoever writes there will be told
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
        # Without locks too: a folder that is missing is worse than the swap that it may belong to, which tries again.
        if try_lock(descriptor) is not Lock.TAKEN and leads_to(place, descriptor):
            place.rename(path)
    finally:
        os.close(descriptor)


def _remove_unheld(place: Path) -> None:
    """Remove a file or folder whose lock nobody holds.

    Whoever makes one locks it a moment later. If the lock is ours by then, the maker finds that it is not his, and
    takes another name; so nothing is removed that is in use.
    """
    mode = place.lstat().st_mode
    if stat.S_ISDIR(mode):
        descriptor = open_folder(place, follow=False)
    elif stat.S_ISREG(mode):
        # NFS locks only what is open for writing.
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
        # Ours are not called so: it is of a container that is gone, where everything has the same few numbers.
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
