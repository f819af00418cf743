"""Checkpoints of one training in an object store.

The address that a job names holds a folder per checkpoint, `step-00000120/`. Objects are written in this order:

1. `networks.safetensors`, `optimizers.safetensors`: the tensors;
2. `events-<sha256>.jsonl`, `run-<sha256>.json`: files about the whole training, as they were at that step;
3. `state.json`: last, so that its presence means that the checkpoint is complete. It is removed first.

Everything that is fetched is compared with its digests, as a checkpoint on disk is.
"""

from __future__ import annotations

import copy
import logging
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path

from files.durable import durable_file, file_digest, sync_file, sync_folder
from files.locks import lock_file
from files.objects import MissingObjectError, ObjectStore, StoreConfig, StoreError
from jobs.runs.checkpoints import (
    NETWORKS,
    OPTIMIZERS,
    STATE,
    CheckpointError,
    is_whole,
    verify_checkpoint,
)
from jobs.runs.folder import RunFolder, list_checkpoints

log = logging.getLogger(__name__)

_NAME = re.compile(r"step-[0-9]{8}")


class CheckpointStore:
    """Read and write the checkpoints of one training in a store.

    config: its url is the address of this training alone.

    Methods raise StoreError if the store does not answer in time or refuses.
    """

    def __init__(self, config: StoreConfig) -> None:
        self.url = config.url
        self._objects = ObjectStore(config)

    def with_attempts(self, attempts: int) -> CheckpointStore:
        """Return this store, over the same connection, with another number of attempts at each request."""
        other = copy.copy(self)
        other._objects = self._objects.with_attempts(attempts)
        return other

    def check(self) -> None:
        """Raise StoreError, with what to do, unless objects can be written, listed and removed."""
        name = f"check-{uuid.uuid4().hex}"
        try:
            with tempfile.NamedTemporaryFile() as file:
                file.write(b"can this be written?")
                file.flush()
                self._objects.put(Path(file.name), name)
            self._objects.sizes(name)
            self._objects.remove(name)
        except StoreError as error:
            raise StoreError(
                f"live checkpoints cannot be copied to {self.url}: {error}; start that store, correct "
                "cluster.checkpoints or the credentials in the environment, or set cluster.checkpoints to null"
            ) from error

    def names(self) -> list[str]:
        """Return the names of the complete checkpoints, newest first."""
        return _complete_names(self._objects.sizes())

    def put(self, checkpoint: Path, *, is_given_up: Callable[[], bool] = lambda: False) -> None:
        """Copy a checkpoint and the records of its training. Remains of an earlier copy are removed first.

        checkpoint: folder in a run folder's checkpoints.
        is_given_up: asked before each object; StoreError is raised if it returns True.
        """
        name, folder = checkpoint.name, RunFolder(checkpoint.parent.parent)
        for remains in _removal_order(self._objects.sizes(name)):
            self._objects.remove(remains)
        for path in (checkpoint / NETWORKS, checkpoint / OPTIMIZERS, *folder.records, checkpoint / STATE):
            if is_given_up():
                raise StoreError(f"the copy of {name} to {self.url} was given up")
            if path in folder.records:
                self._put_record(path, name)
            else:
                self._objects.put(path, f"{name}/{path.name}")

    def trim(self, name: str) -> None:
        """Remove the checkpoints older than this one, except the newest complete one of them."""
        sizes = self._objects.sizes()
        kept = [other for other in _complete_names(sizes) if other < name][:1]
        for left in _removal_order(sizes):
            folder = left.partition("/")[0]
            if _NAME.fullmatch(folder) and folder < name and folder not in kept:
                self._objects.remove(left)

    def clear(self) -> None:
        """Remove all objects of a finished training."""
        for name in _removal_order(self._objects.sizes()):
            self._objects.remove(name)

    def holds(self, checkpoint: Path) -> bool:
        """Return whether the store has this checkpoint: the same `state.json`, and tensors of the same sizes."""
        sizes = self._objects.sizes(checkpoint.name)
        for file in (NETWORKS, OPTIMIZERS):
            if sizes.get(f"{checkpoint.name}/{file}") != (checkpoint / file).stat().st_size:
                return False
        with tempfile.TemporaryDirectory() as temporary:
            state = Path(temporary) / STATE
            try:
                self._objects.get(f"{checkpoint.name}/{STATE}", state)
            except MissingObjectError:
                return False
            return state.read_bytes() == (checkpoint / STATE).read_bytes()

    def newest(self, folder: Path) -> Path | None:
        """Find the newest undamaged checkpoint in a folder and the store, and fetch it if the folder lacks it.

        folder: of one training's checkpoints, on disk.

        Returns its path in the folder; None if there is none. A checkpoint that is damaged or cannot be fetched is
        logged, and the one before it is taken.
        Raises StoreError if none is left and the store did not answer, since it may have one.
        """
        problem: StoreError | None = None
        try:
            stored_names = self.names()
        except StoreError as error:
            stored_names, problem = [], error
            log.warning("%s; looking in %s alone", error, folder)
        local_names = {checkpoint.name for checkpoint in list_checkpoints(folder)}
        for name in sorted({*local_names, *stored_names}, reverse=True):
            if name in local_names and is_whole(folder / name):
                return folder / name
            if name in stored_names:
                try:
                    return self.fetch(name, folder)
                except CheckpointError as error:
                    log.warning("checkpoint %s is damaged (%s); taking the one before it", self._url(name), error)
                except StoreError as error:
                    problem = error
                    log.warning("%s; taking the checkpoint before it", error)
        if problem:
            raise problem
        return None

    def fetch(self, name: str, folder: Path) -> Path:
        """Fetch a checkpoint into a folder, in place of a damaged one of that name, and return its path.

        Raises CheckpointError if the stored checkpoint is damaged or incomplete.
        """
        partial = folder / f".{name}.fetched"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            for file in (STATE, NETWORKS, OPTIMIZERS):
                self._objects.get(f"{name}/{file}", partial / file)
                sync_file(partial / file)
            verify_checkpoint(partial, name)
            shutil.rmtree(folder / name, ignore_errors=True)
            partial.rename(folder / name)
        except MissingObjectError as error:
            raise CheckpointError(str(error)) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        sync_folder(folder)
        return folder / name

    def fetch_once(self, name: str, digest: str, folder: Path) -> Path:
        """Fetch a checkpoint for all processes of a machine: the first one to ask fetches it, the others wait.

        digest: expected SHA-256 of its `state.json`.
        folder: shared by the processes.

        Returns its path. Raises StoreError if the stored checkpoint is damaged or has another digest.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            lock_file(lock)
            if has_digest(folder / name, digest):
                return folder / name
            try:
                fetched = self.fetch(name, folder)
            except CheckpointError as error:
                raise StoreError(f"{self._url(name)} is damaged ({error}); remove it, and start again") from error
            if (actual := file_digest(fetched / STATE)) != digest:
                raise StoreError(
                    f"{self._url(name)}/{STATE} has digest {actual}, rank 0 goes on from {digest}; end the other "
                    "training that writes there, and start again"
                )
            return fetched

    def fetch_records(self, folder: RunFolder) -> None:
        """Fetch the files about the whole training if the store has them of a newer checkpoint than the folder.

        A damaged one is logged, and the one before it is taken.
        """
        newest = max((checkpoint.name for checkpoint in list_checkpoints(folder.checkpoints)), default="")
        sizes = self._objects.sizes()
        newer = {name for name in _complete_names(sizes) if name > newest}
        for record in folder.records:
            pattern = re.compile(rf"({_NAME.pattern})/{record.stem}-([0-9a-f]{{64}}){re.escape(record.suffix)}")
            for name in sorted(sizes, reverse=True):
                match = pattern.fullmatch(name)
                if match and match[1] in newer and self._fetch_record(name, match[2], record):
                    break

    def _put_record(self, path: Path, checkpoint: str) -> None:
        """Copy a file about the whole training, if it exists, under a name with its digest."""
        if not path.is_file():
            return
        # The log grows meanwhile, so a copy is uploaded. It may end in half a line, which readers leave out.
        with tempfile.TemporaryDirectory() as temporary:
            unchanging = Path(shutil.copyfile(path, Path(temporary) / path.name))
            self._objects.put(unchanging, f"{checkpoint}/{path.stem}-{file_digest(unchanging)}{path.suffix}")

    def _fetch_record(self, name: str, digest: str, path: Path) -> bool:
        """Fetch one object into a file; return False, and leave the file unchanged, if it is damaged."""
        try:
            with durable_file(path) as file:
                self._objects.get(name, Path(file.name))
                if (actual := file_digest(Path(file.name))) != digest:
                    raise CheckpointError(f"its digest is {actual}")
        except (CheckpointError, MissingObjectError) as error:
            log.warning("%s is damaged (%s); taking the one before it", self._objects.url_of(name), error)
            return False
        return True

    def _url(self, name: str) -> str:
        return self._objects.url_of(name)


def has_digest(checkpoint: Path, digest: str) -> bool:
    """Return whether a checkpoint exists, is undamaged, and its `state.json` has this SHA-256."""
    try:
        verify_checkpoint(checkpoint, checkpoint.name)
    except CheckpointError:
        return False
    return file_digest(checkpoint / STATE) == digest


def _complete_names(sizes: dict[str, int]) -> list[str]:
    """Return the names of the checkpoints that have a `state.json`, newest first. sizes: object name -> bytes."""
    folders = [name.removesuffix(f"/{STATE}") for name in sizes if name.endswith(f"/{STATE}")]
    return sorted((folder for folder in folders if _NAME.fullmatch(folder)), reverse=True)


def _removal_order(sizes: dict[str, int]) -> list[str]:
    """Sort objects so that every `state.json` is first: a checkpoint that is partly removed is not complete."""
    return sorted(sizes, key=lambda name: (not name.endswith(f"/{STATE}"), name))
