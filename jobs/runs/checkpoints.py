"""Checkpoints: networks, optimizers and step, committed together, without any pickle.

A checkpoint is a folder such as `step-00000120`. It contains `networks.safetensors`, `optimizers.safetensors` and
`state.json`, which lists the digests of the other two. It is written under a temporary name and renamed once all of it
is on the disk. Random states are not kept: every random number of a step is drawn from a seed that names the step.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from files.durable import file_digest, sync_file, sync_folder, write_durably
from jobs.runs.folder import CheckpointError, list_checkpoints

log = logging.getLogger(__name__)

NETWORKS, OPTIMIZERS, STATE = "networks.safetensors", "optimizers.safetensors", "state.json"


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The state after a step, copied, so that training can continue while it is written.

    networks: `<network>/<name>` -> tensor.
    optimizers: `<optimizer>/<index>/<name>` -> tensor.
    numbers: the optimizers' other values, as JSON.
    progress: the state of the loop, as JSON.
    """

    step: int
    networks: Mapping[str, Tensor]
    optimizers: Mapping[str, Tensor]
    numbers: Mapping[str, Any]
    progress: Mapping[str, Any]


def take_snapshot(
    step: int,
    networks: Mapping[str, nn.Module],
    optimizers: Mapping[str, Optimizer],
    progress: Mapping[str, Any] | None = None,
) -> Snapshot:
    """Copy the state after `step` steps to the CPU's memory. progress: the state of the loop, as JSON."""
    tensors, numbers = _optimizer_state(optimizers)
    return Snapshot(
        step=step,
        networks={name: _copy(tensor) for name, tensor in _named_tensors(networks).items()},
        optimizers={name: _copy(tensor) for name, tensor in tensors.items()},
        numbers=numbers,
        progress=progress or {},
    )


def write_checkpoint(
    folder: Path, snapshot: Snapshot, *, keep: int = 2, is_held: Callable[[Path], bool] = lambda checkpoint: False
) -> Path:
    """Commit a snapshot as a checkpoint and remove old ones.

    folder: of one training's checkpoints.
    keep: how many of the newest to keep.
    is_held: returns whether an older checkpoint must not be removed yet.

    Returns the checkpoint's folder. Raises OSError or CheckpointError if it cannot be written; the older checkpoints
    are then unchanged.
    """
    final = folder / f"step-{snapshot.step:08d}"
    if final.is_dir():
        if is_whole(final):
            return final
        shutil.rmtree(final)  # damaged, and passed over when the training started
    partial = _write_partial(folder, final.name, snapshot)
    partial.rename(final)
    sync_folder(folder)
    for old in list_checkpoints(folder)[keep:]:
        if not is_held(old):
            shutil.rmtree(old)
    return final


def _write_partial(folder: Path, name: str, snapshot: Snapshot) -> Path:
    """Write all files of a checkpoint to the disk under a temporary name, which is returned."""
    partial = folder / f".{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    digests = {}
    for file, tensors in ((NETWORKS, snapshot.networks), (OPTIMIZERS, snapshot.optimizers)):
        try:
            save_file(dict(tensors), partial / file)
        except SafetensorError as error:
            raise CheckpointError(f"{partial / file} cannot be written: {error}") from error
        sync_file(partial / file)
        digests[file] = file_digest(partial / file)
    state = {
        "step": snapshot.step,
        "digests": digests,
        "optimizers": snapshot.numbers,
        "progress": snapshot.progress,
    }
    write_durably(partial / STATE, json.dumps(state, indent=2, sort_keys=True).encode())
    return partial


def newest_whole_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint whose digests are right; None if there is none. Damaged ones are logged."""
    return next((checkpoint for checkpoint in list_checkpoints(folder) if is_whole(checkpoint)), None)


def load_checkpoint(
    checkpoint: Path, networks: Mapping[str, nn.Module], optimizers: Mapping[str, Optimizer]
) -> tuple[int, dict[str, Any]]:
    """Load a whole checkpoint into networks and optimizers.

    Returns its step and its progress. Raises CheckpointError if it belongs to other networks.
    """
    state = json.loads((checkpoint / STATE).read_text())
    load_networks(networks, load_file(checkpoint / NETWORKS))
    _load_optimizers(optimizers, load_file(checkpoint / OPTIMIZERS), state["optimizers"])
    return state["step"], state["progress"]


def read_progress(checkpoint: Path) -> dict[str, Any]:
    """Return the progress that was saved with a whole checkpoint."""
    return json.loads((checkpoint / STATE).read_text())["progress"]


def is_whole(checkpoint: Path) -> bool:
    """Return whether a committed checkpoint's digests are right. A damaged one is logged."""
    try:
        verify_checkpoint(checkpoint, checkpoint.name)
    except CheckpointError as error:
        log.warning("checkpoint %s is damaged (%s); taking the one before it", checkpoint, error)
        return False
    return True


def verify_checkpoint(folder: Path, name: str) -> None:
    """Raise CheckpointError unless a folder holds the complete, undamaged checkpoint called `name`."""
    try:
        state = json.loads((folder / STATE).read_text())
        if state["step"] != int(name.removeprefix("step-")):
            raise CheckpointError(f"{folder / STATE} is of step {state['step']}")
        if set(state["digests"]) != {NETWORKS, OPTIMIZERS}:
            raise CheckpointError(f"{folder / STATE} lists other files")
        for file, digest in state["digests"].items():
            if (actual := file_digest(folder / file)) != digest:
                raise CheckpointError(f"{folder / file} has digest {actual}, expected {digest}")
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{type(error).__name__}: {error}") from error


def save_weights(path: Path, networks: Mapping[str, nn.Module]) -> str:
    """Write the networks' weights, without optimizers, and return the file's SHA-256."""
    return write_durably(path, save(network_state(networks)))


def load_weights(path: Path, networks: Mapping[str, nn.Module], sha256: str) -> None:
    """Load a file written by `save_weights`.

    Tensors of other networks, such as discriminators, are left alone.
    Raises CheckpointError unless the file has this digest and exactly the tensors of these networks.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; run: dvc repro")
    content = path.read_bytes()
    if (actual := hashlib.sha256(content).hexdigest()) != sha256:
        raise CheckpointError(f"{path} has digest {actual}, its receipt says {sha256}; run: dvc repro")
    load_networks(networks, load(content))


def network_state(networks: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Return all parameters and buffers on the CPU, as `<network>/<name>` -> tensor."""
    return {name: tensor.cpu().contiguous() for name, tensor in _named_tensors(networks).items()}


def load_networks(networks: Mapping[str, nn.Module], tensors: Mapping[str, Tensor]) -> None:
    """Load tensors named as by `network_state`.

    Raises CheckpointError naming tensors that are missing, unexpected or of another shape.
    """
    for name, network in networks.items():
        state = {key.removeprefix(f"{name}/"): value for key, value in tensors.items() if key.startswith(f"{name}/")}
        try:
            network.load_state_dict(state, strict=True)
        except RuntimeError as error:
            raise CheckpointError(f"weights do not fit network {name}: {error}") from error


def _named_tensors(networks: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    return {
        f"{name}/{key}": tensor.detach()
        for name, network in sorted(networks.items())
        for key, tensor in network.state_dict().items()
    }


def _copy(tensor: Tensor) -> Tensor:
    # safetensors writes memory in order; a channels-last tensor has to be laid out again.
    return tensor.to("cpu", copy=True, memory_format=torch.contiguous_format)


def _optimizer_state(optimizers: Mapping[str, Optimizer]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split every optimizer's state into tensors, `<optimizer>/<index>/<name>`, and other values, as JSON."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for name, optimizer in optimizers.items():
        state = optimizer.state_dict()
        numbers[name] = {"groups": state["param_groups"], "state": {}}
        for index, values in state["state"].items():
            for key, value in values.items():
                if isinstance(value, Tensor):
                    tensors[f"{name}/{index}/{key}"] = value.detach()
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
        _match_layouts(optimizer)


def _match_layouts(optimizer: Optimizer) -> None:
    """Lay out the state of every parameter in memory as the parameter itself, such as channels last.

    A fused step reads them in the order of memory, and would mix up elements of different layouts.
    """
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                values[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
