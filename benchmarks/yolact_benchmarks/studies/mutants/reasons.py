"""Reasons why a mutant may survive: it changes nothing observable, or a test would require more than is promised."""

from __future__ import annotations

__all__ = ["REASONS"]

_NO_VALUES = "the number is that of an output without values, whose differences are none whatever they are divided by"
_TINY = "keeps a division by zero away; which tiny number does so makes no difference"
_RMS = "rms = float(np.sqrt(np.mean(np.square(reference, dtype=np.float64)))) if reference.size else 0.0"
_SCALE = "scale = np.maximum(np.abs(reference), max(rms, 1e-30))"
_BOTH_OR_NONE = "if self._annotations is None or self._accuracy is None:"
_ONE_MORE = "one byte more than there may be tells that there is more; two do not tell more"
_PIECES = "the size of the pieces in which a file is read; its hash is the same"
_STABLE = """constant: "stable" -> 'stable_'"""
_FIRST_LETTER = "NumPy reads the first letter of the name; that the sort is stable is held by the ties of the tests"
REASONS: dict[tuple[str, str, str], str] = {
    (
        "guard",
        _BOTH_OR_NONE,
        "boolean: self._annotations is None or self._accuracy is None -> "
        "(self._annotations is None and self._accuracy is None)",
    ): "there is an accuracy exactly where there are annotations; the second question is for the type checker",
    (
        "nms",
        "considered *= 4",
        "constant: 4 -> 5",
    ): "how many more are looked at next; it goes on until there are enough, so that it costs time alone",
    ("nms", 'grouped = np.argsort(class_id, kind="stable")', _STABLE): _FIRST_LETTER,
    ("nms", 'return above[np.argsort(-score, kind="stable")]', _STABLE): _FIRST_LETTER,
    (
        "mask-assembly",
        "rounding = ratio * np.float32(4e-7) / np.abs(change) + np.float32(1e-4)",
        "constant: 1e-4 -> 0.0002",
    ): "more crossings are looked at once more, by the interpolation that decides; it costs time alone",
    (
        "mask-assembly",
        "np.logical_or(outline.mask[1:] != outline.mask[:-1], outline.column[1:] != outline.column[:-1], "
        "out=opens[1:])",
        "swapped: np.logical_or(outline.mask[1:] != outline.mask[:-1], outline.column[1:] != outline.column[:-1], "
        "out=opens[1:]) -> np.logical_or(outline.column[1:] != outline.column[:-1], outline.mask[1:] != "
        "outline.mask[:-1], out=opens[1:])",
    ): "one or the other is the other or the one",
    (
        "qdq-placement",
        "needed |= {node.output[0], *(name for name in node.input[:2] if name and not graph.is_constant(name))}",
        "boolean: name and not graph.is_constant(name) -> (name or not graph.is_constant(name))",
    ): "names that no node makes are left out of the order two lines below",
    ("qdq-placement", "return False", "returned: return False -> return None"): "only ever asked whether it is true",
    ("bundle-folder", "content = file.read(artefact.size_bytes + 1)", "constant: 1 -> 2"): _ONE_MORE,
    ("bundle-folder", "content = self._read(MANIFEST_NAME, MAX_MANIFEST_BYTES + 1)", "constant: 1 -> 2"): _ONE_MORE,
    ("bundle", "while block := file.read(1 << 20):", "constant: 20 -> 21"): _PIECES,
    ("bundle-folder", "while block := file.read(1 << 20):", "constant: 20 -> 21"): _PIECES,
    (
        "manifest-signature",
        "require_cryptography()",
        "removed: require_cryptography() -> pass",
    ): "each key that is read asks the same before it is opened; here it comes before a sentence that there is none",
    (
        "trusted-files",
        "_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK",
        "arithmetic: os.O_RDONLY | os.O_CLOEXEC -> (os.O_RDONLY & os.O_CLOEXEC)",
    ): "Python opens every file so that programs which are started do not get it; the flag says so to the reader",
    ("verify", _RMS, "constant: 0.0 -> 0.5"): _NO_VALUES,
    ("verify", _RMS, "constant: 0.0 -> 2"): _NO_VALUES,
    ("verify", _SCALE, "constant: 1e-30 -> 2e-30"): _TINY,
    ("verify", _SCALE, "constant: 1e-30 -> 5e-31"): _TINY,
}
"""Reason by (name of the module, line without its indentation, change as in :attr:`Mutation.told`)."""
