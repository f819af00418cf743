"""One experiment: what makes two trainings the same, where it lies, who is training it, and how it is asked to stop."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from files.durable import write_durably
from files.errors import UserError
from files.locks import lock_file
from jobs.runs.receipt import WEIGHTS_NAME
from jobs.runs.stopping import RESUMABLE, stop_mark

_SHOWN = 8


class ExperimentError(UserError):
    """Another experiment of this generator waits unfinished; the message names the differences and what to do."""


class StoppedError(UserError):
    """The training was asked to stop and has committed its state; the same command goes on from there."""

    exit_code = RESUMABLE


@dataclass(frozen=True)
class Experiment:
    """A training by what it is made of: parameters, digests of its data, code and packages.

    parts: plain data. root: folder of live trainings, on a file system that every node sees. Neither the number of
    processes nor the machine is a part: an experiment may be taken up with others.
    """

    generator: str
    parts: Mapping[str, Any]
    root: Path

    @property
    def identity(self) -> str:
        """SHA-256 of the parts, in hex."""
        return hashlib.sha256(json.dumps(self.parts, sort_keys=True).encode()).hexdigest()

    @property
    def storage(self) -> Path:
        """Where its checkpoints, events and notes lie until it is finished."""
        return self.root / self.generator / self.identity[:16]

    def check(self, *, start_anew: bool) -> None:
        """Raise ExperimentError, unless `start_anew`, when this experiment has no storage yet but one of another
        experiment of this generator lies unfinished, which nobody is training."""
        if start_anew or (self.storage / "experiment.json").is_file():
            return
        for other in unfinished(self.root, self.generator):
            raise ExperimentError(self._differences(other))

    def describe(self) -> None:
        """Note in the storage what it belongs to."""
        write_durably(self.storage / "experiment.json", json.dumps(self.parts, indent=2, sort_keys=True).encode())

    def _differences(self, other: Path) -> str:
        theirs, ours = _flat(json.loads((other / "experiment.json").read_text())), _flat(self.parts)
        wrong = [
            f"{key} was {_short(theirs.get(key))}, is {_short(ours.get(key))}"
            for key in sorted({*theirs, *ours})
            if theirs.get(key) != ours.get(key)
        ]
        shown = "; ".join(wrong[:_SHOWN]) + (f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else "")
        return (
            f"{other} holds an unfinished training of {self.generator} that is another experiment: {shown}. Set these "
            f"back to go on with it; remove the folder to give it up; or leave it and train this one with "
            f"-S cluster.start_anew=true"
        )


def unfinished(root: Path, generator: str) -> list[Path]:
    """Storages of a generator's trainings that have a checkpoint, are not at their end, and that nobody is training."""
    return [
        folder.parent
        for folder in sorted((root / generator).glob("[!.]*/checkpoints"))
        if any(folder.glob("step-*"))
        and (folder.parent / "experiment.json").is_file()
        and not (folder.parent / WEIGHTS_NAME).is_file()
        and holder(folder.parent) is None
    ]


def holder(storage: Path) -> str | None:
    """Who is training in a storage, as it says of itself; None if nobody is."""
    try:
        with (storage / "lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return (storage / "lock").read_text() or "another process"


@contextlib.contextmanager
def claimed(
    storage: Path, watch: Callable[[str], contextlib.AbstractContextManager[Callable[[], None]]]
) -> Iterator[bool]:
    """Be the one process that trains in a storage; while another is, watch it. Yields whether there was another.

    watch(holder): opened while another process trains; what it gives is called twice a second.
    """
    waited = False
    while True:
        storage.mkdir(parents=True, exist_ok=True)
        with (storage / "lock").open("a+") as lock:
            if not lock_file(lock, timeout_seconds=0):
                waited = True
                with watch(holder(storage) or "another process") as look:
                    while not lock_file(lock, timeout_seconds=0):
                        look()
                        time.sleep(0.5)
            if not _is_at(lock, storage / "lock"):  # the other one has finished, and removed the storage
                continue
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {socket.gethostname()}")
            lock.flush()
            yield waited
            return


def discard(storage: Path) -> None:
    """Remove the storage of a finished training: at once under its name, so that a kill leaves no half of it."""
    storage.rename(storage.with_name(f".{storage.name}.{os.getpid()}.removed"))
    for folder in storage.parent.glob(".*.removed"):  # this one, and what killed processes left
        shutil.rmtree(folder, ignore_errors=True)  # another process may be at it, too


def _is_at(file: IO, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False


@contextlib.contextmanager
def stoppable(storage: Path) -> Iterator[None]:
    """Until the end, SIGTERM and Ctrl-C ask for a stop, the second time at once; a lost terminal changes nothing."""
    stop_mark(storage).unlink(missing_ok=True)
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: object) -> None:
        if stop_mark(storage).exists():
            raise KeyboardInterrupt
        stop_mark(storage).touch()
        with contextlib.suppress(OSError):
            print("saving, then stopping; once more to stop at once", file=sys.stderr, flush=True)

    asked = {signal.SIGTERM: ask, signal.SIGINT: ask, signal.SIGHUP: signal.SIG_IGN}
    before = {number: signal.signal(number, action) for number, action in asked.items()}
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    return {
        key: value
        for name, child in tree.items()
        for key, value in _flat(child, f"{prefix}.{name}" if prefix else name).items()
    }


def _short(value: Any) -> str:
    text = json.dumps(value) if value is not None else "absent"
    return text if len(text) <= 24 else f"{text[:12]}…"
