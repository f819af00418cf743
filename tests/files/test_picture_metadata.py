"""The pixels of a picture decide whether it is taken; metadata that cannot be read is dropped and noted."""

import io
import struct
import zlib
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from PIL import Image

from files.pictures import (
    DAMAGED,
    RejectedImageError,
    can_store_unchanged,
    declared_size,
    decode,
    decode_grey,
    decode_image,
    decode_with_note,
)

ROWS, COLUMNS = np.mgrid[0:48, 0:64]
PIXELS = np.stack([ROWS * 5, COLUMNS * 3, (ROWS + COLUMNS) % 50 + 100], axis=2).astype(np.uint8)


def encoded(image: Image.Image, format_name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


JPEG = encoded(Image.fromarray(PIXELS), "JPEG")
PNG = encoded(Image.fromarray(PIXELS), "PNG")
CMYK = encoded(Image.fromarray(PIXELS).convert("CMYK"), "JPEG")
KEYED = encoded(Image.fromarray(PIXELS), "PNG", transparency=tuple(PIXELS[0, 0].tolist()))
PALETTE = encoded(Image.fromarray(PIXELS).quantize(16), "PNG", transparency=bytes(range(0, 256, 16)))


def chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4)


def png(*chunks: tuple[bytes, bytes], of: bytes = PNG, behind: bool = False) -> bytes:
    """A PNG with further chunks before its pixels, or behind them."""
    place = len(of) - 12 if behind else 33
    return of[:place] + b"".join(chunk(*each) for each in chunks) + of[place:]


def jpeg(*segments: tuple[int, bytes], of: bytes = JPEG) -> bytes:
    """A JPEG with further segments at its start."""
    return of[:2] + b"".join(struct.pack(">BBH", 0xFF, m, len(b) + 2) + b for m, b in segments) + of[2:]


def exif(*entries: tuple[int, int, int, bytes], tail: bytes = b"") -> bytes:
    """A TIFF block: tag, type, count and four bytes of value or offset, and what offsets point to."""
    packed = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + bytes(4) + tail


def app1(block: bytes) -> tuple[int, bytes]:
    return 0xE1, b"Exif\0\0" + block


def turned(value: int, kind: int = 3, count: int = 1) -> tuple[int, int, int, bytes]:
    return 0x112, kind, count, struct.pack("<HH" if kind == 3 else "<I", *((value, 0) if kind == 3 else (value,)))


def at(offset: int) -> bytes:
    return struct.pack("<I", offset)


SIGNED = exif(turned(6), (0x11A, 10, 1, at(50)), tail=bytes(12) + struct.pack("<ii", -72, 1) * 4)
BROKEN_EXIF = {
    "is none": b"\0\x08\0\2\1\x12\0\3",
    "is empty": b"",
    "ends in its header": b"II*\0\x08",
    "points behind its end": b"II*\0" + at(9999) + bytes(8),
    "claims 65535 entries": b"II*\0" + at(8) + b"\xff\xff" + bytes(24),
    "has a maker note of garbage": exif((0x927C, 7, 4000, at(9999))),
    "has a fraction without its denominator": exif((0x11A, 5, 1, at(9999)), (0x128, 3, 1, b"\2\0\0\0")),
}
# What decoders do not need, whole or broken -> whether it can be read
PNG_METADATA = {
    "text without a keyword": ((b"tEXt", b"\0value"), True),
    "text without its end of keyword": ((b"tEXt", b"no separator"), True),
    "2 MB of compressed text": ((b"zTXt", b"workflow\0\0" + zlib.compress(b"y" * 2_000_000)), False),
    "compressed text of another method": ((b"zTXt", b"a\0\7" + zlib.compress(b"y")), False),
    "compressed text of garbage": ((b"zTXt", b"a\0\0garbage"), True),
    "2 MB of international text": ((b"iTXt", b"a\0\1\0\0\0" + zlib.compress(b"y" * 2_000_000)), False),
    "2 MB of XMP": ((b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"y" * 2_000_000)), False),
    "4 MB of profile": ((b"iCCP", b"p\0\0" + zlib.compress(bytes(4_000_000))), False),
    "a profile of another method": ((b"iCCP", b"p\0\7garbage"), False),
    "a profile without a name": ((b"iCCP", b"garbage"), False),
    "a short gamma": ((b"gAMA", b"\0"), False),
    "short chromaticities": ((b"cHRM", bytes(9)), False),
    "a short resolution": ((b"pHYs", bytes(3)), False),
    "an empty rendering intent": ((b"sRGB", b""), False),
    "a short control of animation": ((b"acTL", b"\0"), False),
    "a short control of frames": ((b"fcTL", b"\0"), False),
    "a frame outside the picture": ((b"fcTL", struct.pack(">5IHHBB", 0, 64, 48, 9, 9, 1, 1, 0, 0)), False),
    "a private chunk": ((b"prVt", bytes(50)), True),
}
JPEG_METADATA = {
    "a comment": ((0xFE, b"\xff\xd8 comment"), True),
    "a wrong XMP": ((0xE1, b"http://ns.adobe.com/xap/1.0/\0<not XML"), True),
    "a short JFIF": ((0xE0, b"JFIF\0"), False),
    "a short Adobe marker": ((0xEE, b"Adobe"), False),
    "a short profile": ((0xE2, b"ICC_PROFILE\0"), False),
    "a broken index of pictures": ((0xE2, b"MPF\0garbage"), False),
    "an index of pictures without a count": ((0xE2, b"MPF\0" + exif((0xB000, 7, 4, b"0100"))), False),
    "a short Photoshop block": ((0xED, b"Photoshop 3.0\x008BIM\x03"), None),
    "a Photoshop resolution without its end": ((0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\x10\1"), True),
}
CASES = {
    **{f"PNG with {what}": (png(part), PNG, is_read) for what, (part, is_read) in PNG_METADATA.items()},
    **{f"PNG and behind it {w}": (png(part, behind=True), PNG, None) for w, (part, _) in PNG_METADATA.items()
       if part[0] not in (b"acTL", b"fcTL")},
    **{f"JPEG with {what}": (jpeg(part), JPEG, is_read) for what, (part, is_read) in JPEG_METADATA.items()},
    **{f"PNG whose EXIF {what}": (png((b"eXIf", block)), PNG, None) for what, block in BROKEN_EXIF.items()},
    **{f"JPEG whose EXIF {what}": (jpeg(app1(block)), JPEG, None) for what, block in BROKEN_EXIF.items()},
    "JPEG with two EXIF blocks": (jpeg(app1(exif()), app1(exif())), JPEG, True),
    "JPEG with a video behind it": (JPEG + b"\0\0\0\x18ftypmp42" + bytes(500), JPEG, True),
    "JPEG with another JPEG behind it": (JPEG + JPEG, JPEG, True),
    "PNG with bytes behind it": (PNG + b"more", PNG, True),
    "PNG with a wrong checksum of its gamma": (png((b"gAMA", bytes(4))).replace(
        chunk(b"gAMA", bytes(4)), chunk(b"gAMA", bytes(4))[:-1] + b"?"), PNG, False),
    "CMYK with a broken EXIF and a short gamma": (jpeg((0xE0, b"JFIF\0"), of=CMYK), CMYK, False),
    "transparent colour with a short gamma": (png((b"gAMA", b"\0"), of=KEYED), KEYED, False),
    "palette with a short gamma": (png((b"gAMA", b"\0"), of=PALETTE), PALETTE, False),
}  # fmt: skip


@pytest.mark.parametrize("what", CASES)
def test_metadata_changes_no_pixel_and_is_noted_where_it_cannot_be_read(what: str) -> None:
    content, plain, is_read = CASES[what]
    decoded = decode_with_note(content)
    np.testing.assert_array_equal(decoded.image, decode(plain))
    if is_read is not None:
        assert decoded.is_metadata_dropped is not is_read
    assert declared_size(content) == decoded.image.shape[1::-1]
    if can_store_unchanged(content, decoded.image, "PNG" if plain[:1] == b"\x89" else "JPEG"):
        assert not decoded.is_metadata_dropped
        np.testing.assert_array_equal(decode_image(content), decoded.image)
    assert not decode_with_note(plain).is_metadata_dropped


@pytest.mark.parametrize("container", ["JPEG", "PNG", "PNG behind its pixels", "PNG with a short gamma"])
@pytest.mark.parametrize(
    ("entry", "turn"),
    [
        *((turned(n), n) for n in range(1, 9)),
        *((turned(n), 1) for n in (0, 9, 255, 65535)),
        (turned(6, kind=4), 6),
        (turned(9, kind=4), 1),
        ((0x112, 2, 2, b"6\0\0\0"), 1),
        ((0x112, 1, 1, b"\6\0\0\0"), 1),
        ((0x112, 3, 2, b"\6\0\6\0"), 6),
        ((0x112, 12, 1, at(9999)), 1),
    ],
)
def test_declared_size_and_decoding_agree_for_every_orientation(
    container: str, entry: tuple[int, int, int, bytes], turn: int
) -> None:
    block = exif(entry)
    content = {
        "JPEG": lambda: jpeg(app1(block)),
        "PNG": lambda: png((b"eXIf", block)),
        "PNG behind its pixels": lambda: png((b"eXIf", block), behind=True),
        "PNG with a short gamma": lambda: png((b"gAMA", b"\0"), (b"eXIf", block)),
    }[container]()
    image = decode(content)
    assert declared_size(content) == image.shape[1::-1]
    upright: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, 2).transpose(1, 0, 2), 8: np.rot90,
    }  # fmt: skip
    np.testing.assert_array_equal(image, upright[turn](decode(JPEG if container == "JPEG" else PNG)))
    assert turn == 1 or not can_store_unchanged(content, image, container[:4].strip())


def test_an_orientation_is_applied_beside_fields_that_cannot_be_written_again() -> None:
    decoded = decode_with_note(jpeg(app1(SIGNED)))
    np.testing.assert_array_equal(decoded.image, np.rot90(decode(JPEG), -1))


@pytest.mark.parametrize("metadata", [(b"gAMA", b"\0"), (b"zTXt", b"a\0\0" + zlib.compress(bytes(2_000_000)))])
def test_pixels_that_are_cut_short_or_damaged_stay_rejected_beside_broken_metadata(
    metadata: tuple[bytes, bytes],
) -> None:
    whole = png(metadata)
    data = whole.index(b"IDAT")
    split = whole[data + 4 : data + 4 + int.from_bytes(whole[data - 4 : data])]
    halves = chunk(b"IDAT", split[:90]) + chunk(b"gAMA", b"\0") + chunk(b"IDAT", split[90:])
    damaged = [
        whole[: data + 100],
        whole[: data + 40] + bytes(60) + whole[data + 100 :],
        whole[: data - 4] + halves + whole[-12:],
        whole[:33] + whole[-12:],
    ]
    for content in damaged:
        with pytest.raises(RejectedImageError, match=f"^{DAMAGED}$"):
            decode(content)
    cut = jpeg((0xE0, b"JFIF\0"))
    for content in (cut[:-200], cut[:300], cut.replace(b"\xff\xc0", b"\xff\xfe")):
        with pytest.raises(RejectedImageError):
            decode(content)


def test_label_maps_are_read_by_the_same_rule() -> None:
    labels = encoded(Image.fromarray(PIXELS[..., 0]), "PNG")
    for part in ((b"gAMA", b"\0"), (b"eXIf", b"garbage"), (b"iCCP", b"p\0\0" + zlib.compress(bytes(4_000_000)))):
        np.testing.assert_array_equal(decode_grey(png(part, of=labels)), PIXELS[..., 0])


def test_a_png_without_its_end_is_decoded_and_not_stored_as_it_came() -> None:
    content = PNG[:-12]
    image = decode(content)
    np.testing.assert_array_equal(image, PIXELS)
    assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) is None  # by which shards are read
    assert not can_store_unchanged(content, image, "PNG")
