"""Files that no data set reads, by rule: which names they have, and how many there are."""

from __future__ import annotations

import bisect
import functools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from files.picture_formats import format_by_name

HIDDEN = "hidden file or folder"
LITTER = "thumbnails, trash or snapshots of a system"
COPY = "backup or unfinished copy of a picture"
NUM_EXAMPLES = 3

_MOST_SHOWN = 60  # characters of a name on the terminal

# In small letters, because some of these systems do not tell small letters from capitals.
_LITTER_NAMES = frozenset({
    # macOS, also on other systems' disks
    "__macosx", "icon\r", "network trash folder", "temporary items", "thevolumesettingsfolder",
    # Windows
    "$recycle.bin", "recycler", "system volume information", "thumbs.db", "ehthumbs.db",
    "ehthumbs_vista.db", "desktop.ini", "$extend",
    # Linux
    "lost+found",
    # storage boxes: Synology, QNAP, Asustor and TerraMaster, NetApp, Samba and Nextcloud
    "@eadir", "@tmp", "@sharebin", "@synologydrive", "#recycle", "#snapshot", "@recycle", "@recently-snapshot",
    "@transcode", "@__thumb", "@snapshots", "~snapshot", "files_trashbin", "files_versions",
})  # fmt: skip
# Streams of Windows and Synology that some servers show as files; previews of Lightroom
_LITTER_STARTS = ("thumbs.db:",)
_LITTER_ENDS = ("@synoeastream", "@synoresource", ".lrdata")
# Endings that editors, exiftool and browsers add to the name of a picture
_COPY_ENDS = ("~", "_original", ".bak", ".backup", ".orig", ".old", ".part", ".partial", ".filepart", ".crdownload",
              ".download", ".tmp", ".temp")  # fmt: skip
_NO_PHOTOGRAPHS = re.compile(
    r"(?:.*/)?(?:found\.\d{3}/.*"  # fragments that chkdsk saves
    # Of a library of Photos, iPhoto or Aperture, only these folders hold photographs
    r"|[^/]+\.(?:photoslibrary|photolibrary|migratedphotolibrary|aplibrary)/(?!originals/|masters/).+)"
)


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """The files that one rule leaves out of a data set.

    rule: in a few words.
    count: number of files.
    examples: the first names, at most `NUM_EXAMPLES`; characters that cannot be printed are shown as "?".
    """

    rule: str
    count: int
    examples: tuple[str, ...]


class LeftOutFiles:
    """Count files by the rule that leaves them out. Needs little memory for any number of files."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._examples: dict[str, list[str]] = {}

    def add(self, rule: str, name: str) -> None:
        self._counts[rule] = self._counts.get(rule, 0) + 1
        examples = self._examples.setdefault(rule, [])
        if len(examples) < NUM_EXAMPLES or name < examples[-1]:
            bisect.insort(examples, name)
            del examples[NUM_EXAMPLES:]

    def update(self, other: LeftOutFiles) -> None:
        """Add all files that another object counts."""
        for rule, count in other._counts.items():
            self._counts[rule] = self._counts.get(rule, 0) + count
            self._examples[rule] = sorted([*self._examples.get(rule, ()), *other._examples[rule]])[:NUM_EXAMPLES]

    def summary(self) -> tuple[LeftOut, ...]:
        """Return one entry per rule, in the order of the rules' names."""
        return tuple(
            LeftOut(rule=rule, count=count, examples=tuple(map(_printable, self._examples[rule])))
            for rule, count in sorted(self._counts.items())
        )


def describe(left_out: tuple[LeftOut, ...]) -> str:
    """Return one line for the user: count, rule and an example of each rule."""
    return "; ".join(f"{entry.count:,} {entry.rule} ({_shortened(entry.examples[0])})" for entry in left_out)


def rule_of(name: str) -> str | None:
    """Return the rule that leaves a file or folder out; None if no rule of this file does.

    name: path relative to the data set; that of a folder ends with a slash.
    """
    folder, _, file = name.rpartition("/")
    return _rule_of_folder(folder) or _rule_of_word(file.lower()) or (COPY if _is_copy(file) else None)


def files_below(root: Path, name: str) -> Iterator[str]:
    """Yield the paths of the files of a folder that is left out, or of the file itself, relative to `root`.

    root: the data set's folder.
    name: path of the file or folder, relative to `root`.
    Links are not followed. A folder that this user may not open, such as the trash of another user, counts as one file.
    """
    if (root / name).is_symlink():
        yield name
        return
    unopened: list[OSError] = []  # also the file itself, which is no folder
    for folder, _, files in os.walk(root / name, onerror=unopened.append):
        yield from ((Path(folder) / file).relative_to(root).as_posix() for file in files)
    yield from (Path(error.filename).relative_to(root).as_posix() for error in unopened)


@functools.lru_cache(maxsize=2**16)
def _rule_of_folder(folder: str) -> str | None:
    small = folder.lower()
    if rule := next(filter(None, map(_rule_of_word, small.split("/"))), None):
        return rule
    return LITTER if _NO_PHOTOGRAPHS.fullmatch(f"{small}/") else None


def _rule_of_word(small: str) -> str | None:
    """Return the rule for the name of a file or folder in small letters."""
    if small in _LITTER_NAMES or small.startswith(_LITTER_STARTS) or small.endswith(_LITTER_ENDS):
        return LITTER
    return HIDDEN if small.startswith(".") else None


def _is_copy(file: str) -> bool:
    """Return whether a file has the name of a picture with an ending added to it."""
    if not file.lower().endswith(_COPY_ENDS):
        return False
    return any(format_by_name(file[: -len(ending)]) for ending in _COPY_ENDS if file.lower().endswith(ending))


def _printable(name: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in name)


def _shortened(name: str) -> str:
    return name if len(name) <= _MOST_SHOWN else f"...{name[3 - _MOST_SHOWN :]}"
