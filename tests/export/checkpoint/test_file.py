"""Files that changed on their way, and files that cannot tell."""

import random
import re
import zipfile
from collections import OrderedDict

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from support.properties import examples
from yolact_export.checkpoint.checkpoint import load_checkpoint
from yolact_export.checkpoint.file import read_checkpoint_file
from yolact_export.errors import CheckpointError

SMALL = OrderedDict(first=torch.arange(9.0), second=torch.ones(4, 5), empty=torch.zeros(0), half=torch.ones(3).half())


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("small") / "model.pth"
    torch.save({"state_dict": SMALL}, path)
    return path.read_bytes()


def same_or_refused(path, content):
    """A damaged file is refused, or gives what the sound one gives."""
    path.write_bytes(content)
    try:
        file = read_checkpoint_file(path)
    except CheckpointError as error:
        assert str(path) in str(error)  # noqa: PT017 - either outcome is right
        return False
    assert list(file.tensors) == list(SMALL)
    assert all(torch.equal(file.tensors[key], value) for key, value in SMALL.items())
    assert all(file.tensors[key].dtype == value.dtype for key, value in SMALL.items())
    assert not any("no checksums" in finding for finding in file.findings)
    return True


@examples(300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_changes_nothing(place, bit, small, tmp_path):
    content = bytearray(small)
    content[int(place * len(content))] ^= 1 << bit
    same_or_refused(tmp_path / "model.pth", content)


@examples(150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), protocol=st.sampled_from([2, 4]))
def test_a_flipped_bit_in_a_file_that_was_packed_again(place, bit, protocol, tmp_path):
    path = tmp_path / "model.pth"
    torch.save({"state_dict": SMALL}, path, pickle_protocol=protocol)
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, values in records.items():
            archive.writestr(name, values)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    same_or_refused(path, content)


@examples(60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused(place, small, tmp_path):
    assert not same_or_refused(tmp_path / "model.pth", small[: int(place * len(small))])


@examples(60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), values=st.binary(min_size=1, max_size=64))
def test_an_overwritten_stretch_is_refused_or_changes_nothing(place, values, small, tmp_path):
    content = bytearray(small)
    start = int(place * len(content))
    content[start : start + len(values)] = values
    same_or_refused(tmp_path / "model.pth", content[: len(small)])


def test_forty_flips_in_the_tensors_of_a_model_are_all_refused(narrow_state, save):
    path = save(narrow_state("yolact_small"), "yolact_small.pth")
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        values = [info for info in archive.infolist() if "/data/" in info.filename and info.file_size > 400]
    source = random.Random(7)
    for info in source.choices(values, k=40):
        damaged = bytearray(content)
        # Past the local header, its name, and the padding to 64 bytes.
        damaged[info.header_offset + 200 + source.randrange(info.file_size - 200)] ^= 1 << source.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint(path)
        message = str(caught.value)
        assert re.search(rf'damaged: the record "{info.filename}" \(tensor [\w.]+\) has the CRC-32 \w{{8}}', message)
        assert "Copy or download the file again" in message


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_without_checksums_loads_and_says_so_once(narrow_state, save, zipped):
    torch.serialization.set_crc32_options(False)
    try:
        path = save(narrow_state("yolact_small"), "yolact_small.pth", zipped=zipped)
    finally:
        torch.serialization.set_crc32_options(True)
    findings = load_checkpoint(path).findings
    assert sum("no checksums in the file" in finding for finding in findings) == 1


def test_a_file_with_checksums_has_nothing_to_say_about_them(narrow_state, save):
    findings = load_checkpoint(save(narrow_state("yolact_small"), "yolact_small.pth")).findings
    assert not any("checksum" in finding for finding in findings)


def test_a_checkpoint_that_was_packed_again_with_compression_loads(narrow_state, save):
    state = narrow_state("yolact_small")
    path = save(state, "yolact_small.pth")
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    model = load_checkpoint(path).model
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
