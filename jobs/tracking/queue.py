"""The queue of finished trainings that wait for the tracking server: a folder each, in the order of their numbers."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from files.durable import write_durably
from files.errors import UserError
from files.locks import lock_file
from jobs.runs.folder import RunFolder

REASON = "reason.txt"  # beside a waiting training: why it waits
_KEPT = (RunFolder.RUN, RunFolder.CODE, RunFolder.MODEL, RunFolder.EVENTS, RunFolder.SAMPLES, "model")


def park(storage: Path, undelivered: Path, reason: str = "") -> Path:
    """Move a finished training's storage to the folder where it waits for the tracking server, without its checkpoints.

    undelivered: the folder of all waiting trainings.
    reason: why it waits.
    Returns the new place. Its name begins with a number that gives
    the order of delivery.
    """
    undelivered.mkdir(parents=True, exist_ok=True)
    number = 1 + max((_number(folder) for folder in list_waiting(undelivered)), default=0)
    folder = undelivered / f"{number:04d}-{storage.parent.name}-{storage.name}"
    storage.rename(folder)
    for path in folder.iterdir():
        if path.name not in _KEPT:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if reason:
        write_durably(folder / REASON, reason.encode())
    return folder


def describe_waiting(undelivered: Path) -> str | None:
    """Return in one line how many trainings wait, and why the first one does; None if none waits."""
    waiting = list_waiting(undelivered)
    if not waiting:
        return None
    first = waiting[0]
    reason = (first / REASON).read_text(errors="replace") if (first / REASON).is_file() else "not yet tried again"
    number = f"{len(waiting)} finished training{'s wait' if len(waiting) > 1 else ' waits'}"
    return f"{number} in {undelivered} for the tracking server ({first.name}: {reason}); python -m pipeline deliver"


def list_waiting(undelivered: Path) -> list[Path]:
    """Return the folders of waiting trainings, oldest first, then those whose name has no number."""
    folders = (path for path in undelivered.glob("[!.]*") if path.is_dir())
    return sorted(folders, key=lambda folder: (_number(folder) or sys.maxsize, os.fsencode(folder)))


def _number(folder: Path) -> int:
    """Return the number at the begin of a folder's name; 0 if there is none."""
    match = re.match(r"[0-9]{1,9}(?=-)", folder.name)
    return int(match[0]) if match else 0


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Let one process at a time deliver from a folder. A missing folder needs no lock, since nothing waits there.

    The lock of a killed process is free again.
    """
    if not folder.is_dir():
        yield
        return
    with (folder / ".lock").open("w") as file:
        lock_file(file)
        yield


def read_name(path: Path) -> str:
    """Return the name of a described run. Raises UserError for a file that describes none."""
    try:
        path.parent.name.encode()
        return str(json.loads(path.read_bytes())["name"])
    except UnicodeEncodeError as error:
        raise UserError(f"the name of {printable_path(path.parent)} is no UTF-8; rename that folder") from error
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; restore it, or remove its folder") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged; remove its folder, whose run cannot be delivered") from error


def printable_path(path: Path) -> str:
    """Return a path as text, with the bytes escaped that are no UTF-8."""
    return os.fsencode(path).decode(errors="backslashreplace")
