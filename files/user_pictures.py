"""Read a picture of a user's with all that a filled copy must keep: 16 bits, transparency, colour profile."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageCms

from files.picture_loading import load
from files.pictures import MAX_BYTES, MAX_PIXELS, only_rejections
from files.rejections import NO_IMAGE, TOO_MANY_BYTES, TOO_MANY_PIXELS, RejectedImageError

CMYK = "a picture in CMYK, which a PNG cannot hold; convert it to RGB first"
FRAMES = "a picture with several frames; save one of them as a picture of its own"


@dataclass(frozen=True)
class UserPicture:
    """A decoded picture, upright.

    pixels: uint8 or uint16 (H, W, C): grey, grey and opacity, RGB, or RGB and opacity.
    profile: ICC colour profile; None without one.
    """

    pixels: np.ndarray
    profile: bytes | None

    @property
    def opacity(self) -> np.ndarray | None:
        """The opacity, (H, W), in the range of the pixels; None for a picture without transparency."""
        return self.pixels[..., -1] if self.pixels.shape[2] in (2, 4) else None

    def rgb(self) -> np.ndarray:
        """Return what a network sees, uint8 (H, W, 3): the upper 8 bits, with transparency flattened on white."""
        eight = self.pixels if self.pixels.dtype == np.uint8 else (self.pixels >> 8).astype(np.uint8)
        mode = ("L", "LA", "RGB", "RGBA")[eight.shape[2] - 1]
        image = Image.fromarray(eight.squeeze(2) if mode == "L" else eight, mode)
        if self.opacity is not None:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
        return np.array(image.convert("RGB"))

    def fill(self, filled: np.ndarray, mask: np.ndarray) -> UserPicture:
        """Return a copy with other pixels in the hole. All others keep every bit.

        Grey stays grey. A filled pixel is opaque.

        filled: uint8 (H, W, 3).
        mask: uint8 (H, W), 1 = hole.
        """
        channels = self.pixels.shape[2]
        colours = filled if channels > 2 else np.array(Image.fromarray(filled).convert("L"))[..., None]
        if self.opacity is not None:
            colours = np.concatenate([colours, np.full_like(colours[..., :1], 255)], axis=2)
        if self.pixels.dtype == np.uint16:
            colours = colours.astype(np.uint16) * 257
        return UserPicture(np.where(mask[..., None] == 1, colours, self.pixels), self.profile)

    def encode_png(self) -> bytes:
        """Encode the picture as PNG, with its profile."""
        pixels = self.pixels
        if pixels.shape[2] == 2 and pixels.dtype == np.uint16:  # OpenCV writes no grey with opacity
            pixels = np.concatenate([np.repeat(pixels[..., :1], 3, axis=2), pixels[..., 1:]], axis=2)
        if pixels.dtype == np.uint8:
            file = io.BytesIO()
            mode = ("L", "LA", "RGB", "RGBA")[pixels.shape[2] - 1]
            Image.fromarray(pixels.squeeze(2) if mode == "L" else pixels, mode).save(
                file, "PNG", icc_profile=self.profile
            )
            return file.getvalue()
        order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[pixels.shape[2]]
        _, content = cv2.imencode(".png", np.ascontiguousarray(pixels[..., order]))
        return _with_profile(content.tobytes(), self.profile)


def read_picture(content: bytes) -> UserPicture:
    """Decode a PNG or JPEG of a user's.

    The EXIF orientation is applied; other metadata but the colour profile is dropped.
    Raises RejectedImageError for another format, a picture in CMYK or with several frames, one above the limits of
    files/pictures.py, and for damage.
    """
    if len(content) > MAX_BYTES:
        raise RejectedImageError(TOO_MANY_BYTES)

    def check(image: Image.Image) -> None:
        if image.width * image.height > MAX_PIXELS:
            raise RejectedImageError(TOO_MANY_PIXELS)
        if image.mode == "CMYK":
            raise RejectedImageError(CMYK)
        if getattr(image, "n_frames", 1) > 1:
            raise RejectedImageError(FRAMES)

    with only_rejections(no_image=NO_IMAGE):
        loaded = load(content, check)
        profile = loaded.image.info.get("icc_profile")
        if _has_16_bits(content):
            pixels = _turn(_decode_16_bits(content), loaded.orientation)
        else:
            pixels = _pixels(loaded.upright())
    return UserPicture(pixels, profile if profile and _fits(profile, pixels.shape[2]) else None)


def _pixels(image: Image.Image) -> np.ndarray:
    if image.has_transparency_data:
        image = image.convert("LA" if image.mode in ("1", "L", "LA", "La") else "RGBA")
    elif image.mode in ("1", "L"):
        image = image.convert("L")
    else:
        image = image.convert("RGB")
    pixels = np.array(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _has_16_bits(content: bytes) -> bool:
    return content[:8] == b"\x89PNG\r\n\x1a\n" and content[24:25] == b"\x10"


def _decode_16_bits(content: bytes) -> np.ndarray:
    """Decode a PNG of 16 bits, of which Pillow would keep 8 in colour. Returns uint16 (H, W, C)."""
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.dtype != np.uint16:
        raise RejectedImageError("a PNG of 16 bits that cannot be decoded without a loss; save it with 8 bits")
    if decoded.ndim == 2:
        return decoded[..., None]
    if content[25] == 4:  # OpenCV repeats the grey of a picture with opacity
        return decoded[..., [0, 3]]
    return decoded[..., [2, 1, 0, 3][: decoded.shape[2]]]


def _turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn a picture upright. orientation: 1 to 8 as in EXIF."""
    return {
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.swapaxes(0, 1),
        6: lambda p: p.swapaxes(0, 1)[:, ::-1],
        7: lambda p: p.swapaxes(0, 1)[::-1, ::-1],
        8: lambda p: p.swapaxes(0, 1)[::-1],
    }.get(orientation, lambda p: p)(pixels)


def _fits(profile: bytes, channels: int) -> bool:
    """Tell whether a profile can be read and is one of grey, or of RGB, as the picture is."""
    try:
        space = ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space.strip()
    except (OSError, ImageCms.PyCMSError):
        return False
    return space == ("GRAY" if channels < 3 else "RGB")


def _with_profile(png: bytes, profile: bytes | None) -> bytes:
    """Insert a profile behind the header of a PNG, as the chunk iCCP."""
    if profile is None:
        return png
    data = b"iCCP" + b"ICC profile\0\0" + zlib.compress(profile)
    chunk = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    return png[:33] + chunk + png[33:]  # the signature has 8 bytes, the header 25
