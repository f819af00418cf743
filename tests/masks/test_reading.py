"""How the masks of users are understood: one table of what is read and one of what is refused, for every reader."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from benchmarks.photographs import photograph
from files.pictures import RejectedImageError
from masks import reading
from masks.reading import read_mask

SIZE = 96
HOLE = np.zeros((SIZE, SIZE), bool)
HOLE[20:50, 30:64] = True
HOLE[70:76, 8:40] = True  # 13 % in all
RED, BLUE, GREEN, YELLOW, GREY = (255, 0, 0), (20, 40, 230), (0, 160, 60), (250, 220, 40), (128,) * 3
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
PHOTOGRAPH = photograph(3, SIZE)


def two(inside, outside, where=HOLE) -> np.ndarray:
    """The hole in one colour or grey level on another."""
    return np.where(where if np.isscalar(inside) else where[..., None], inside, outside).astype(np.uint8)


def soft(inside, outside) -> np.ndarray:
    """The hole with edges as a brush draws them."""
    share = cv2.GaussianBlur(HOLE.astype(np.float32), (0, 0), 1.2)
    share = share if np.isscalar(inside) else share[..., None]
    return (share * np.array(inside) + (1 - share) * np.array(outside)).round().astype(np.uint8)


def layer(colours: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    return np.dstack([np.broadcast_to(colours, (SIZE, SIZE, 3)), opacity]).astype(np.uint8)


def encoded(picture, format_name="PNG", **options) -> bytes:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.rot90(two(255, 0))  # which the orientation 6 turns back
    return encoded(stored, exif=exif)


def palette(colours) -> Image.Image:
    image = Image.fromarray(HOLE.astype(np.uint8))
    image.putpalette([*colours[0], *colours[1]])
    return image


TWO_STROKES = two(RED, WHITE)
TWO_STROKES[70:76, 8:40] = BLUE

READ = {
    "grey": (encoded(two(255, 0)), "white", ()),
    "three equal channels": (encoded(two(WHITE, BLACK)), "white", ()),
    "one bit": (encoded(Image.fromarray(HOLE)), "white", ()),
    "opaque": (encoded(layer(two(WHITE, BLACK), np.full((SIZE, SIZE), 255))), "white", ()),
    "16 bits": (encoded(two(255, 0).astype(np.uint16) * 257), "white", ()),
    "12 bits in 16": (encoded(HOLE.astype(np.uint16) * 4095), "white", (reading.LOW_VALUES,)),
    "8 bits in 16": (encoded(HOLE.astype(np.uint16) * 255), "white", ()),
    "0 and 1": (encoded(two(1, 0)), "white", (reading.LOW_VALUES,)),
    "0 and 1 in 16 bits": (encoded(HOLE.astype(np.uint16)), "white", (reading.LOW_VALUES,)),
    "grey on black": (encoded(two(128, 0)), "white", (reading.LOW_VALUES,)),
    "soft": (encoded(soft(255, 0)), "white", (reading.SOFT_EDGES,)),
    "JPEG": (encoded(two(255, 0), "JPEG", quality=30), "white", None),
    "JPEG with channels": (encoded(two(WHITE, BLACK), "JPEG", quality=85), "white", None),
    "turned by EXIF": (turned(), "white", ()),
    "palette of grey": (encoded(palette([BLACK, WHITE])), "white", ()),
    "palette of labels": (encoded(palette([BLACK, (128, 0, 0)])), "coloured", ()),
    "red on black": (encoded(two(RED, BLACK)), "coloured", ()),
    "red on white": (encoded(two(RED, WHITE)), "coloured", ()),
    "red on green": (encoded(two(RED, GREEN)), "coloured", ()),
    "two colours on white": (encoded(TWO_STROKES), "coloured", ()),
    "soft red on white": (encoded(soft(RED, WHITE)), "coloured", (reading.SOFT_EDGES,)),
    "red JPEG": (encoded(two(RED, BLACK), "JPEG", quality=90), "coloured", None),
    "white strokes on nothing": (encoded(layer(WHITE, two(255, 0))), "opaque", ()),
    "black strokes on nothing": (encoded(layer(BLACK, two(255, 0))), "opaque", ()),
    "coloured strokes on nothing": (encoded(layer(two(RED, BLACK), two(255, 0))), "opaque", ()),
    "soft strokes on nothing": (encoded(layer(RED, soft(255, 0))), "opaque", (reading.SOFT_EDGES,)),
    "half opaque strokes": (encoded(layer(RED, two(128, 0))), "opaque", ()),
    "colour key": (encoded(two(255, 0), transparency=0), "opaque", ()),
    "photograph with a cut": (encoded(layer(PHOTOGRAPH, two(0, 255))), "transparent", ()),
    "photograph with a soft cut": (encoded(layer(PHOTOGRAPH, soft(0, 255))), "transparent", (reading.SOFT_EDGES,)),
}

REFUSED = {
    "nothing": b"",
    "text": b"text",
    "half a file": encoded(two(255, 0))[:60],
    "GIF": encoded(two(255, 0), "GIF"),
    "photograph": encoded(PHOTOGRAPH),
    "grey photograph": encoded(PHOTOGRAPH[..., 1]),
    "photograph as JPEG": encoded(PHOTOGRAPH, "JPEG"),
    "strokes on a photograph": encoded(np.where(HOLE[..., None], RED, PHOTOGRAPH).astype(np.uint8)),
    "ramp": encoded(np.tile(np.linspace(0, 255, SIZE).astype(np.uint8), (SIZE, 1))),
    "noise": encoded(np.random.default_rng(0).integers(0, 256, (SIZE, SIZE), dtype=np.uint8)),
    "grey on white": encoded(two(128, 255)),
    "two greys": encoded(two(160, 90)),
    "three levels": encoded(np.where(HOLE, 255, two(128, 0, np.arange(SIZE) % 24 < np.full((SIZE, 1), 12)))
                            .astype(np.uint8)),
    "white on a colour": encoded(two(WHITE, BLUE)),
    "black on a colour": encoded(two(BLACK, YELLOW)),
    "more colour than black": encoded(two(BLACK, RED)),
    "all transparent": encoded(layer(WHITE, np.zeros((SIZE, SIZE)))),
    "an opaque sheet with a cut": encoded(layer(WHITE, two(0, 255))),
    "black and white with a cut": encoded(layer(two(WHITE, BLACK), two(0, 255, np.roll(HOLE, 20, 1)))),
    "half transparent sheet": encoded(layer(PHOTOGRAPH, two(128, 255))),
}  # fmt: skip


@pytest.mark.parametrize("what", READ)
def test_a_mask_with_one_meaning_is_understood(what):
    content, hole, notes = READ[what]
    found = read_mask(content)
    assert found.hole == hole
    assert notes is None or found.notes == notes
    is_exact = notes is not None and reading.SOFT_EDGES not in notes
    wrong = np.count_nonzero(found.mask != HOLE)
    assert wrong == 0 if is_exact else wrong < 0.02 * HOLE.size
    assert found.mask.dtype == np.uint8


@pytest.mark.parametrize("what", REFUSED)
def test_a_mask_with_two_meanings_or_none_is_refused(what):
    with pytest.raises(RejectedImageError):
        read_mask(REFUSED[what])


def test_the_colour_of_the_hole_may_be_declared():
    assert (read_mask(encoded(two(0, 255)), hole="black").mask == HOLE).all()
    assert (read_mask(encoded(two(0, 1)), hole="black").mask == HOLE).all()


def test_an_inverted_mask_gives_the_complement_and_says_white():
    found = read_mask(encoded(two(0, 255)))
    assert found.hole == "white"
    assert (found.mask == ~HOLE).all()
