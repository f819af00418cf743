"""Notes of the stages that run or have failed, a file each, for `python -m pipeline status`.

A stage holds a lock on its note while it runs. The note of a stage that ends well is removed. A note without a lock is
that of a stage that ended with the error in it, or of one that was killed or stopped.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from files.locks import is_at, lock_file
from jobs.runs.note import in_one_line
from pipeline.code import find_stage
from pipeline.layout import stage_note

_LOCK_SECONDS = 0.2  # `read_notes` holds the lock for a moment, too

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StageNote:
    """What is known of a run of a stage that has not ended well.

    holder: the process that runs it, or has run it, with its host.
    started: Unix time, in seconds.
    is_running: whether that process still runs it.
    error: with which it ended, in one line.
    """

    holder: str
    started: float
    is_running: bool = True
    error: str | None = None


@contextlib.contextmanager
def note_stage(words: list[str]) -> Iterator[None]:
    """Keep a note while a stage runs, and after an error.

    words: the command line after `python -m pipeline`. If it is no stage's, there is no note.
    If another process runs the same stage, or no file can be written here, the stage runs without a note.
    """
    found = find_stage(words)
    is_named = found is not None and re.fullmatch(r"[a-z0-9_]*", found[1])  # the stage refuses other generators
    lock = _open_locked(stage_note(*found)) if is_named else None
    if lock is None:
        yield
        return
    note = StageNote(holder=f"process {os.getpid()} on {socket.gethostname()}", started=time.time())
    log.info("%s begins", " ".join(words))
    try:
        _write(lock, note)
        yield
        log.info("%s has ended after %.1f s", " ".join(words), time.time() - note.started)
        _remove(stage_note(*found))
    except Exception as error:
        if getattr(error, "exit_code", 1) != os.EX_TEMPFAIL:  # not stopped on request
            _write(lock, replace(note, error=in_one_line(error)))
        raise
    finally:
        os.close(lock)


def read_note(stage: str, key: str = "") -> StageNote | None:
    """Read the note of a stage. Returns None if it is not running and has ended well, or has not been run here."""
    try:
        with stage_note(stage, key).open() as file:
            entries = json.loads(file.read())
            return StageNote(**{**entries, "is_running": not _is_free(file.fileno())})
    except (FileNotFoundError, ValueError, TypeError):  # TypeError: another version's note
        return None


def _open_locked(path: Path) -> int | None:
    """Open and lock a note. Returns its descriptor; None if another process holds it, or it cannot be made."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        if lock_file(lock, timeout_seconds=_LOCK_SECONDS) and is_at(lock, path):
            return lock
        os.close(lock)
    return None


def _is_free(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(lock: int, note: StageNote) -> None:
    with contextlib.suppress(OSError):  # the disk may be full
        os.ftruncate(lock, 0)
        os.pwrite(lock, json.dumps(asdict(note)).encode(), 0)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # notes of other stages are there
        path.unlink()
        path.parent.rmdir()
        path.parent.parent.rmdir()
