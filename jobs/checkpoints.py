"""Checkpoints: networks, optimizers and step as one set that commits as one, without any pickle.

A checkpoint is a folder `step-00000120` with `networks.safetensors`, `optimizers.safetensors` and `state.json`, which
lists the digests of the other two. It is written under another name and renamed when all of it is on the disk.
There are no random states to keep: every random number of a step is drawn from a seed that names the step.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load, load_file, save
from torch import Tensor, nn
from torch.optim import Optimizer

from datasets.durable import file_digest, sync_folder, write_durably

log = logging.getLogger(__name__)

NETWORKS, OPTIMIZERS, STATE = "networks.safetensors", "optimizers.safetensors", "state.json"


class CheckpointError(ValueError):
    """Weights or a checkpoint are missing, damaged, or of another network."""


def save_checkpoint(
    folder: Path,
    step: int,
    networks: Mapping[str, nn.Module],
    optimizers: Mapping[str, Optimizer],
    *,
    keep: int = 2,
) -> Path:
    """Commit the state after `step` steps and return its folder; older ones beyond the newest `keep` are removed."""
    final = folder / f"step-{step:08d}"
    if final.is_dir():
        return final
    partial = folder / f".{final.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    tensors, numbers = _optimizer_state(optimizers)
    digests = {
        NETWORKS: write_durably(partial / NETWORKS, save(network_state(networks))),
        OPTIMIZERS: write_durably(partial / OPTIMIZERS, save(tensors)),
    }
    state = {"step": step, "digests": digests, "optimizers": numbers}
    write_durably(partial / STATE, json.dumps(state, indent=2, sort_keys=True).encode())
    partial.rename(final)
    sync_folder(folder)
    for old in _found(folder)[keep:]:
        shutil.rmtree(old)
    return final


def load_newest_checkpoint(folder: Path, networks: Mapping[str, nn.Module], optimizers: Mapping[str, Optimizer]) -> int:
    """Load the newest set whose digests hold, into the networks and optimizers; returns its step, 0 if there is none.

    A damaged set is named in a warning and the one before it is taken.
    """
    for checkpoint in _found(folder):
        try:
            state = json.loads((checkpoint / STATE).read_text())
            for name, digest in state["digests"].items():
                if (found := file_digest(checkpoint / name)) != digest:
                    raise CheckpointError(f"{checkpoint / name} has digest {found}, expected {digest}")
        except (OSError, ValueError, KeyError) as error:
            log.warning("checkpoint %s is damaged (%s); taking the one before it", checkpoint, error)
            continue
        load_networks(networks, load_file(checkpoint / NETWORKS))
        _load_optimizers(optimizers, load_file(checkpoint / OPTIMIZERS), state["optimizers"])
        return state["step"]
    return 0


def save_weights(path: Path, networks: Mapping[str, nn.Module]) -> str:
    """Write the networks' weights alone and return the file's SHA-256."""
    return write_durably(path, save(network_state(networks)))


def load_weights(path: Path, networks: Mapping[str, nn.Module], sha256: str) -> None:
    """Load weights that were written by `save_weights`.

    Raises CheckpointError unless the file has the digest and fits the networks exactly.
    """
    content = path.read_bytes() if path.is_file() else None
    if content is None:
        raise CheckpointError(f"{path} is missing; run: dvc repro")
    if (found := file_digest(path)) != sha256:
        raise CheckpointError(f"{path} has digest {found}, its receipt says {sha256}; run: dvc repro")
    load_networks(networks, load(content))


def network_state(networks: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """All parameters and buffers as `<network>/<name>`, on the CPU."""
    return {
        f"{name}/{key}": tensor.detach().cpu().contiguous()
        for name, network in sorted(networks.items())
        for key, tensor in network.state_dict().items()
    }


def load_networks(networks: Mapping[str, nn.Module], tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `network_state`. Raises CheckpointError naming what is missing, unexpected or of another shape."""
    for name, network in networks.items():
        state = {key.removeprefix(f"{name}/"): value for key, value in tensors.items() if key.startswith(f"{name}/")}
        try:
            network.load_state_dict(state, strict=True)
        except RuntimeError as error:
            raise CheckpointError(f"weights do not fit network {name}: {error}") from error


def _found(folder: Path) -> list[Path]:
    """Committed checkpoints, newest first: by step, since clocks may run backwards."""
    return sorted(folder.glob("step-*"), reverse=True)


def _optimizer_state(optimizers: Mapping[str, Optimizer]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split every optimizer's state into tensors, by flat names, and JSON."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for name, optimizer in optimizers.items():
        state = optimizer.state_dict()
        numbers[name] = {"groups": state["param_groups"], "state": {}}
        for index, values in state["state"].items():
            for key, value in values.items():
                if isinstance(value, Tensor):
                    tensors[f"{name}/{index}/{key}"] = value.detach().cpu().contiguous()
                else:
                    numbers[name]["state"].setdefault(str(index), {})[key] = value
    return tensors, numbers


def _load_optimizers(
    optimizers: Mapping[str, Optimizer], tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]
) -> None:
    for name, optimizer in optimizers.items():
        state: dict[int, dict[str, Any]] = {int(i): dict(v) for i, v in numbers[name]["state"].items()}
        for path, tensor in tensors.items():
            owner, index, key = path.rsplit("/", 2)
            if owner == name:
                state.setdefault(int(index), {})[key] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": numbers[name]["groups"]})
