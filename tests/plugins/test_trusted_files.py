"""Who may have written what is executed. Facts of other users' files come from a seam and, for root, from real ones."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import stat
import threading
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from yolact_plugins import trusted_files
from yolact_plugins.errors import UntrustedFileError
from yolact_plugins.trusted_files import (
    cache_home,
    check_trusted,
    private_folder,
    read_regular,
    read_trusted,
    write_private,
)

ME, EVE, GROUP = 4242, 4343, 5151


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """``root/a/b/file``, which only its owner may write."""
    folder = tmp_path / "root" / "a" / "b"
    folder.mkdir(parents=True)
    for place in (folder, folder.parent, folder.parent.parent):
        place.chmod(0o755)
    path = folder / "file"
    path.write_bytes(b"code")
    path.chmod(0o644)
    return path


def read(file: Path) -> bytes:
    check_trusted(file, file.parents[2], "an engine is")
    return read_trusted(file, file.parents[2], "an engine is")


def refused(file: Path, message: str) -> None:
    for ask in (read_trusted, check_trusted):
        with pytest.raises(UntrustedFileError, match=message):
            ask(file, file.parents[2], "an engine is")


class Facts:
    """What the system says of files, users and groups, instead of this machine's own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.owner, self.group, self.mode, self.euid = ME, GROUP, 0o755, ME
        self.users = [("me", ME, GROUP), ("eve", EVE, 6161), ("root", 0, 0)]
        self.groups: dict[int, tuple[str, list[str]]] = {GROUP: ("me", []), 6161: ("eve", []), 0: ("root", [])}
        self.access_list = False
        monkeypatch.setattr(trusted_files, "_fstat", self._fstat)
        monkeypatch.setattr(trusted_files, "_euid", lambda: self.euid)
        monkeypatch.setattr(trusted_files, "_has_access_list", lambda descriptor: self.access_list)
        monkeypatch.setattr(pwd, "getpwall", self._entries)
        monkeypatch.setattr(pwd, "getpwuid", lambda uid: self._entry(uid))
        monkeypatch.setattr(grp, "getgrgid", self._members)

    def _fstat(self, descriptor: int) -> os.stat_result:
        found = os.fstat(descriptor)
        mode = stat.S_IFMT(found.st_mode) | self.mode
        return os.stat_result((mode, *found[1:4], self.owner, self.group, *found[6:]))

    def _entries(self) -> list[pwd.struct_passwd]:
        return [pwd.struct_passwd((name, "x", uid, gid, "", "/", "/bin/sh")) for name, uid, gid in self.users]

    def _entry(self, uid: int) -> pwd.struct_passwd:
        found = [entry for entry in self._entries() if entry.pw_uid == uid]
        if not found:
            raise KeyError(uid)
        return found[0]

    def _members(self, gid: int) -> grp.struct_group:
        name, members = self.groups[gid]
        return grp.struct_group((name, "x", gid, members))


@pytest.fixture
def facts(monkeypatch: pytest.MonkeyPatch) -> Facts:
    return Facts(monkeypatch)


# --- what is read -----------------------------------------------------------------------------------------------------


def test_a_file_that_only_its_owner_may_write(file: Path) -> None:
    assert read(file) == b"code"
    assert read_trusted(file, file.parent, "an engine is") == b"code"


def test_a_root_that_is_a_link_is_what_somebody_named(file: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(file.parents[2])
    root = tmp_path / "link"
    assert read_trusted(root / "a" / "b" / "file", root, "an engine is") == b"code"


def test_what_is_missing_is_named_whole(file: Path, tmp_path: Path) -> None:
    for path in (file.with_name("none"), file.parent / "no" / "file", tmp_path / "root" / "no"):
        with pytest.raises(FileNotFoundError) as raised:
            read_trusted(path, tmp_path / "root", "an engine is")
        assert str(raised.value.filename).startswith(str(tmp_path / "root"))
    with pytest.raises(FileNotFoundError):
        read_trusted(tmp_path / "none" / "file", tmp_path / "none", "an engine is")
    for below in (file / "below", file / "deep" / "below"):
        # What is no folder is named, be it on the way or the root; it was not opened as one.
        for root in (file.parents[2], file):
            with pytest.raises(NotADirectoryError) as refusal:
                read_trusted(below, root, "an engine is")
            assert refusal.value.filename == str(file)


@pytest.mark.parametrize("path", ["..", "a/../../x", ""])
def test_paths_lead_down(file: Path, path: str) -> None:
    root = file.parents[2]
    with pytest.raises(ValueError, match="is not below"):
        read_trusted(root / path, root, "an engine is")
    with pytest.raises(ValueError, match="is not in the subpath of"):
        read_trusted(Path("/etc/passwd"), root, "an engine is")


# --- who owns and who may write ---------------------------------------------------------------------------------------


@given(st.integers(0, 0o7777), st.sampled_from([ME, EVE, 0]), st.sampled_from([ME, 0]), st.booleans(), st.booleans())
@examples(200)
def test_the_rule(mode: int, owner: int, euid: int, private: bool, listed: bool) -> None:
    """For a folder and a file of the same facts, over everything that a file can say of itself."""
    with pytest.MonkeyPatch.context() as patch:
        facts = Facts(patch)
        facts.mode, facts.owner, facts.euid, facts.access_list = mode, owner, euid, listed
        facts.group = GROUP if private else 6161
        descriptor = os.open("/", os.O_RDONLY)
        try:
            own_group = {ME: private, EVE: not private, 0: False}[owner]
            expected = owner in {euid, 0} and not mode & 0o002 and (not mode & 0o020 or (own_group and not listed))
            if expected:
                trusted_files._judge(descriptor, Path("/x"), "an engine is")
            else:
                with pytest.raises(UntrustedFileError):
                    trusted_files._judge(descriptor, Path("/x"), "an engine is")
        finally:
            os.close(descriptor)


@pytest.mark.parametrize("level", range(4))
def test_the_file_and_every_folder_up_to_the_root_are_asked(file: Path, level: int) -> None:
    place = [file, *file.parents][level]
    place.chmod(place.stat().st_mode | 0o002)
    refused(file, rf"^{place} belongs to .* and has mode 0\d+: it can be written by every user .*chmod go-w {place}$")


def test_folders_above_the_root_are_not(file: Path) -> None:
    file.parents[3].chmod(0o1777)
    assert read(file) == b"code"
    file.parents[3].chmod(0o700)


def test_somebody_elses_file_comes_with_the_command_that_makes_it_ones_own(file: Path, facts: Facts) -> None:
    facts.owner = EVE
    refused(
        file,
        rf"root belongs to eve \(uid {EVE}\) and has mode 0755; an engine is executable code, which is used only if it "
        rf"belongs to me \(uid {ME}\), who would run it, or to root\. .*: chown me /.*root$",
    )
    facts.euid = 0
    refused(file, r"belongs to root \(uid 0\), who would run it.*: chown root ")
    facts.owner = 0
    assert read(file) == b"code"
    facts.euid = ME
    assert read(file) == b"code"


def test_users_without_a_name(file: Path, facts: Facts) -> None:
    facts.users, facts.groups = [], {}
    facts.owner = EVE
    refused(file, rf"belongs to uid {EVE} .* to uid {ME}, who .*: chown {ME} ")
    facts.owner, facts.mode = ME, 0o775
    refused(file, rf"written by the group with gid {GROUP}, ")
    # In a container that knows neither user nor group, a private group has its owner's number.
    facts.group = ME
    assert read(file) == b"code"
    facts.users = [("eve", EVE, ME)]
    refused(file, "written by the group")
    # Where one of the two is known, the other one is another machine's.
    facts.users = [("me", ME, ME)]
    refused(file, "written by the group")
    facts.users, facts.groups = [], {ME: ("me", [])}
    refused(file, "written by the group")


GROUPS: dict[str, Callable[[Facts], object]] = {
    "another member": lambda facts: facts.groups.update({GROUP: ("me", ["me", "eve"])}),
    "a user's main group": lambda facts: facts.users.append(("mallory", 7, GROUP)),
    "a group of many": lambda facts: facts.groups.update({GROUP: ("users", [])}),
    "not the owner's": lambda facts: setattr(facts, "group", 6161),
    "a list of users": lambda facts: setattr(facts, "access_list", True),
}


@pytest.mark.parametrize("change", GROUPS.values(), ids=GROUPS)
def test_a_group_that_is_the_owners_alone_and_one_that_is_not(
    file: Path, facts: Facts, change: Callable[[Facts], object]
) -> None:
    facts.mode = 0o775
    assert read(file) == b"code"
    facts.groups[GROUP] = ("me", ["me"])
    assert read(file) == b"code"
    change(facts)
    refused(file, r"mode 0775: it can be written by the group .*chmod go-w ")


def test_an_access_list_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert trusted_files._has_access_list(descriptor) is False
        # Version 2; owner rw, the user EVE rw, group r, mask rw, others r.
        entries = [(1, 6, 2**32 - 1), (2, 6, EVE), (4, 4, 2**32 - 1), (16, 6, 2**32 - 1), (32, 4, 2**32 - 1)]
        packed = b"".join(
            tag.to_bytes(2, "little") + p.to_bytes(2, "little") + i.to_bytes(4, "little") for tag, p, i in entries
        )
        try:
            os.setxattr(path, "system.posix_acl_access", (2).to_bytes(4, "little") + packed)
        except OSError:  # a file system without such lists has none to see
            assert not trusted_files._has_access_list(descriptor)
        else:
            assert trusted_files._has_access_list(descriptor)
            assert path.stat().st_mode & 0o020
    finally:
        os.close(descriptor)


# --- links, pipes, exchanges ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", range(3))
def test_links_below_the_root_are_not_followed(file: Path, tmp_path: Path, level: int) -> None:
    place = [file, *file.parents][level]
    elsewhere = place.rename(tmp_path / "elsewhere")
    place.symlink_to(elsewhere)
    refused(file, rf"^{place} is a link, and .*: cp -r --remove-destination {elsewhere} {place}$")
    place.unlink()
    place.symlink_to("loop")
    (place.parent / "loop").symlink_to(place.name)
    refused(file, "is a link")


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_is_no_file_is_refused_and_nothing_waits_for_it(
    file: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        file.touch()
        really = os.fstat
        null = Path("/dev/null").stat()
        monkeypatch.setattr(
            trusted_files, "_fstat", lambda fd: really(fd) if stat.S_ISDIR(really(fd).st_mode) else null
        )
    refused(file, r"file is not a regular file, and an engine is read from regular files only$")
    if kind != "device":
        with pytest.raises(OSError, match=r"it is not a regular file|Is a directory") as raised:
            read_regular(file)
        assert raised.value.filename == str(file)


def test_a_signed_file_is_read_whoever_may_write_it(file: Path, tmp_path: Path) -> None:
    file.chmod(0o666)
    (tmp_path / "link").symlink_to(file)
    assert read_regular(file) == read_regular(tmp_path / "link") == b"code"
    with pytest.raises(OSError, match="it is not a regular file"):
        read_regular(Path("/dev/zero"))


def test_a_folder_that_is_exchanged_between_check_and_read(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever names point to once a folder was opened, what is read lies in the folder that was checked."""
    evil = tmp_path / "evil"
    evil.mkdir()
    (evil / "file").write_bytes(b"evil")
    really = trusted_files._judge

    def exchange(descriptor: int, place: Path, subject: str) -> None:
        really(descriptor, place, subject)
        if place == file.parent:
            file.parent.rename(tmp_path / "moved")
            file.parent.symlink_to(evil)

    monkeypatch.setattr(trusted_files, "_judge", exchange)
    assert read_trusted(file, file.parents[2], "an engine is") == b"code"


def test_a_file_that_is_exchanged_between_check_and_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really = trusted_files._judge

    def exchange(descriptor: int, place: Path, subject: str) -> None:
        really(descriptor, place, subject)
        if place == file:
            evil = file.with_name("evil")
            evil.write_bytes(b"evil")
            evil.replace(file)

    monkeypatch.setattr(trusted_files, "_judge", exchange)
    assert read_trusted(file, file.parents[2], "an engine is") == b"code"


def test_whoever_swaps_all_the_time_gets_nothing_in(file: Path, tmp_path: Path) -> None:
    """A thread exchanges the folder and a link to another one as fast as it can."""
    evil, spare, stop = tmp_path / "evil", tmp_path / "spare", threading.Event()
    shutil.copytree(file.parent, evil)
    (evil / "file").write_bytes(b"evil")

    def swap() -> None:
        while not stop.is_set():
            file.parent.rename(spare)
            file.parent.symlink_to(evil)
            file.parent.unlink()
            spare.rename(file.parent)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(300):
            try:
                assert read_trusted(file, file.parents[2], "an engine is") == b"code"
            except (FileNotFoundError, NotADirectoryError, UntrustedFileError):
                continue
    finally:
        stop.set()
        thread.join()
    assert read(file) == b"code"


def test_nothing_stays_open(file: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    read(file)
    read_regular(file)
    private_folder(file.parent)
    file.chmod(0o666)
    refused(file, "chmod go-w")
    file.unlink()
    file.symlink_to("/etc/passwd")
    refused(file, "is a link")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_an_error_without_a_number_stays_what_it_is() -> None:
    with pytest.raises(OSError, match=r"^odd$"), trusted_files._named(Path("x")):
        raise OSError("odd")


# --- with real users, where this process may become one ---------------------------------------------------------------


def as_user(uid: int, work: Callable[[], str]) -> str:
    """What `work` returns in a child process of another user, or the traceback of what it raises."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 warns of threads at a fork; this child does not touch what they may hold.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            said = work()
        except BaseException:
            said = traceback.format_exc()
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    return said


def asked(file: Path) -> str:
    try:
        return read(file).decode()
    except UntrustedFileError as error:
        return f"refused: {error}"


def open_to_all(file: Path) -> None:
    """pytest's folders are for their owner alone; another user has to get there to be refused."""
    for folder in file.parents:
        if folder.stat().st_uid == os.geteuid() and not folder.stat().st_mode & 0o001 and len(folder.parts) > 2:
            folder.chmod(folder.stat().st_mode | 0o011)


def test_real_users(file: Path) -> None:
    """As root: files of root and of two users, read by each. As anybody else: one's own."""
    assert asked(file) == "code"
    if os.geteuid() != 0:
        return  # whoever is not root has no file of others to be refused
    open_to_all(file)
    assert as_user(ME, lambda: asked(file)) == "code"
    os.chown(file, EVE, EVE)
    assert "belongs to uid 4343" in as_user(ME, lambda: asked(file))
    assert as_user(EVE, lambda: asked(file)) == "code"
    assert asked(file).startswith(f"refused: {file} belongs to uid 4343")
    assert asked(file).endswith(f"chown root {file}")
    file.chmod(0o664)
    assert as_user(EVE, lambda: asked(file)) == "code"
    os.chown(file, EVE, 4344)
    assert "written by the group with gid 4344" in as_user(EVE, lambda: asked(file))


# --- folders of caches ------------------------------------------------------------------------------------------------


def test_a_private_folder_is_made_and_checked(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "kernels"
    before = os.umask(0)
    try:
        assert private_folder(folder) == folder
        write_private(folder / "file", b"code")
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "file").stat().st_mode & 0o777 == 0o600
    assert read_trusted(folder / "file", folder, "what is kept is") == b"code"
    assert private_folder(folder) == folder
    folder.chmod(0o777)
    with pytest.raises(UntrustedFileError, match=rf"what is kept there is executable code.*chmod go-w {folder}$"):
        private_folder(folder)
    with pytest.raises(UntrustedFileError):
        write_private(folder / "file", b"other")
    assert (folder / "file").read_bytes() == b"code"


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    for path in (tmp_path / "cache", tmp_path / "cache" / "deeper"):
        with pytest.raises(OSError, match="cache"):
            private_folder(path)


@pytest.mark.parametrize("named", ["", "relative"])
def test_where_caches_are_unless_it_is_said(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", named)
    assert cache_home() == Path.home() / ".cache"


def test_a_user_without_a_home_has_caches_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As in a container: no HOME, and a number that no list of users has."""

    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.setattr(trusted_files, "_passed_over", set())
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.setattr("os.geteuid", lambda: 23456)
    assert cache_home() == cache_home() == Path("/nonexistent/.cache")
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "user 23456 has no home folder" in caplog.text
    assert "Set HOME, or XDG_CACHE_HOME" in caplog.text
    # What is said needs no home.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(trusted_files, "_passed_over", set())
    caplog.clear()
    assert cache_home() == tmp_path
    assert not caplog.records


def test_a_place_for_caches_that_every_user_may_write_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trusted_files, "_passed_over", set())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_home() == tmp_path
    tmp_path.chmod(0o777)
    assert cache_home() == cache_home() == Path.home() / ".cache"
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert f"XDG_CACHE_HOME is {tmp_path}, which every user of this machine may write (mode 0777)" in caplog.text
    assert f"chmod o-w {tmp_path}" in caplog.text
    tmp_path.chmod(0o1777)
    assert cache_home() == tmp_path
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "not there yet"))
    assert cache_home() == tmp_path / "not there yet"
