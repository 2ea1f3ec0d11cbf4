"""A bundle that is exchanged while it is read is the old one or the new one, whole."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.scenes import Thing, small_manifest, write_bundle
from yolact_plugins.leftovers import EARLIER, hidden_path
from yolact_runtime import Segmenter, open_bundle
from yolact_runtime.errors import BundleError
from yolact_runtime.model import bundle_exchange
from yolact_runtime.model.bundle import MANIFEST_NAME, read_manifest
from yolact_runtime.model.bundle_exchange import AbsentError, earlier_bundles, read_whole
from yolact_runtime.model.bundle_folder import WATCHED, BundleFolder

# Exchanges two bundles, as often as it is told to. "whole": by the kernel, in one step. "renames": the name is absent
# in between. "new": each time a copy comes, and the folder that was there goes, as an export does it.
_WRITER = """
import ctypes, os, shutil, sys
place, other, how, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
libc = ctypes.CDLL(None, use_errno=True)
folder, name = os.path.split(place)
partial, earlier = (f"{folder}/.{name}.{os.getpid()}.{end}" for end in ("partial", "earlier"))
def exchange(one, two):
    if libc.renameat2(-100, one.encode(), -100, two.encode(), 2):
        raise OSError(ctypes.get_errno(), "renameat2")
def renames(one, two):
    os.rename(two, earlier)
    os.rename(one, two)
    os.rename(earlier, one)
os.rename(other, partial)
print("begins", flush=True)
for number in range(count):
    if how == "new":
        shutil.copytree(place, partial + "2")
        exchange(partial, place)
        shutil.rmtree(partial)
        os.rename(partial + "2", partial)
    else:
        (exchange if how == "whole" else renames)(partial, place)
"""


def _two_bundles(tmp_path: Path) -> tuple[Path, Path]:
    """They differ in everything: manifest, network, precision of what they see."""
    made = []
    for number in range(2):
        manifest = small_manifest()
        things = [Thing((0.1 * number, 0.25, 0.75, 0.75))] * (1 + number)
        folder = write_bundle(tmp_path / f"made{number}", things, manifest)
        made.append(folder)
    return made[0], made[1]


def _contents(folder: Path) -> tuple[bytes, bytes]:
    return (folder / MANIFEST_NAME).read_bytes(), (folder / "model.fp32.onnx").read_bytes()


def _read(folder: Path) -> tuple[bytes, bytes]:
    """Both files by the door, the second one as late as it gets."""

    def read() -> tuple[bytes, bytes]:
        with BundleFolder(folder) as opened:
            return opened.content, opened.model("model.fp32.onnx").content

    return read_whole(folder, WATCHED, read)


@pytest.mark.parametrize(("how", "count"), [("whole", 4000), ("renames", 4000), ("new", 60)])
def test_a_reader_sees_one_of_the_two(tmp_path: Path, how: str, count: int) -> None:
    place, other = _two_bundles(tmp_path)
    whole = {_contents(place), _contents(other)}
    assert len({manifest for manifest, _ in whole}) == len({network for _, network in whole}) == 2
    words = [sys.executable, "-c", _WRITER, str(place), str(other), how, str(count)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "begins\n"
        num_read = 0
        while writer.poll() is None:
            assert _read(place) in whole
            assert open_bundle(place).network.content in {network for _, network in whole}
            num_read += 1
    assert writer.returncode == 0
    assert num_read > 0


def test_a_segmenter_opens_while_its_bundle_is_exchanged(tmp_path: Path) -> None:
    place, other = _two_bundles(tmp_path)
    words = [sys.executable, "-c", _WRITER, str(place), str(other), "renames", "4000"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        while writer.poll() is None:
            Segmenter.open(place).close()
    assert writer.returncode == 0


# --- when it is read again --------------------------------------------------------------------------------------------


def _failing(folder: Path, change: Callable[[int], None]) -> Callable[[], int]:
    """An attempt that changes something and fails, thrice."""
    attempts = []

    def attempt() -> int:
        attempts.append(None)
        if len(attempts) > 3:
            return len(attempts)
        change(len(attempts))
        raise BundleError(f"attempt {len(attempts)}")

    return attempt


def test_what_did_not_change_is_not_read_again(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b", [])
    with pytest.raises(BundleError, match="attempt 1"):
        read_whole(folder, WATCHED, _failing(folder, lambda _: None))
    with pytest.raises(BundleError, match="attempt 1"):
        read_whole(tmp_path / "missing", WATCHED, _failing(folder, lambda _: None))
    # A file that nobody watches.
    with pytest.raises(BundleError, match="attempt 1"):
        read_whole(folder, WATCHED, _failing(folder, lambda n: (folder / f"{n}").write_bytes(b"")))  # type: ignore[arg-type,func-returns-value]


@pytest.mark.parametrize("name", WATCHED)
def test_a_file_that_was_replaced_makes_it_another_bundle(tmp_path: Path, name: str) -> None:
    folder = write_bundle(tmp_path / "b", [])

    def replace(number: int) -> None:
        (folder / "new").write_bytes(b"x" * number)
        (folder / "new").replace(folder / name)

    assert read_whole(folder, WATCHED, _failing(folder, replace)) == 4


def test_a_folder_that_was_exchanged_makes_it_another_bundle(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b", [])

    def exchange(number: int) -> None:
        copy = Path(shutil.copytree(folder, tmp_path / "copy", copy_function=os.link))  # the same files in another one
        shutil.rmtree(folder)
        copy.rename(folder)

    assert read_whole(folder, WATCHED, _failing(folder, exchange)) == 4


def test_a_bundle_that_always_changes_is_given_up(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b", [])
    attempts = []

    def attempt() -> None:
        attempts.append(None)
        (folder / MANIFEST_NAME).write_bytes(b"x" * len(attempts))
        raise BundleError("again")

    with pytest.raises(BundleError, match="again"):
        read_whole(folder, WATCHED, attempt)
    assert len(attempts) == 50


def test_a_name_that_is_absent_is_waited_for_while_it_is_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = write_bundle(tmp_path / ".b.0123456789abcdef.earlier", [])
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            earlier.rename(tmp_path / "b")

    monkeypatch.setattr(bundle_exchange.time, "sleep", pause)
    assert read_manifest(tmp_path / "b").class_names
    assert len(pauses) == 3


@pytest.mark.parametrize("missing", ["", MANIFEST_NAME])
def test_a_name_that_is_absent_again_after_it_was_the_same_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """Absent for the attempt, the same folder again when it is compared, and absent for the next look."""
    folder, earlier = write_bundle(tmp_path / "b", []), tmp_path / ".b.0123456789abcdef.earlier"
    compare = bundle_exchange._Look.has_changed

    def has_changed(look: bundle_exchange._Look) -> bool:
        changed = compare(look)
        folder.rename(earlier)
        return changed

    monkeypatch.setattr(bundle_exchange._Look, "has_changed", has_changed)
    monkeypatch.setattr(bundle_exchange.time, "sleep", lambda _: earlier.rename(folder))
    assert read_whole(folder, WATCHED, _absent(folder / missing)) == 2


def test_a_file_that_is_not_in_the_bundle_is_not_waited_for(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b", [])
    with pytest.raises(AbsentError):
        read_whole(folder, WATCHED, _absent(folder / "missing.onnx"))
    assert read_whole(folder, WATCHED, _absent(folder / MANIFEST_NAME)) == 2
    (tmp_path / "elsewhere").touch()
    assert read_whole(folder, WATCHED, _absent(tmp_path / "elsewhere")) == 2


def _absent(path: Path) -> Callable[[], int]:
    """An attempt that does not find something, once."""
    attempts = []

    def attempt() -> int:
        attempts.append(None)
        if len(attempts) == 1:
            raise AbsentError("not there", path)
        return len(attempts)

    return attempt


def test_it_is_not_waited_for_where_nobody_exchanges_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pause(seconds: float) -> None:
        raise AssertionError("nothing is under way")

    monkeypatch.setattr(bundle_exchange.time, "sleep", pause)
    for name in (
        ".a.0123456789abcdef.earlier",
        ".bb.0123456789abcdef.partial",
        "b.0123456789abcdef.partial",
        ".b.0123456789abcdef.tmp",
        ".b",
    ):
        write_bundle(tmp_path / name, [])
    for read in (read_manifest, open_bundle, Segmenter.open):
        with pytest.raises(AbsentError):
            read(tmp_path / "b")


def test_a_writer_that_was_stopped_is_named_with_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**6))
    monkeypatch.setattr(bundle_exchange.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(bundle_exchange.time, "sleep", lambda _: None)
    earlier = write_bundle(tmp_path / ".b.0123456789abcdef.earlier", [])
    assert earlier_bundles(tmp_path / "b") == [earlier]
    with pytest.raises(
        AbsentError, match=r"its writer was stopped, and the earlier one is .*/\.b\.0123456789abcdef\.earlier.* mv "
    ):
        open_bundle(tmp_path / "b")


def test_siblings_of_a_link_are_those_of_the_folder_that_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "b")
    earlier = write_bundle(tmp_path / "elsewhere" / ".b.12345.earlier", [])
    assert earlier_bundles(tmp_path / "link") == [earlier]


def test_the_earlier_bundle_of_a_long_name_is_found_by_the_name_that_its_writer_gave_it(tmp_path: Path) -> None:
    """Hidden names are as long as file systems let them be, so that a long one is shortened."""
    path = tmp_path / ("n" * 230 + ".bundle")
    earlier = hidden_path(path, EARLIER)
    earlier.mkdir()
    assert earlier_bundles(path) == [earlier]
    assert not earlier_bundles(path.with_name("n" * 200))
