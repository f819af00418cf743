"""Read the files of feature weights that FID and LPIPS need. Nothing is downloaded."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

from files.errors import UserError
from jobs.evaluation.settings import Weights


class WeightsError(UserError):
    """A file of feature weights has another digest, is damaged, or does not fit the network."""


def read_state(weights: Weights) -> dict[str, Any]:
    """Read a file of tensors by name, without running code that it may contain.

    weights: the file and its SHA-256.
    Returns name -> tensor, on the CPU.
    Raises WeightsError for another digest and for a file that is not a dict of tensors.
    """
    import pickle

    import torch

    content = Path(weights.path).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != weights.sha256.lower():
        raise WeightsError(f"{weights.path}: SHA-256 is {digest}, expected {weights.sha256}; fetch the file again")
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise WeightsError(f"{weights.path}: not a file of tensors by name: {error}") from error
    if not isinstance(state, dict):
        raise WeightsError(f"{weights.path}: not a file of tensors by name but of one {type(state).__name__}")
    return state
