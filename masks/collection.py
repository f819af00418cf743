"""Read masks from a collection on the user's disk."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from files.archives import ArchiveError, ChangedFileError, Locator, MemberError, open_tree, read, read_many
from files.errors import UserError
from files.pictures import RejectedImageError
from masks.config import MaskFiles
from masks.hole_ratio import BINS, OTHER, bin_name, hole_ratio
from masks.reading import fit_mask, read_mask

log = logging.getLogger(__name__)
_MAX_DRAWS = 1000  # tried for a mask that still has a hole after its resize
_NUM_NAMED = 3  # files that an error about many files lists


class MaskFilesError(UserError):
    """A collection of masks does not match its config. The message says what is in it and what to set."""


@dataclass(frozen=True, slots=True)
class MaskFile:
    """One file of a collection.

    sha256: of its content.
    ratio: its hole ratio at its size on disk.
    remarks: how it was understood, if it is not plainly black and white.
    """

    locator: Locator
    sha256: str
    ratio: float
    remarks: tuple[str, ...]


class MaskCollection:
    """The masks of a folder, .zip or .tar, which is not unpacked.

    `read_mask` says how masks are understood. Those that are not plainly black and white are counted in the log.
    Files are ordered by their digests, and the collection's digest is the digest of these. So names, folders and the
    kind of container change nothing. Each draw compares the file with its digest again.

    A mask does not tell whether black or white is the hole. The declared colour is checked by the hole ratios that it
    gives: none may exceed `max_hole_ratio`. An inverted file passes only if its true ratio is at least
    1 - max_hole_ratio, by default 0.4; an inverted collection passes only if this is true of all its files.

    Raises MaskFilesError if the collection cannot be read or does not match the config.
    """

    def __init__(self, config: MaskFiles) -> None:
        self.config = config
        listed, num_others = _list_pngs(config)
        files = sorted(_index(config, listed), key=lambda file: file.sha256)
        self.sha256 = hashlib.sha256("".join(file.sha256 for file in files).encode()).hexdigest()
        _check_polarity(config, files)
        if config.sha256 != self.sha256:
            problem = "its digest is not files.sha256" if config.sha256 else "files.sha256 is not set"
            raise MaskFilesError(f"{config.root}: {problem}; set it to {self.sha256} to use its {len(files)} masks")
        self.files = [file for file in files if file.ratio > 0]
        if not self.files:
            raise MaskFilesError(f"{config.root}: none of its {len(files)} masks has a hole that is {config.hole}")
        if num_others or len(self.files) < len(files):
            num_empty = len(files) - len(self.files)
            log.warning("%s: left out %d files that are no PNG, %d without a hole", config.root, num_others, num_empty)
        for remark, count in Counter(remark for file in self.files for remark in file.remarks).items():
            log.warning("%s: %d of %d masks: %s", config.root, count, len(self.files), remark)

    def draw(self, height: int, width: int, seed: int) -> np.ndarray:
        """Return the mask of a seed, uint8 (height, width), 1 = hole; all files are equally likely.

        A file of another size is resized by nearest neighbour.
        Raises MaskFilesError if a file has changed, or if no file keeps its hole at this size.
        """
        rng = np.random.Generator(np.random.PCG64(seed))
        for _ in range(_MAX_DRAWS):
            mask = self._fit(self.files[int(rng.integers(len(self.files)))], rng, height, width)
            if mask.any():
                return mask
        raise MaskFilesError(f"{self.config.root}: {_MAX_DRAWS} of its masks have no hole left at {height}x{width}")

    def draw_in_bin(self, height: int, width: int, low: float, high: float, seed: int) -> np.ndarray:
        """Return the mask of a seed from the files whose hole ratio is in (low, high], on disk and at this size.

        Raises MaskFilesError, with the number of files in each bin, if there is none.
        """
        rng = np.random.Generator(np.random.PCG64(seed))
        inside = [file for file in self.files if low < file.ratio <= high]
        for index in rng.permutation(len(inside)):
            mask = self._fit(inside[index], rng, height, width)
            if low < hole_ratio(mask) <= high:
                return mask
        raise MaskFilesError(
            f"{self.config.root} has no mask with a hole ratio in ({low}, {high}] at {height}x{width}; on disk it has "
            f"{_by_bin(self.files)}; use a collection that fills every bin, or another kind of mask"
        )

    def _fit(self, file: MaskFile, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        try:
            content = read(file.locator)
        except ChangedFileError as error:
            raise MaskFilesError(str(error)) from error
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise MaskFilesError(f"{self.config.root}: {file.locator.member} has changed; run the command again")
        mask = read_mask(content, hole=self.config.hole, threshold=self.config.threshold).mask
        if self.config.turns:
            mask = np.rot90(mask, int(rng.integers(4)))
            mask = mask[:, :: -1 if rng.integers(2) else 1]
        return fit_mask(mask, height, width)


def _list_pngs(config: MaskFiles) -> tuple[list[Locator], int]:
    """Return the PNG files and the number of other files."""
    try:
        tree = open_tree(Path(config.root), follow_links=True)  # the digest of the files is a parameter
    except ArchiveError as error:
        raise MaskFilesError(str(error)) from error
    if tree.kind == "tar.gz":
        raise MaskFilesError(f"{config.root} is a .tar.gz, which gives no access to single files; pack it as .zip")
    listed = [locator for name, locator in tree.entries.items() if name.lower().endswith(".png")]
    if not listed:
        raise MaskFilesError(f"{config.root} holds {len(tree.entries)} files and no .png among them")
    return listed, len(tree.entries) - len(listed)


def _index(config: MaskFiles, listed: list[Locator]) -> Iterator[MaskFile]:
    """Yield every file with its digest and its ratio. Raises MaskFilesError if any cannot be used."""
    problems = []
    for locator, content in zip(listed, read_many(listed), strict=True):
        try:
            if isinstance(content, MemberError):
                raise content
            reading = read_mask(content, hole=config.hole, threshold=config.threshold)
        except (MemberError, RejectedImageError) as error:
            problems.append(f"{locator.member} ({error.reason})")
        else:
            remarks = (*(() if reading.hole == config.hole else (f"the hole is {reading.hole}",)), *reading.notes)
            yield MaskFile(locator, hashlib.sha256(content).hexdigest(), hole_ratio(reading.mask), remarks)
    if problems:
        first = ", ".join(problems[:_NUM_NAMED])
        raise MaskFilesError(
            f"{config.root}: {len(problems)} of {len(listed)} masks cannot be used: {first}; take them out, or set "
            "files.threshold if they are only grey"
        )


def _check_polarity(config: MaskFiles, files: list[MaskFile]) -> None:
    """Raise MaskFilesError if the hole ratio of any file exceeds config.max_hole_ratio."""
    large = [file for file in files if file.ratio > config.max_hole_ratio]
    if not large:
        return
    median = float(np.median([file.ratio for file in files]))
    other = "black" if config.hole == "white" else "white"
    worst = max(large, key=lambda file: file.ratio)
    problem = (
        f"{config.root}: with files.hole = {config.hole}, {len(large)} of {len(files)} masks have a hole ratio above "
        f"{config.max_hole_ratio} (files.max_hole_ratio), {worst.locator.member} has {worst.ratio:.3f}; the median is "
        f"{median:.3f}"
    )
    if median > 0.5:
        raise MaskFilesError(f"{problem}. The colours look inverted: set files.hole to {other}")
    raise MaskFilesError(
        f"{problem}. Those files look inverted, unlike the rest: take them out or invert them, or raise "
        "files.max_hole_ratio if their holes are so large"
    )


def _by_bin(files: list[MaskFile]) -> str:
    names = [bin_name(file.ratio) for file in files]
    return ", ".join(f"{names.count(name)} in {name}" for name in (*(name for name, _, _ in BINS), OTHER))
