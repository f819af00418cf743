"""The code that a process runs, in one archive: for its workers, and as a record beside the weights that it makes."""

from __future__ import annotations

import functools
import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from files.checkout import (
    DECLARATIONS,
    PYTHON_FOLDERS,
    ROOT,
    CodeList,
    list_changes,
    list_code,
    name_some,
    read_commit,
)
from files.durable import write_durably
from files.errors import UserError

_MAX_BYTES = 100_000_000  # Ray takes up to 512 MB


class CodeError(UserError):
    """The code of this checkout, or an archive of it, cannot be used; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Code:
    """The code of a checkout at one moment.

    archive: a zip file. The same files give the same bytes.
    listing: the names of its files.
    commit: git's commit; "unknown" without git.
    changes: inputs that differ from the commit; None if that is not known.
    """

    archive: bytes
    listing: CodeList
    commit: str
    changes: tuple[str, ...] | None

    @property
    def digest(self) -> str:
        """SHA-256 of the archive, in hex."""
        return hashlib.sha256(self.archive).hexdigest()

    @property
    def is_dirty(self) -> bool:
        """Whether the commit does not have all inputs as they are here, or that is not known."""
        return self.changes != ()

    def describe_changes(self) -> str:
        """Name the inputs that differ from the commit, in a few words."""
        return describe_changes(self.changes)

    def describe_differences(self) -> str:
        """Name the code that git does not have as it is here, in one line; "" if there is none."""
        untracked = set(self.listing.untracked)
        modified = tuple(name for name in self.changes or () if name not in (*untracked, *self.listing.left_out))
        parts = {
            "modified": tuple(name for name in modified if name.split("/")[0] in (*PYTHON_FOLDERS, *DECLARATIONS)),
            "untracked": self.listing.untracked,
            "left out (links, submodules, ignored by git)": self.listing.left_out,
        }
        return "; ".join(f"{word}: {name_some(names)}" for word, names in parts.items() if names)


def describe_changes(changes: tuple[str, ...] | None) -> str:
    """Name inputs that differ from the commit, in a few words; None if they are not known."""
    return "unknown" if changes is None else name_some(changes, 20) or "nothing"


@functools.cache
def process_code(root: Path = ROOT) -> Code:
    """Return the code of this process: as it was at the first call, which the command line makes before all imports.

    Raises CodeError if it is too large to be sent to workers.
    """
    listing = list_code(root)
    return Code(archive=_pack(root, listing), listing=listing, commit=read_commit(root), changes=list_changes(root))


def read_archive(path: Path, folders: Sequence[str] = PYTHON_FOLDERS) -> Mapping[str, bytes]:
    """Read an archive of code.

    folders: whose files are returned.
    Returns path relative to the checkout -> content.
    Raises CodeError if it is damaged or has a file that is no code of a checkout.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError) as error:
        raise CodeError(f"{path} is no archive of code ({error})") from error
    for name in files:
        parts = PurePosixPath(name).parts
        if name not in DECLARATIONS and (parts[0] not in PYTHON_FOLDERS or ".." in parts or "\\" in name):
            raise CodeError(f"{path} has {name!r}, which is no code of a checkout")
    return {name: content for name, content in files.items() if name.split("/")[0] in folders}


def unpack_archive(path: Path, folder: Path, folders: Sequence[str]) -> None:
    """Write the files of some folders of an archive below a folder."""
    for name, content in read_archive(path, folders).items():
        write_durably(folder / name, content)


def _pack(root: Path, listing: CodeList) -> bytes:
    sizes = {name: (root / name).stat().st_size for name in listing.files}
    if sum(sizes.values()) > _MAX_BYTES:
        largest = max(sizes, key=sizes.__getitem__)
        raise CodeError(
            f"the folders of code have {sum(sizes.values()) / 1e6:,.0f} MB, more than the {_MAX_BYTES / 1e6:.0f} MB "
            f"that workers get; the largest file is {root / largest}: move data out of the folders of code"
        )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:  # not compressed: compressors differ in their bytes
        for name in listing.files:
            member = zipfile.ZipInfo(name)  # with the same time for every file
            member.external_attr = 0o644 << 16
            archive.writestr(member, (root / name).read_bytes())
    return buffer.getvalue()
