"""Timing caches on disk. Their content needs a GPU; where they lie and who may write them does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.recorder import Recorder
from yolact_export.engine.api import configure, timing_cache_blob
from yolact_export.engine.options import EngineOptions
from yolact_export.engine.timing_cache import (
    default_folder,
    read_timing_cache,
    timing_cache_path,
    write_timing_cache,
)
from yolact_runtime.backends.tensorrt_library import TensorRtLibrary, load_tensorrt
from yolact_runtime.errors import UntrustedFileError

FACTS = {
    "library": "tensorrt",
    "library_version": "10.3.0",
    "gpu": "Orin (nvgpu)",
    "compute_capabilities": "8.7",
    "cuda_version": "12.6",
    "arch": "aarch64",
}


def test_a_cache_comes_back_for_the_same_device_and_tensorrt_only(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "timing"
    assert read_timing_cache(folder, FACTS) == b""
    path = write_timing_cache(folder, FACTS, b"timings")
    assert read_timing_cache(folder, FACTS) == b"timings"
    assert path.name.startswith("tensorrt-10.3.0-Orin_nvgpu_-")
    assert path.stat().st_mode & 0o777 == 0o600
    for key in FACTS:
        assert read_timing_cache(folder, FACTS | {key: "other"}) == b""
    assert [path.name for path in folder.iterdir()] == [path.name]


@pytest.mark.parametrize("place", ["file", "folder"])
def test_a_cache_that_others_may_write_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    path = write_timing_cache(tmp_path / "timing", FACTS, b"timings")
    changed = path if place == "file" else path.parent
    changed.chmod(0o777)
    assert read_timing_cache(path.parent, FACTS) == b""
    assert "the timing cache is not used: " in caplog.text
    assert f"chmod go-w {changed}" in caplog.text
    told = Recorder()
    assert read_timing_cache(path.parent, FACTS, told) == b""
    assert len(told.warnings) == 1
    if place == "folder":
        with pytest.raises(UntrustedFileError):
            write_timing_cache(path.parent, FACTS, b"other")


def test_a_cache_that_is_a_link_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_timing_cache(tmp_path / "timing", FACTS, b"timings")
    path.symlink_to(path.rename(tmp_path / "elsewhere"))
    assert read_timing_cache(path.parent, FACTS) == b""
    assert f"{path} is a link" in caplog.text


def test_the_folder_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert timing_cache_path(default_folder(), FACTS).parent == tmp_path / "yolact-deploy" / "timing"
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert default_folder() == Path.home() / ".cache" / "yolact-deploy" / "timing"


def test_rtx_has_no_timing_cache() -> None:
    library = load_tensorrt("rtx")
    builder = library.module.Builder(library.logger)
    config = configure(library, builder, EngineOptions("rtx"), b"")
    assert timing_cache_blob(library, config) is None


class _Cache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content


class _Config:
    """Records what is set, as the full TensorRT cannot be had without a GPU; it refuses the cache of another device."""

    def __init__(self) -> None:
        self.cache: _Cache | None = None
        self.flags: list[object] = []
        self.cleared: list[object] = []

    def create_timing_cache(self, content: bytes) -> _Cache:
        return _Cache(content)

    def set_timing_cache(self, cache: _Cache, ignore_mismatch: bool) -> bool:
        assert ignore_mismatch is False
        if cache.content == b"of another device":
            return False
        self.cache = cache
        return True

    def get_timing_cache(self) -> _Cache | None:
        return self.cache

    def set_flag(self, flag: object) -> None:
        self.flags.append(flag)

    def clear_flag(self, flag: object) -> None:
        self.cleared.append(flag)


class _Builder:
    def __init__(self) -> None:
        self.config = _Config()

    def create_builder_config(self) -> _Config:
        return self.config


@pytest.mark.parametrize(
    ("given", "used"), [(b"timings", b"timings"), (b"", b""), (b"of another device", b""), (None, None)]
)
def test_tensorrt_gets_the_cache_unless_it_is_of_another_device(given: bytes | None, used: bytes | None) -> None:
    # The enumerations are the real ones; only the configuration is a recorder.
    library = TensorRtLibrary("tensorrt", load_tensorrt("rtx").module)
    config = configure(library, _Builder(), EngineOptions("tensorrt", version_compatible=True), given)
    assert timing_cache_blob(library, config) == used
    names = library.module.BuilderFlag
    assert config.flags == [names.VERSION_COMPATIBLE, names.EXCLUDE_LEAN_RUNTIME]
    assert config.cleared == [names.TF32]
