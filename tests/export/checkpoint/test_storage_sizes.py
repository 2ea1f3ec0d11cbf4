"""A storage that claims another size than its record has is damage, also where the checksums fit."""

from __future__ import annotations

import pickle
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from yolact_export.checkpoint import storage_sizes
from yolact_export.checkpoint.file import read_pickle
from yolact_export.checkpoint.storage_sizes import find_long_name, find_wrong_size
from yolact_export.errors import CheckpointError

TENSORS = {
    "float": torch.arange(300, dtype=torch.float32),
    "half": torch.ones(257, dtype=torch.float16),
    "brain": torch.ones(258, dtype=torch.bfloat16),
    "long": torch.arange(260),
    "bool": torch.ones(261, dtype=torch.bool),
    "complex": torch.ones(262, dtype=torch.complex64),
    "view": torch.arange(1000.0)[300:600].view(10, 30),
    "empty": torch.zeros(0),
}


def saved(folder: Path, tensors: object = None) -> Path:
    path = folder / "model.pth"
    torch.save(TENSORS if tensors is None else tensors, path)
    return path


def with_pickle(source: Path, target: Path, change: dict[bytes, bytes]) -> Path:
    """A copy with other bytes in its pickle, and checksums that fit."""
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, "w") as copy:
        for name in archive.namelist():
            content = archive.read(name)
            if name.endswith("/data.pkl"):
                for old, new in change.items():
                    assert old in content
                    content = content.replace(old, new, 1)
            copy.writestr(name, content)
    return target


def test_items_are_as_large_as_in_torch() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch would rather have none of these classes
        typed = [name for name in storage_sizes._ITEM_BYTES if name != "UntypedStorage"]
        sizes = {name: getattr(torch, name).dtype.itemsize for name in typed}
    assert {**sizes, "UntypedStorage": 1} == {**storage_sizes._ITEM_BYTES}
    assert len(sizes) > 12


def test_sound_files_pass(tmp_path: Path) -> None:
    path = saved(tmp_path)
    assert find_wrong_size(path) == ""
    found = read_pickle(path, [])
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    assert find_wrong_size(saved(tmp_path, {"state_dict": model.state_dict(), "epoch": 3})) == ""
    untyped = torch.arange(10.0).untyped_storage()
    assert find_wrong_size(saved(tmp_path, {"storage": untyped})) == ""


def _binint2(value: int) -> bytes:
    return b"M" + value.to_bytes(2, "little")


@pytest.mark.parametrize("claimed", [299, 301, 304, 400])
def test_a_storage_of_another_size_than_its_record(tmp_path: Path, claimed: int) -> None:
    """Nothing but the size differs: the values behind the record would be taken for weights."""
    path = with_pickle(saved(tmp_path), tmp_path / "wrong.pth", {_binint2(300): _binint2(claimed)})
    with pytest.raises(
        CheckpointError,
        match=rf'damaged: the pickle claims {4 * claimed} bytes for the record ".*/data/0", which has 1200',
    ):
        read_pickle(path, [])


def test_a_storage_of_another_type(tmp_path: Path) -> None:
    path = with_pickle(saved(tmp_path), tmp_path / "wrong.pth", {b"HalfStorage": b"IntStorage"})
    with pytest.raises(CheckpointError, match=r"claims 1028 bytes for the record .* which has 514"):
        read_pickle(path, [])


def test_nothing_of_the_pickle_is_run(tmp_path: Path) -> None:
    """The content is a call of os.mkdir."""
    touched = tmp_path / "touched"
    pickled = b"cos\nmkdir\n(V" + str(touched).encode() + b"\ntR."
    pickle.loads(pickled)
    touched.rmdir()
    path = saved(tmp_path)
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(tmp_path / "evil.pth", "w") as copy:
        for name in archive.namelist():
            copy.writestr(name, pickled if name.endswith("/data.pkl") else archive.read(name))
    assert find_wrong_size(tmp_path / "evil.pth") == ""
    assert not touched.exists()


def test_a_number_in_the_memo_takes_no_memory(tmp_path: Path) -> None:
    """The unpickler in C makes a memo as long as the largest number in it."""
    path = tmp_path / "memo.pth"
    path.write_bytes(b"\x80\x02Nr" + (1 << 24).to_bytes(4, "little") + b".")
    tracemalloc.start()
    try:
        assert find_long_name(path) == ""
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_name_that_would_keep_torch_busy_for_hours(tmp_path: Path, zipped: bool) -> None:
    """Torch's words about a class that it refuses take time with the square of the length of its name."""
    pickled = b"\x80\x02c" + b"m" * 1_000_000 + b"\nf\n)R."
    if zipped:
        path = saved(tmp_path)
        with zipfile.ZipFile(path) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            path = with_pickle(path, tmp_path / "long.pth", {archive.read(name): pickled})
    else:
        path = tmp_path / "long.pth"
        torch.save(TENSORS, path, _use_new_zipfile_serialization=False)
        with path.open("rb") as file:
            head = b"".join(pickle.dumps(pickle.load(file), 2) for _ in range(3))
        path.write_bytes(head + pickled)
    with pytest.raises(CheckpointError, match="names a class or function with 1000001 characters"):
        read_pickle(path, [])


@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
@examples(150)
def test_whatever_changes_in_the_pickle_raises_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, place: float, value: int
) -> None:
    folder = tmp_path_factory.mktemp("pickles")
    path = saved(folder)
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        content = bytearray(archive.read(name))
    old = bytes(content)
    content[int(place * len(content))] = value
    changed = with_pickle(path, folder / "changed.pth", {old: bytes(content)})
    assert isinstance(find_wrong_size(changed), str)
    try:
        found = read_pickle(changed, [])
    except CheckpointError:
        return
    if isinstance(found, dict):
        tensors = {k: v for k, v in found.items() if isinstance(v, torch.Tensor)}
        assert all(tensor.untyped_storage().nbytes() <= 4000 for tensor in tensors.values())
