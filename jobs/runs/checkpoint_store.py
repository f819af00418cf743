"""Live checkpoints in an object store: copied there while a training runs, fetched by a machine that has none.

Below the address that a job names for its training lies a folder per checkpoint: the tensors, then what belongs to the
whole training up to there (`events-<sha256>.jsonl`, `run-<sha256>.json`), and `state.json` last, so that its presence
means "whole". What is fetched is compared with its digests, as a checkpoint on disk is.
"""

from __future__ import annotations

import copy
import logging
import re
import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

from files.durable import durable_file, file_digest, sync_file, sync_folder
from files.locks import lock_file
from files.objects import MissingObjectError, ObjectStore, StoreConfig, StoreError
from jobs.runs.checkpoints import NETWORKS, OPTIMIZERS, STATE, CheckpointError, committed, is_whole, verify_checkpoint

log = logging.getLogger(__name__)

END_SECONDS = 60.0  # the longest that a training waits, at its end or when it is stopped, for its newest checkpoint
_RETRY_SECONDS = 5.0
_RECORDS = ("events.jsonl", "run.json")  # see jobs/runs/events.py and jobs/tracking/delivery.py
_NAME = re.compile(r"step-[0-9]{8}")


class CheckpointStore:
    """The checkpoints of one training in a store. config.url: of this training alone.

    Methods raise StoreError when the store does not do what is asked in time.
    """

    def __init__(self, config: StoreConfig) -> None:
        self.url = config.url
        self._objects = ObjectStore(config)

    def with_attempts(self, attempts: int) -> CheckpointStore:
        """The same over the same connection, with so many attempts at each request."""
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
        """Checkpoints that were copied to their end, newest first."""
        return _whole(self._objects.sizes())

    def put(self, checkpoint: Path, *, is_given_up: Callable[[], bool] = lambda: False) -> None:
        """Copy a checkpoint, over what an earlier copy has left, and the records of its training beside it.

        is_given_up: asked before each object; StoreError is raised if it says so.
        """
        name, storage = checkpoint.name, checkpoint.parent.parent
        for left in _state_first(self._objects.sizes(name)):
            self._objects.remove(left)
        for file in (NETWORKS, OPTIMIZERS, *_RECORDS, STATE):
            if is_given_up():
                raise StoreError(f"the copy of {name} to {self.url} was given up")
            if file in _RECORDS:
                self._put_record(storage / file, name)
            else:
                self._objects.put(checkpoint / file, f"{name}/{file}")

    def trim(self, name: str) -> None:
        """Of the checkpoints before this one keep the newest, and remove all else that is left of them."""
        sizes = self._objects.sizes()
        before = [other for other in _whole(sizes) if other < name]
        for left in _state_first(sizes):
            if (folder := left.partition("/")[0]) < name and folder not in before[:1] and _NAME.fullmatch(folder):
                self._objects.remove(left)

    def clear(self) -> None:
        """Remove everything: the training is finished."""
        for name in _state_first(self._objects.sizes()):
            self._objects.remove(name)

    def holds(self, checkpoint: Path) -> bool:
        """Whether the store has this very checkpoint, as far as its `state.json` and all sizes say."""
        sizes = self._objects.sizes(checkpoint.name)
        if any(sizes.get(f"{checkpoint.name}/{f}") != (checkpoint / f).stat().st_size for f in (NETWORKS, OPTIMIZERS)):
            return False
        with tempfile.TemporaryDirectory() as place:
            state = Path(place) / STATE
            try:
                self._objects.get(f"{checkpoint.name}/{STATE}", state)
            except MissingObjectError:
                return False
            return state.read_bytes() == (checkpoint / STATE).read_bytes()

    def newest(self, folder: Path) -> Path | None:
        """The newest whole checkpoint of `folder` and the store, which is then in `folder`; None if there is none.

        One that is damaged or does not arrive is named in a warning and passed over.
        Raises StoreError when nothing is found and the store did not answer, so that it may well have one.
        """
        problem: StoreError | None = None
        try:
            there = self.names()
        except StoreError as error:
            there, problem = [], error
            log.warning("%s; looking in %s alone", error, folder)
        here = {checkpoint.name for checkpoint in committed(folder)}
        for name in sorted({*here, *there}, reverse=True):
            if name in here and is_whole(folder / name):
                return folder / name
            if name in there:
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
        """Bring a checkpoint from the store to `folder`, in the place of one that is damaged.

        Raises CheckpointError when what the store has is damaged or not all there.
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

    def fetch_aside(self, name: str, digest: str, folder: Path) -> Path:
        """Bring the checkpoint whose `state.json` has this digest to a folder that the processes of a machine share.

        The first that asks fetches it, the others wait. Raises StoreError when the store has another or a damaged one.
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
            if (found := file_digest(fetched / STATE)) != digest:
                raise StoreError(
                    f"{self._url(name)}/{STATE} has digest {found}, rank 0 goes on from {digest}; end the other "
                    "training that writes there, and start again"
                )
            return fetched

    def fetch_records(self, storage: Path) -> None:
        """Put the log and the description of the tracked run in place when the store has them of a newer checkpoint.

        What is damaged is named in a warning and taken from the checkpoint before.
        """
        newest = max((checkpoint.name for checkpoint in committed(storage / "checkpoints")), default="")
        sizes = self._objects.sizes()
        newer = [name for name in _whole(sizes) if name > newest]
        for record in _RECORDS:
            stem, suffix = record.split(".")
            pattern = re.compile(rf"({_NAME.pattern})/{stem}-([0-9a-f]{{64}})\.{suffix}")
            found = [
                match for match in map(pattern.fullmatch, sorted(sizes, reverse=True)) if match and match[1] in newer
            ]
            for match in found:
                if self._fetch_record(match[0], match[2], storage / record):
                    break

    def _fetch_record(self, name: str, digest: str, path: Path) -> bool:
        try:
            with durable_file(path) as file:
                self._objects.get(name, Path(file.name))
                if (found := file_digest(Path(file.name))) != digest:
                    raise CheckpointError(f"its digest is {found}")
        except (CheckpointError, MissingObjectError) as error:
            log.warning("%s is damaged (%s); taking the one before it", self._objects.url_of(name), error)
            return False
        return True

    def _put_record(self, path: Path, checkpoint: str) -> None:
        """Copy a file as it is now: the log grows meanwhile, and whoever reads it leaves half a last line."""
        if not path.is_file():
            return
        with tempfile.TemporaryDirectory() as place:
            copy = Path(shutil.copyfile(path, Path(place) / path.name))
            self._objects.put(copy, f"{checkpoint}/{path.stem}-{file_digest(copy)}{path.suffix}")

    def _url(self, name: str) -> str:
        return self._objects.url_of(name)


class CheckpointCopier:
    """Copies the newest committed checkpoint to the store, in a thread; one that was overtaken meanwhile is left out.

    A store that does not take it is named once, until it does again; training goes on. Use it with `with`: left without
    an error, it waits END_SECONDS at most for the newest one, and says so if that was not enough.
    """

    def __init__(self, store: CheckpointStore) -> None:
        self._store = store
        self._changed = threading.Condition()
        self._due: Path | None = None
        self._held: Path | None = None
        self._copied: Path | None = None
        self._problem = ""
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="checkpoint-copier", daemon=True)

    def __enter__(self) -> CheckpointCopier:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        # After an error the others wait to hear which process failed, and the storage still has it.
        seconds = END_SECONDS if kind is None else 0.0
        with self._changed:
            is_done = self._changed.wait_for(lambda: self._due is None and self._held is None, seconds)
            newest = self._due or self._held
            self._is_closed = True
            self._changed.notify_all()
        if not is_done:
            why = self._problem or ("an error came first" if kind else f"{seconds:g} s were not enough")
            log.warning("%s was not brought up to checkpoint %s (%s)", self._store.url, newest, why)

    def copy(self, checkpoint: Path) -> None:
        """Have a committed checkpoint copied, instead of the one that waits."""
        with self._changed:
            self._due = checkpoint
            self._changed.notify_all()

    def is_held(self, checkpoint: Path) -> bool:
        """Whether this one is being copied."""
        return checkpoint == self._held

    def _run(self) -> None:
        while checkpoint := self._next():
            store = self._store.with_attempts(1)  # the next try comes from here, without another warning
            try:
                if checkpoint != self._copied:
                    store.put(checkpoint, is_given_up=lambda: self._is_closed)
                    self._copied = checkpoint
                store.trim(checkpoint.name)
                problem = ""
            except Exception as error:  # whatever it is, training goes on
                problem = f"{error}" or type(error).__name__
            if problem and not self._problem and not self._is_closed:
                log.warning(
                    "%s; training goes on, and %s gets the newest checkpoint when it can", problem, self._store.url
                )
            with self._changed:
                self._held, self._problem = None, problem
                if problem:
                    self._due = self._due or checkpoint
                self._changed.notify_all()
                if problem:
                    self._changed.wait_for(lambda: self._is_closed, _RETRY_SECONDS)

    def _next(self) -> Path | None:
        """The newest checkpoint, held from now on; None when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._due)
            if self._is_closed:
                return None
            self._held, self._due = self._due, None
            return self._held


def has_digest(checkpoint: Path, digest: str) -> bool:
    """Whether a checkpoint is there, whole, and its `state.json` has this digest."""
    try:
        verify_checkpoint(checkpoint, checkpoint.name)
    except CheckpointError:
        return False
    return file_digest(checkpoint / STATE) == digest


def _whole(sizes: dict[str, int]) -> list[str]:
    """Names of the checkpoints that have a `state.json`, newest first."""
    found = (name.partition("/") for name in sizes)
    return sorted((folder for folder, _, file in found if file == STATE and _NAME.fullmatch(folder)), reverse=True)


def _state_first(sizes: dict[str, int]) -> list[str]:
    """The order in which objects are removed: what is left of a checkpoint does not look whole."""
    return sorted(sizes, key=lambda name: (not name.endswith(f"/{STATE}"), name))
