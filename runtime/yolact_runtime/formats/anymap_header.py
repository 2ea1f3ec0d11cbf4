"""Headers of portable anymaps (PBM, PGM, PPM and PAM), as Netpbm defines them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from yolact_runtime.formats.image_header import DamagedImageError, ImageHeader

__all__ = ["AnymapHeader", "anymap_image_header", "read_anymap_header"]

_TOKEN = re.compile(rb"(?:\s|#[^\n\r]*[\n\r])*([0-9]{1,10})")
_COMMENT_LINE = re.compile(rb"#[^\n]*\n")
_MOST_HEADER_BYTES = 1 << 20
"""Maximum size of a header in bytes; only comments can be long."""
_PAM_LINES = re.compile(rb"P7\s*\n((?:[^\n]*\n)*?)ENDHDR\r?\n")
_CHANNELS = {b"BLACKANDWHITE": 1, b"GRAYSCALE": 1, b"RGB": 3}
_ALPHA = b"_ALPHA"


@dataclass(frozen=True)
class AnymapHeader:
    """The header of an anymap.

    Attributes:
        kind: The second byte of the file, ``b"1"`` to ``b"7"``.
        width: Number of columns.
        height: Number of rows.
        depth: Number of samples per pixel, including transparency.
        white: The largest sample value.
        start: Position of the first sample in the file.
        not_read: The reason why such samples are not supported; empty if they are.
    """

    kind: bytes
    width: int
    height: int
    depth: int
    white: int
    start: int
    not_read: str = ""

    @property
    def is_text(self) -> bool:
        """Whether the samples are decimal text."""
        return self.kind in {b"1", b"2", b"3"}

    @property
    def is_bitmap(self) -> bool:
        """Whether each sample is a bit, with 1 for black."""
        return self.kind in {b"1", b"4"}

    @property
    def sample_bytes(self) -> int:
        """Number of bytes per sample if samples are binary but not bits."""
        return 2 if self.white > 255 else 1

    @property
    def least_bytes(self) -> int:
        """Minimum size of the samples in bytes; binary ones have exactly this size."""
        count = self.width * self.height * self.depth
        if self.kind == b"4":
            return (self.width + 7) // 8 * self.height
        if self.kind == b"1":
            return count
        # The last number of a text needs no space behind it.
        return max(2 * count - 1, 0) if self.is_text else count * self.sample_bytes


def read_anymap_header(content: memoryview) -> AnymapHeader:
    """Read the header of an anymap; `content` is the whole file.

    Raises:
        DamagedImageError: The header is damaged.
    """
    head = bytes(content[:_MOST_HEADER_BYTES])
    header = _pam(head) if head[:2] == b"P7" else _plain(head, len(content))
    if not 1 <= header.white <= 65535:
        raise DamagedImageError(
            f"damaged: the largest value in its header is {header.white}, and lies between 1 and 65535"
        )
    return header


def anymap_image_header(content: memoryview) -> ImageHeader:
    """Read a header; see :func:`~yolact_runtime.formats.header_reader.read_image_header`."""
    header = read_anymap_header(content)
    size, needed = f"{header.width} x {header.height} pixels", header.start + header.least_bytes
    if needed > len(content) and not header.not_read:
        raise DamagedImageError(f"cut short: {size} take {needed} bytes, it has {len(content)}")
    if not header.width * header.height:
        raise DamagedImageError(f"damaged: its header says {size}")
    return ImageHeader(
        header.width,
        header.height,
        8 * header.sample_bytes,
        None if header.is_bitmap or header.white in {255, 65535} else header.white,
        num_pictures=1 if header.is_text else _pictures(content, header),
        not_read=header.not_read,
    )


def _plain(head: bytes, size: int) -> AnymapHeader:
    kind, at, numbers = head[1:2], 2, []
    for _ in range(2 if kind in b"14" else 3):
        match = _TOKEN.match(head, at)
        if match is None:
            raise DamagedImageError("damaged: its header has no width, height and largest value")
        at = match.end()
        numbers.append(int(match[1]))
    width, height, white = (*numbers, 1)[:3]
    header = AnymapHeader(kind, width, height, 3 if kind in b"36" else 1, white, at + 1)
    return replace(header, start=header.start + _behind_header(head, at, header, size))


def _behind_header(head: bytes, at: int, header: AnymapHeader, size: int) -> int:
    """Return the number of bytes between the one space that ends a header and the samples; 0 by the standard.

    Some programs write a comment or a line feed there. They are skipped if the file is longer by exactly that many
    bytes.
    """
    if header.is_text:
        return 0
    comment = _COMMENT_LINE.match(head, at + 1)
    extra = 1 if head[at : at + 2] == b"\r\n" else len(comment[0]) if comment else 0
    return extra if extra and size == at + 1 + extra + header.least_bytes else 0


def _pam(head: bytes) -> AnymapHeader:
    match = _PAM_LINES.match(head)
    if match is None:
        raise DamagedImageError("damaged: the header of a PAM has no end")
    lines = [line.split(None, 1) for line in match[1].splitlines() if not line.lstrip().startswith(b"#")]
    values = {line[0]: line[1].strip() for line in lines if len(line) == 2}
    try:
        width, height, depth, white = (_number(values[key]) for key in (b"WIDTH", b"HEIGHT", b"DEPTH", b"MAXVAL"))
    except KeyError as error:
        raise DamagedImageError("damaged: the header of a PAM names width, height, depth and maxval") from error
    reason = _why_not_read(values.get(b"TUPLTYPE", b""), depth)
    return AnymapHeader(b"7", width, height, depth, white, match.end(), reason)


def _number(value: bytes) -> int:
    if not re.fullmatch(rb"[0-9]{1,10}", value):
        raise DamagedImageError("damaged: a number in the header of a PAM is invalid")
    return int(value)


def _why_not_read(kind: bytes, depth: int) -> str:
    """Explain why samples are not supported.

    OpenCV writes blue first and no tuple type, others write red first, so the order is unknown without one.
    """
    if not kind and depth == 1:
        return ""
    name = kind.decode("ascii", "replace")
    if not kind:
        return f"it has {depth} samples a pixel and no TUPLTYPE that says what they are, such as RGB"
    channels = _CHANNELS.get(kind.removesuffix(_ALPHA))
    if channels is None:
        return f"its samples are {name}; write it with the TUPLTYPE RGB or GRAYSCALE"
    if depth != channels + kind.endswith(_ALPHA):
        return f"it has {depth} samples a pixel, and its TUPLTYPE {name} has {channels + kind.endswith(_ALPHA)}"
    return ""


def _pictures(content: memoryview, header: AnymapHeader) -> int:
    """Return 2 if another binary anymap follows in the file, else 1."""
    at = header.start + header.least_bytes
    behind = bytes(content[at : at + 3])
    return 2 if behind[:1] == b"P" and behind[1:2] in b"1234567" and behind[2:].isspace() else 1
