"""Reasons for which a picture cannot be used."""

from __future__ import annotations

from files.errors import UserError

# The manifest counts rejected pictures by reason, so a reason contains no file name and no number.
EMPTY = "empty file"
TOO_MANY_BYTES = "file too large"
NO_IMAGE = "not a JPEG or PNG image"
TOO_MANY_PIXELS = "too many pixels"
DAMAGED = "damaged or cut short"
BELOW_MINIMUM = "smaller than the minimum side"
BELOW_SIZE = "smaller than the requested size"
OUTSIDE = "crop box outside the image"
NO_LABELS = "not a label map of 8 bits in one channel"


class RejectedImageError(UserError):
    """A picture cannot be used. The message, also `reason`, is a constant of this file, or one with a format added."""

    @property
    def reason(self) -> str:
        return str(self)
