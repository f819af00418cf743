"""Read the weights of frozen feature networks from files of other projects."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from files.errors import UserError


class WeightsError(UserError):
    """Feature weights are missing, are not those that were asked for, or do not fit the network."""


def read_weights(path: Path, remedy: str) -> dict[str, Tensor]:
    """Read the tensors of a .safetensors or .pth file. No code in the file is executed.

    path: the file. Of a checkpoint, the tensors under "model" or "state_dict" are read.
    remedy: end of the message if there is no such file.
    Returns name -> tensor, on the CPU.
    Raises WeightsError if there is no file, or if it is no file of weights.
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
