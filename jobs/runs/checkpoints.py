"""Checkpoints: networks, optimizers and step as one set that commits as one, without any pickle.

A checkpoint is a folder `step-00000120` with `networks.safetensors`, `optimizers.safetensors` and `state.json`, which
lists the digests of the other two. It is written under another name and renamed when all of it is on the disk.
There are no random states to keep: every random number of a step is drawn from a seed that names the step.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from files.durable import file_digest, sync_file, sync_folder, write_durably
from files.errors import UserError

log = logging.getLogger(__name__)

NETWORKS, OPTIMIZERS, STATE = "networks.safetensors", "optimizers.safetensors", "state.json"


class CheckpointError(UserError):
    """Weights or a checkpoint are missing, damaged, or of another network."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The state after a step, in memory of its own: the training may go on while it is written.

    networks, optimizers: tensors by path. numbers: the optimizers' plain values. progress: what the loop keeps.
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
    """Copy the state after `step` steps. progress: plain data to keep with it."""
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
    """Commit a snapshot and return its folder; older ones beyond the newest `keep` are removed, unless they are held.

    Raises OSError when it cannot be written; then nothing else has changed.
    """
    final = folder / f"step-{snapshot.step:08d}"
    if final.is_dir():
        if is_whole(final):
            return final
        shutil.rmtree(final)  # a damaged one, which an earlier start passed over
    partial = folder / f".{final.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    digests = {}
    for name, tensors in ((NETWORKS, snapshot.networks), (OPTIMIZERS, snapshot.optimizers)):
        try:
            save_file(dict(tensors), partial / name)
        except SafetensorError as error:
            raise CheckpointError(f"{partial / name} cannot be written: {error}") from error
        sync_file(partial / name)
        digests[name] = file_digest(partial / name)
    state = {
        "step": snapshot.step,
        "digests": digests,
        "optimizers": snapshot.numbers,
        "progress": snapshot.progress,
    }
    write_durably(partial / STATE, json.dumps(state, indent=2, sort_keys=True).encode())
    partial.rename(final)
    sync_folder(folder)
    for old in committed(folder)[keep:]:
        if not is_held(old):
            shutil.rmtree(old)
    return final


class CheckpointWriter:
    """Writes checkpoints of one folder in the background, one at a time.

    on_commit is called there with each. is_held: whether one may not be removed yet, though it is old.
    Whatever goes wrong while one is written is raised by the next call, as it was.
    """

    def __init__(
        self,
        folder: Path,
        *,
        on_commit: Callable[[Path], None] = lambda checkpoint: None,
        is_held: Callable[[Path], bool] = lambda checkpoint: False,
    ) -> None:
        self._folder = folder
        self._on_commit = on_commit
        self._is_held = is_held
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._written: Future | None = None

    def write(self, snapshot: Snapshot) -> None:
        """Begin to write a snapshot, once the one before it is committed."""
        self.wait()
        self._written = self._thread.submit(self._write, snapshot)

    def wait(self) -> None:
        """Return when the last snapshot is committed."""
        if self._written is not None:
            written, self._written = self._written, None
            written.result()

    def check(self) -> None:
        """Raise what has gone wrong so far; waits for nothing."""
        if self._written is not None and self._written.done():
            self.wait()

    def close(self) -> None:
        """Wait for what is being written and end the thread."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()

    def _write(self, snapshot: Snapshot) -> None:
        self._on_commit(write_checkpoint(self._folder, snapshot, is_held=self._is_held))


def committed(folder: Path) -> list[Path]:
    """Committed checkpoints, newest first: by step, since clocks may run backwards."""
    return sorted(folder.glob("step-*"), reverse=True)


def newest_whole_checkpoint(folder: Path) -> Path | None:
    """The newest set whose digests hold; a damaged one is named in a warning and passed over. None if there is none."""
    return next((checkpoint for checkpoint in committed(folder) if is_whole(checkpoint)), None)


def load_checkpoint(
    checkpoint: Path, networks: Mapping[str, nn.Module], optimizers: Mapping[str, Optimizer]
) -> tuple[int, dict[str, Any]]:
    """Load a whole checkpoint into the networks and optimizers; returns its step and progress.

    Raises CheckpointError when it is of another network.
    """
    state = json.loads((checkpoint / STATE).read_text())
    load_networks(networks, load_file(checkpoint / NETWORKS))
    _load_optimizers(optimizers, load_file(checkpoint / OPTIMIZERS), state["optimizers"])
    return state["step"], state["progress"]


def read_progress(checkpoint: Path) -> dict[str, Any]:
    """What the loop kept with a whole checkpoint."""
    return json.loads((checkpoint / STATE).read_text())["progress"]


def is_whole(checkpoint: Path) -> bool:
    """Whether a committed checkpoint's digests hold; if not, a warning says so."""
    try:
        verify_checkpoint(checkpoint, checkpoint.name)
    except CheckpointError as error:
        log.warning("checkpoint %s is damaged (%s); taking the one before it", checkpoint, error)
        return False
    return True


def verify_checkpoint(folder: Path, name: str) -> None:
    """Raise CheckpointError unless a folder holds, whole, the set that is to be called `name`."""
    try:
        state = json.loads((folder / STATE).read_text())
        if state["step"] != int(name.removeprefix("step-")):
            raise CheckpointError(f"{folder / STATE} is of step {state['step']}")
        if set(state["digests"]) != {NETWORKS, OPTIMIZERS}:
            raise CheckpointError(f"{folder / STATE} lists other files")
        for file, digest in state["digests"].items():
            if (found := file_digest(folder / file)) != digest:
                raise CheckpointError(f"{folder / file} has digest {found}, expected {digest}")
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{type(error).__name__}: {error}") from error


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
    return {name: tensor.cpu().contiguous() for name, tensor in _named_tensors(networks).items()}


def load_networks(networks: Mapping[str, nn.Module], tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `network_state`. Raises CheckpointError naming what is missing, unexpected or of another shape."""
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
    """A copy in the CPU's memory, laid out as it is stored."""
    return tensor.to("cpu", copy=True, memory_format=torch.contiguous_format)


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
