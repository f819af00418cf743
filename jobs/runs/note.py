"""The note that a stage leaves in the run folder of its training: the number of steps, and the error that ended it."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from files.addresses import without_secrets
from files.durable import write_durably

_MAX_LENGTH = 1000  # of an error, in characters


@dataclass(frozen=True, kw_only=True)
class Note:
    """What a stage tells other processes about the training that it runs.

    steps: of the whole training.
    started: when the stage took the training up last, as Unix time in seconds.
    error: the error that ended it, in one line; None while it runs, and after a stop.
    """

    steps: int
    started: float
    error: str | None = None


@contextlib.contextmanager
def leave_note(path: Path, *, steps: int, resumable: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Write a note at the start of a stage, and again with the error if the context ends with one.

    path: `RunFolder.note`.
    resumable: errors that only mean that the training was stopped.
    """
    note = Note(steps=steps, started=time.time())
    _write(path, note)
    try:
        yield
    except resumable:
        raise
    except Exception as error:
        with contextlib.suppress(OSError):  # the disk may be full, which is then the error
            _write(path, replace(note, error=in_one_line(error)))
        raise


def read_note(path: Path) -> Note | None:
    """Read a note. Returns None if there is none, or one that this code does not understand."""
    try:
        return Note(**json.loads(path.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def in_one_line(error: BaseException) -> str:
    """Return the name and the message of an error in one line, without the secrets of addresses."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return without_secrets(text)[:_MAX_LENGTH]


def _write(path: Path, note: Note) -> None:
    write_durably(path, json.dumps(asdict(note)).encode())
