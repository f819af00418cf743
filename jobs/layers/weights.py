"""Weights of frozen feature networks, read from files that others made."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from files.errors import UserError


class WeightsError(UserError):
    """A file of feature weights is missing, is not the file that was asked for, or does not fit the network."""


def read_weights(path: Path, remedy: str) -> dict[str, Tensor]:
    """The tensors of a .safetensors or .pth file by name, on the CPU; a checkpoint's "model" or "state_dict" is opened.

    Nothing in the file is executed. Raises WeightsError, which ends with the remedy, if there is no file,
    and if it is something else.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; {remedy}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise WeightsError(f"{path}: not a file of weights ({error})") from error
    for key in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict):
        raise WeightsError(f"{path}: not a file of weights, but of a {type(state).__name__}")
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}
