"""A model file whose bytes were read once: those that were checked are those that a library loads."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from yolact_runtime.model.onnx_metadata import metadata_of, read_onnx
from yolact_runtime.model.onnx_tensors import require_own_tensors

__all__ = ["ModelFile"]


@dataclass(frozen=True)
class ModelFile:
    """An ONNX model, or another file of a bundle, with what it holds.

    Attributes:
        path: Where it was read, for people; nothing is read there again.
        content: All of it. It takes as much memory as the file is long, for as long as this object lives.
    """

    path: Path
    content: bytes = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> ModelFile:
        """Read a lone ONNX model, which nothing vouches for.

        Raises:
            BundleError: It cannot be read, is not an ONNX model, or has tensors in other files.
        """
        return cls.of_onnx(path, read_onnx(path))

    @classmethod
    def of_onnx(cls, path: Path, content: bytes) -> ModelFile:
        """An ONNX model from its bytes.

        Raises:
            BundleError: It is not an ONNX model, or has tensors in other files.
        """
        require_own_tensors(content, path)
        return cls(path, content)

    @property
    def suffix(self) -> str:
        """Of the path, such as ``".onnx"``."""
        return self.path.suffix

    def metadata(self) -> dict[str, str]:
        """Key -> value of the metadata properties of an ONNX model.

        Raises:
            BundleError: It is not one.
        """
        return metadata_of(self.content, self.path)
