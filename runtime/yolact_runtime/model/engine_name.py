"""The manifest inside an engine: in the network's name, which every plan has and no tool interprets.

TensorRT accepts names of up to 4095 bytes. A manifest with eighty class names has 2.4 kB as compact JSON; a longer one
is compressed, which suffices for about three hundred names. If it still does not fit, the engine must be opened by its
bundle folder.
"""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import replace

from yolact_runtime.errors import BundleError
from yolact_runtime.model.manifest import Manifest

__all__ = ["MAX_NAME_BYTES", "engine_name", "manifest_from_name"]

MAX_NAME_BYTES = 4095
_COMPRESSED, _TOO_LONG = "yolact-manifest-zlib85:", "yolact-manifest-too-long:"


def engine_name(manifest_json: str) -> str:
    """Create a network name that contains a manifest: ASCII, at most :data:`MAX_NAME_BYTES` long.

    Args:
        manifest_json: Manifest as written by :meth:`yolact_runtime.model.manifest.Manifest.to_json`.

    Raises:
        ManifestError: The text is not a manifest.
    """
    manifest = replace(Manifest.from_json(manifest_json, "the model"), artefacts={})
    plain = json.dumps(json.loads(manifest.to_json()), separators=(",", ":"))
    if len(plain) <= MAX_NAME_BYTES:
        return plain
    compressed = _COMPRESSED + base64.b85encode(zlib.compress(plain.encode(), 9)).decode("ascii")
    return compressed if len(compressed) <= MAX_NAME_BYTES else f"{_TOO_LONG}{len(manifest.class_names)} classes"


def manifest_from_name(name: str, source: str) -> Manifest:
    """Parse the manifest in an engine's name.

    Args:
        name: Name of the deserialised engine.
        source: Path of the engine, for messages.

    Raises:
        BundleError: The engine contains no manifest.
        ManifestError: The manifest is invalid.
    """
    if name.startswith(_TOO_LONG):
        classes = name.removeprefix(_TOO_LONG)
        raise BundleError(
            f"{source} has no room for its manifest ({classes}); open the bundle folder it was built in, not the file"
        )
    if name.startswith(_COMPRESSED):
        try:
            name = zlib.decompress(base64.b85decode(name.removeprefix(_COMPRESSED))).decode()
        except (ValueError, zlib.error) as error:
            raise BundleError(f"{source} contains a damaged manifest ({error}); build the engine again") from error
    if not name.startswith("{"):
        raise BundleError(f"{source} contains no manifest: it was not built by yolact-export; build it from a bundle")
    return Manifest.from_json(name, source)
