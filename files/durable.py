"""Write files so that each is complete under its final name, even after a kill or a power cut; compute digests."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from files.errors import UserError


@contextlib.contextmanager
def durable_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under `path` only when it is complete and on the disk.

    The bytes go to a partial file in the same folder. At the end the file is flushed to disk and renamed, and the
    folder is flushed. After an error the partial file is removed.
    An OSError without a file name, such as that of a full disk, gets the name of this file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with naming_file(path):
            with temporary.open("wb+") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextlib.contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Add the name of the file that is written to an OSError without one: the system names no file for a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


def write_durably(path: Path, content: bytes) -> str:
    """Write a file as `durable_file` does, and return the SHA-256 of its content, in hex."""
    with durable_file(path) as file:
        file.write(content)
    return hashlib.sha256(content).hexdigest()


def sync_file(path: Path) -> None:
    """Flush a file to disk, for a file that another library has written."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, after a rename for example."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_partial_files(folder: Path) -> None:
    """Remove the partial files of killed writers. Call it only while no other process writes to the folder."""
    for partial in folder.glob(".*.partial"):
        partial.unlink(missing_ok=True)


def check_replaceable(folder: Path) -> None:
    """Raise UserError, with nothing changed, if a folder or one of its subfolders cannot be emptied or replaced.

    folder: may be missing; then only the folder that it would be made in is checked.
    """
    if folder.is_symlink():
        raise UserError(f"{folder} is a link, which cannot be replaced by a folder; put a folder in its place")
    above = next(path for path in folder.parents if path.exists())
    for path in (above, *(Path(inside) for inside, _, _ in os.walk(folder))):
        if not os.access(path, os.W_OK | os.X_OK):
            raise UserError(
                f"{path} cannot be written to by this user, so {folder} is kept; make it writable with chmod u+w, or "
                "chown it if another user owns it"
            )


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
