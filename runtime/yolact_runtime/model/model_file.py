"""A model file whose bytes are read once, so that the checked bytes are the loaded bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from yolact_runtime.model.onnx_metadata import metadata_of, read_onnx
from yolact_runtime.model.onnx_tensors import require_own_tensors

__all__ = ["ModelFile"]


@dataclass(frozen=True)
class ModelFile:
    """The content of an ONNX model, or of another file of a bundle.

    Attributes:
        path: Path it was read from, for messages; it is not read again.
        content: Content of the whole file, which stays in memory as long as this object.
    """

    path: Path
    content: bytes = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> ModelFile:
        """Read a single ONNX model that no manifest or signature covers.

        Raises:
            BundleError: The file cannot be read, is not an ONNX model, or has tensors in other files.
        """
        return cls.of_onnx(path, read_onnx(path))

    @classmethod
    def of_onnx(cls, path: Path, content: bytes) -> ModelFile:
        """Create an ONNX model from its bytes.

        Raises:
            BundleError: The bytes are not an ONNX model, or it has tensors in other files.
        """
        require_own_tensors(content, path)
        return cls(path, content)

    @property
    def suffix(self) -> str:
        """Suffix of the path, such as ``".onnx"``."""
        return self.path.suffix

    def metadata(self) -> dict[str, str]:
        """Read the metadata properties of an ONNX model.

        Raises:
            BundleError: The content is not an ONNX model.
        """
        return metadata_of(self.content, self.path)
