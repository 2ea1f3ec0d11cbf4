from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from support.properties import examples
from yolact_calibration.training.torch_file import check_torch_file

CONTENT = {"first": torch.arange(7.0), "empty": torch.zeros(0), "second": torch.ones(40, 3)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "x.pth"
    torch.save(CONTENT, path)
    return path


@pytest.fixture
def no_checksums() -> Iterator[None]:
    torch.serialization.set_crc32_options(False)
    yield
    torch.serialization.set_crc32_options(True)


def data_of(path: Path, record: str) -> tuple[int, int]:
    """Where the bytes of a record lie: from, to."""
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        (info,) = (info for info in archive.infolist() if info.filename.endswith(record))
        start = content.index(archive.read(info), info.header_offset)
    return start, start + info.file_size


def flip(path: Path, position: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def test_a_file_as_it_was_written_is_right(path: Path) -> None:
    check = check_torch_file(path)
    assert (check.damage, check.has_checksums, check.is_compressed) == ("", True, False)
    assert "x/data.pkl" in check.names


@pytest.mark.parametrize(
    ("record", "part"),
    [
        ("/data.pkl", 'the record "x/data.pkl" has the CRC-32'),
        ("/data/0", 'the record "x/data/0" (tensor first) has the CRC-32'),
        ("/data/2", 'the record "x/data/2" (tensor second) has the CRC-32'),
        ("/byteorder", 'the record "x/byteorder" has the CRC-32'),
        ("/version", 'the record "x/version" has the CRC-32'),
    ],
)
def test_the_damaged_record_and_its_tensor_are_named(record: str, part: str, path: Path) -> None:
    flip(path, data_of(path, record)[0])
    damage = check_torch_file(path).damage
    assert part in damage
    assert "; 1 of 9 records differ" in damage


def test_forty_flips_in_the_values_are_all_found(path: Path) -> None:
    start, end = data_of(path, "/data/2")
    source, content = random.Random(0), path.read_bytes()
    for _ in range(40):
        path.write_bytes(content)
        flip(path, source.randrange(start, end), source.randrange(8))
        assert "(tensor second)" in check_torch_file(path).damage


@examples(60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True))
def test_a_file_that_was_cut_off_is_damaged(place: float, path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: max(int(place * len(content)), 4)])
    assert check_torch_file(path).damage
    path.write_bytes(content)


def test_a_record_that_is_marked_as_a_folder_is_damage(path: Path) -> None:
    """torch would give what its memory held before."""
    content = path.read_bytes()
    entry = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 1)
    flip(path, entry + 38, 4)
    assert "is marked as a folder" in check_torch_file(path).damage


def test_a_file_without_checksums_says_so(no_checksums: None, tmp_path: Path) -> None:
    torch.save(CONTENT, tmp_path / "x.pth")
    check = check_torch_file(tmp_path / "x.pth")
    assert (check.damage, check.has_checksums) == ("", False)
    assert check.names


def test_some_zero_checksums_among_right_ones_are_damage(path: Path) -> None:
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        (info,) = (info for info in archive.infolist() if info.filename.endswith("/data/2"))
    checksum = info.CRC.to_bytes(4, "little")
    assert content.count(checksum) >= 1
    path.write_bytes(content.replace(checksum, bytes(4)))
    assert "the file says 00000000; 1 of 9 records differ" in check_torch_file(path).damage


def test_an_empty_record_has_the_checksum_zero(tmp_path: Path) -> None:
    torch.save({"empty": torch.zeros(0), "zeros": torch.zeros(50)}, tmp_path / "x.pth")
    assert check_torch_file(tmp_path / "x.pth").damage == ""
    assert check_torch_file(tmp_path / "x.pth").has_checksums


@pytest.mark.parametrize("content", [b"", b"PK", b"hello", bytes(100)])
def test_a_file_of_another_format_has_no_checksums(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    check = check_torch_file(tmp_path / "x.pth")
    assert (check.damage, check.has_checksums, check.names) == ("", False, ())


def test_the_format_before_torch_1_6_has_no_checksums(tmp_path: Path) -> None:
    torch.save(CONTENT, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    assert not check_torch_file(tmp_path / "x.pth").has_checksums


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_file_that_was_packed_again_is_checked_too(compression: int, path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name.replace("x/", "größer/", 1), old.read(name))
    path.write_bytes(packed.getvalue())
    check = check_torch_file(path)
    assert (check.damage, check.has_checksums) == ("", True)
    assert check.is_compressed == (compression == zipfile.ZIP_DEFLATED)
    start, end = data_of(path, "/version") if compression == zipfile.ZIP_STORED else (60, 61)
    flip(path, end - 1 if compression == zipfile.ZIP_STORED else start)
    assert check_torch_file(path).damage


@examples(100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300))
def test_any_bytes_have_a_verdict(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(b"PK\x03\x04" + content)
    assert check_torch_file(tmp_path / "x.pth").damage


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        check_torch_file(tmp_path / "none")
