"""Remove the metadata of a JPEG or PNG, byte for byte, and keep all that decides its pixels."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_FRAME_BYTES = 12  # length, type and checksum of a chunk
# Gamma, chromaticities and profiles are no pixels here: `decode` ignores them.
_PNG_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IEND"}
_PNG_XMP = b"XML:com.adobe.xmp\0"

_JPEG_COMMENT = 0xFE
_JPEG_SCAN = 0xDA
_JPEG_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
# Segments by which libjpeg tells the colour space. It ignores shorter ones.
_JPEG_COLOUR = {0xE0: (b"JFIF\0", 14), 0xEE: (b"Adobe", 12)}
_JPEG_EXIF_OR_XMP = 0xE1


def with_less_metadata(content: bytes) -> Iterator[bytes]:
    """Yield the picture with no metadata but EXIF and XMP, which may hold an orientation, then with none at all.

    content: bytes of a JPEG or PNG. Nothing is yielded for other content.
    Pixels are never repaired: a picture that is cut short or damaged in its pixels stays so.
    """
    cut = _cut_png if content.startswith(_PNG_SIGNATURE) else _cut_jpeg if content.startswith(b"\xff\xd8") else None
    if cut is not None:
        yield cut(content, keeps_orientation=True)
        yield cut(content, keeps_orientation=False)


def _cut_png(content: bytes, *, keeps_orientation: bool) -> bytes:
    """Return the chunks that decide the pixels, and the first unbroken run of image data.

    Image data after another chunk is not joined to it, because the file is then damaged.
    """
    kept, start, was_data, has_pixels = [_PNG_SIGNATURE], len(_PNG_SIGNATURE), False, False
    while start + _PNG_FRAME_BYTES <= len(content):
        size, kind = struct.unpack_from(">I4s", content, start)
        chunk = content[start : start + _PNG_FRAME_BYTES + size]
        is_data = kind == b"IDAT"
        if is_data:
            is_kept = was_data or not has_pixels
        elif len(chunk) < _PNG_FRAME_BYTES + size:
            is_kept = False
        else:
            is_kept = kind in _PNG_PIXELS or (keeps_orientation and _is_png_orientation(kind, chunk))
        if is_kept:
            kept.append(chunk)
        was_data, has_pixels = is_data, has_pixels or is_data
        start += len(chunk)
    return b"".join(kept)


def _is_png_orientation(kind: bytes, chunk: bytes) -> bool:
    return kind == b"eXIf" or (kind == b"iTXt" and chunk[8:].startswith(_PNG_XMP))


def _cut_jpeg(content: bytes, *, keeps_orientation: bool) -> bytes:
    """Return the segments that decide the pixels, and everything from the first scan on."""
    kept, start = [content[:2]], 2
    while start + 4 <= len(content):
        if content[start] != 0xFF or content[start + 1] in (0x00, 0xFF):
            start += 1  # fill bytes and junk, which decoders skip
            continue
        marker = content[start + 1]
        if marker == _JPEG_SCAN:
            kept.append(content[start:])
            break
        size = 0 if marker in _JPEG_WITHOUT_LENGTH else max(2, int.from_bytes(content[start + 2 : start + 4]))
        segment = content[start : start + 2 + size]
        if _decides_pixels(marker, segment[4:]) or (keeps_orientation and marker == _JPEG_EXIF_OR_XMP):
            kept.append(segment)
        start += 2 + size
    return b"".join(kept)


def _decides_pixels(marker: int, body: bytes) -> bool:
    if marker in _JPEG_COLOUR:
        name, least_bytes = _JPEG_COLOUR[marker]
        return body.startswith(name) and len(body) >= least_bytes
    return not (0xE0 <= marker <= 0xEF or marker == _JPEG_COMMENT)
