"""Reading of files whose content will be executed: once, and only if no other user could have written them.

Engines, compiled kernels, and TensorRT's caches are code, or decide which code runs. One rule applies to all of them:
the file, and every folder from it up to the folder that the caller named, belongs to this user or to root and is not
writable by others. The rule is checked on the opened file itself, no link is followed below that folder, and the
returned bytes are those of that same file, so replacing a name in between has no effect.

A group-writable folder is accepted if the group is its owner's own and has no other member, which is Ubuntu's default.
Access-control lists are respected. Folders above the named one are not checked: their owners can move folders, but
cannot create one that belongs to this user.

Caches of data (calibration, observations, latencies) hold numbers that are validated when they are read, and are
exempt.
"""

from __future__ import annotations

import errno
import logging
import os
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from yolact_plugins.errors import UntrustedFileError
from yolact_plugins.files import write_atomically
from yolact_plugins.text import printable

__all__ = [
    "cache_home",
    "check_trusted",
    "home_folder",
    "private_folder",
    "read_regular",
    "read_trusted",
    "write_private",
]

_log = logging.getLogger(__name__)
# Opening a pipe without a writer would block forever; it is rejected once it is open.
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
_WRITE_BITS = stat.S_IWGRP | stat.S_IWOTH
_ACCESS_LIST = "system.posix_acl_access"
_NO_HOME = "/nonexistent"
"""The home of users without one, by Debian's policy. Only root could create it."""
_passed_over: set[str] = set()


def read_trusted(path: Path, root: Path, subject: str) -> bytes:
    """Read a file whose content will be executed, if only its owner and root could have written it.

    Args:
        path: The file, below `root`.
        root: The folder that the caller named: a bundle or a cache. It may itself be a link; nothing below it may be.
        subject: Subject and verb for the message, such as ``"an engine is"``.

    Returns:
        The whole content of the file that was checked.

    Raises:
        UntrustedFileError: Others own, or may write, the file or a folder from it up to `root`; it is a link or lies
            behind one; or it is not a regular file. The message states the path, its owner and mode, and what to type.
        FileNotFoundError: The file does not exist.
        OSError: The file cannot be read; the error contains its name.
    """
    with _opened(path, root, subject) as descriptor, _named(path):
        return _content(descriptor)


def check_trusted(path: Path, root: Path, subject: str) -> None:
    """Check a file like :func:`read_trusted` without reading it: for files that are checked again when they are read.

    Raises:
        UntrustedFileError, OSError: The same as for :func:`read_trusted`.
    """
    with _opened(path, root, subject):
        pass


def read_regular(path: Path) -> bytes:
    """Read a file that will be compared with a signed hash, whatever its owner. Links are followed, pipes are rejected.

    Raises:
        OSError: The file does not exist, cannot be read, or is not a regular file; the error contains its name.
    """
    with _named(path):
        descriptor = os.open(path, _READ)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file")
            return _content(descriptor)
        finally:
            os.close(descriptor)


def private_folder(path: Path) -> Path:
    """Create a folder for code that this user will run, with access for this user only; check an existing one.

    Args:
        path: The folder; missing parents are created, too.

    Returns:
        The same path.

    Raises:
        UntrustedFileError: The folder exists, and others own it or may write it.
        OSError: The folder cannot be created; the error contains its name.
    """
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _folder(path, None, path) as descriptor:
        _judge(descriptor, path, "what is kept there is")
    return path


def write_private(path: Path, content: bytes) -> None:
    """Write a file atomically into a :func:`private_folder`, readable by its owner only, whatever the umask.

    Raises:
        UntrustedFileError: Others own the folder or may write it.
        OSError: The file cannot be written.
    """
    private_folder(path.parent)
    write_atomically(path, content)
    path.chmod(0o600)


def cache_home() -> Path:
    """Return ``$XDG_CACHE_HOME`` if it is an absolute path, else ``~/.cache``.

    A folder in which every user may write and replace files is skipped, with one warning. A sticky folder such as
    ``/tmp``, in which everybody may add but not replace files, is used.

    Raises:
        UsageError: There is no home folder to fall back to.
    """
    named = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification requires that relative paths be ignored.
    if not Path(named).is_absolute():
        return home_folder() / ".cache"
    with suppress(OSError):
        mode = Path(named).stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            usual = home_folder() / ".cache"
            if named not in _passed_over:
                _passed_over.add(named)
                _log.warning(
                    "XDG_CACHE_HOME is %s, which every user of this machine may write (mode %04o); caches of code go "
                    "to %s instead: chmod o-w %s",
                    printable(named),
                    stat.S_IMODE(mode),
                    usual,
                    printable(shlex.quote(named)),
                )
            return usual
    return Path(named)


def home_folder() -> Path:
    """Return the user's home folder; without one, as in a container, return a path that does not exist and warn once.

    A missing cache is not an error: code that would use it finds that it cannot, logs that, and works without.
    """
    try:
        return Path.home()
    except RuntimeError:
        if _NO_HOME not in _passed_over:
            _passed_over.add(_NO_HOME)
            _log.warning(
                "HOME is not set, and user %d has no home folder: results are not cached and are computed "
                "again at the next start. Set HOME, or XDG_CACHE_HOME, to a folder of this user",
                os.geteuid(),
            )
        return Path(_NO_HOME)


@contextmanager
def _opened(path: Path, root: Path, subject: str) -> Iterator[int]:
    """Open a regular file after checking it and every folder up to `root`; yield the descriptor."""
    parts = path.relative_to(root).parts
    if not parts or ".." in parts:
        raise ValueError(f"{path} is not below {root}")
    with _descend(root, parts[:-1], subject) as folder:
        descriptor = _open(parts[-1], folder, path, _READ | os.O_NOFOLLOW)
        try:
            if not stat.S_ISREG(_fstat(descriptor).st_mode):
                raise UntrustedFileError(
                    f"{_shown(path)} is not a regular file, and {subject} read from regular files only"
                )
            _judge(descriptor, path, subject)
            yield descriptor
        finally:
            os.close(descriptor)


@contextmanager
def _descend(root: Path, parts: tuple[str, ...], subject: str) -> Iterator[int]:
    """Open a folder below `root`, checking each folder on the way; yield the descriptor."""
    with _folder(root, None, root) as descriptor:
        _judge(descriptor, root, subject)
        if not parts:
            yield descriptor
            return
        place, held = root, os.dup(descriptor)
        try:
            for name in parts:
                place = place / name
                lower = _open(name, held, place, _READ | os.O_DIRECTORY | os.O_NOFOLLOW)
                os.close(held)
                held = lower
                _judge(held, place, subject)
            yield held
        finally:
            os.close(held)


@contextmanager
def _folder(path: Path, above: int | None, place: Path) -> Iterator[int]:
    descriptor = _open(str(path), above, place, _READ | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open(name: str, folder: int | None, place: Path, flags: int) -> int:
    try:
        with _named(place):
            return os.open(name, flags, dir_fd=folder)
    except OSError as error:
        # A forbidden link causes one of these two errors, depending on whether a folder was requested.
        if flags & os.O_NOFOLLOW and error.errno in {errno.ELOOP, errno.ENOTDIR} and _is_link(name, folder):
            raise UntrustedFileError(
                f"{_shown(place)} is a link, and files to be executed are not read through links: copy there what it "
                f"leads to: cp -r --remove-destination {_word(Path(os.path.realpath(place)))} {_word(place)}"
            ) from error
        raise


def _is_link(name: str, folder: int | None) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _judge(descriptor: int, place: Path, subject: str) -> None:
    """Reject a file or folder that others own or may write."""
    found = _fstat(descriptor)
    user = _euid()
    seen = f"{_shown(place)} belongs to {_user_name(found.st_uid)} and has mode {stat.S_IMODE(found.st_mode):04o}"
    if found.st_uid not in {user, 0}:
        raise UntrustedFileError(
            f"{seen}; {subject} executable code, which is used only if it belongs to {_user_name(user)}, who would run "
            f"it, or to root. If you know where it comes from: chown {_user_name(user, plain=True)} {_word(place)}"
        )
    writers = found.st_mode & _WRITE_BITS
    if not writers & stat.S_IWOTH and (
        not writers or (_is_private_group(found.st_uid, found.st_gid) and not _has_access_list(descriptor))
    ):
        return
    who = "every user of this machine" if writers & stat.S_IWOTH else f"the group {_group_name(found.st_gid)}"
    raise UntrustedFileError(
        f"{seen}: it can be written by {who}, and {subject} executable code. Make sure that its content is yours, "
        f"then: chmod go-w {_word(place)}"
    )


def _fstat(descriptor: int) -> os.stat_result:
    return os.fstat(descriptor)


def _euid() -> int:
    return os.geteuid()


def _is_private_group(owner: int, group: int) -> bool:
    """Return whether a group is the private group of a user, according to this machine's user database."""
    import grp  # Not on every system, and rarely needed.
    import pwd

    others = any(entry.pw_gid == group and entry.pw_uid != owner for entry in pwd.getpwall())
    try:
        user = pwd.getpwuid(owner)
    except KeyError:
        user = None
    try:
        members = grp.getgrgid(group)
    except KeyError:
        members = None
    if user is None and members is None:
        # A container that knows neither: private groups have their owner's number.
        return owner == group and not others
    if user is None or members is None or others:
        return False
    # A directory service lists only some users; a group for everybody does not have one user's name.
    return user.pw_gid == group and members.gr_name == user.pw_name and set(members.gr_mem) <= {user.pw_name}


def _has_access_list(descriptor: int) -> bool:
    """Return whether the group bits are in fact the mask of an access-control list."""
    try:
        os.getxattr(descriptor, _ACCESS_LIST)
    except OSError:
        return False
    return True


def _user_name(uid: int, *, plain: bool = False) -> str:
    import pwd

    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid) if plain else f"uid {uid}"
    return name if plain else f"{name} (uid {uid})"


def _group_name(gid: int) -> str:
    import grp

    try:
        return f"{grp.getgrgid(gid).gr_name} (gid {gid})"
    except KeyError:
        return f"with gid {gid}"


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Put the whole path into file system errors, which name only the last component relative to a descriptor."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def _content(descriptor: int) -> bytes:
    with open(descriptor, "rb", closefd=False) as file:
        return file.read()


def _shown(path: Path) -> str:
    return printable(str(path))


def _word(path: Path) -> str:
    return printable(shlex.quote(str(path)))
