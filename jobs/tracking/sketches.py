"""The sketch of a registered generator that follows lines, as the optional parameter of its signature."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

SKETCH = "sketch"
"""The name of the parameter. MLflow has optional parameters, but no optional tensors; they are texts and numbers."""


def encode_sketch(lines: np.ndarray) -> str:
    """Encode lines, uint8 (H, W), 1 = line, as a PNG in base64, white lines on black."""
    file = io.BytesIO()
    Image.fromarray(255 * lines).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


def decode_sketch(text: str) -> np.ndarray:
    """Decode what `encode_sketch` or another program has encoded. Returns uint8 (H, W), 1 = line."""
    image = Image.open(io.BytesIO(base64.b64decode(text)), formats=("PNG",))
    return (np.array(image.convert("L")) >= 128).astype(np.uint8)
