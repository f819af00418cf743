"""The contract of a data set: its config, its card, its pictures with their splits, and code that data sets share.

Read this first. Each data set is one short file beside this one, with a subclass of `Source`.
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from operator import attrgetter
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from files.archives import MAX_MEMBER_BYTES, Locator, archive_kind, locate_file, open_inner, open_tree, read
from files.errors import UserError
from files.left_out import LeftOut, LeftOutFiles, describe
from files.picture_formats import format_by_name, suffix_of

# A key has no suffix of these: two files that differ only in it are two encodings of one picture, and are refused.
_SUFFIXES_WITHOUT_KEY = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
)
_ARCHIVE_SUFFIXES = frozenset({".zip", ".tar", ".tgz", ".gz", ".7z", ".rar", ".bz2", ".tbz2", ".xz", ".txz", ".zst"})
SPLITS = ("train", "val", "test")


class SourceError(UserError):
    """A data set on the user's disk differs from its card. The message names the file and says what to do."""


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """The block `dataset` of params.yaml. A data set with options of its own declares a subclass in its file.

    name: name of the data set.
    root: path of a folder with the tree, of a folder with the official archives, or of one archive; None for a data
        set that needs none.
    splits: the splits to read, each once; all others are ignored.
    watch: a file or folder; its change makes the ingested shards stale. Only dvc.yaml reads it.
    follow_links: whether links in the folder `root` may lead out of it. If false, such a link is an error.
    """

    name: str
    root: str | None = None
    splits: tuple[str, ...] = SPLITS
    watch: str = "requirements.lock"
    follow_links: bool = False

    def __post_init__(self) -> None:
        if not self.splits or len(set(self.splits)) < len(self.splits) or not set(self.splits) <= set(SPLITS):
            raise ValueError(f"splits must be some of {', '.join(SPLITS)}, each once, got {', '.join(self.splits)!r}")


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One picture to ingest. Small and picklable: a list of eight million must fit into memory.

    name: path inside the data set.
    key: unique in the data set, made from the name.
    split: "train", "val" or "test".
    locator: the picture's file.
    label: its class; None if not known.
    group: name shared by pictures of the same thing. A group is in one split, unless a published list separates it.
    crop: left, top, right, bottom in pixels of the decoded picture; None for the whole picture.
    labels: files from which `Source.label_map` makes the picture's semantic labels; empty if there are none.
    """

    name: str
    key: str
    split: str
    locator: Locator
    label: str | None = None
    group: str | None = None
    crop: tuple[int, int, int, int] | None = None
    labels: tuple[Locator, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Card:
    """Facts about a data set for its users.

    name: the name in params.yaml, which is also the name of the file here.
    splits: the splits that it can have.
    counts: pictures per published split; empty if they vary.
    labels: the labels of each picture.
    layout: the files that must be on disk.
    licence: in a few words.
    redistributable: whether the licence allows to redistribute the pictures.
    consent: whether the persons in the pictures agreed to their use, in a few words.
    defects: known traps.
    options: field of the data set's `Config` -> its meaning; all fields that `SourceConfig` does not have.
    """

    name: str
    splits: tuple[str, ...]
    counts: Mapping[str, int]
    labels: str
    layout: str
    licence: str
    redistributable: bool
    consent: str = "not stated by its owners"
    defects: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)


class Source(ABC):
    """One data set. `card` describes it, and `images` lists it.

    Config: type of its config.
    classes: names of the semantic classes, label 0 first; empty if the data set has no label maps.
    mirrored: pairs of labels that swap when a picture is flipped, such as the left and the right eye.
    Raises TypeError for a config of another type.
    """

    card: ClassVar[Card]
    Config: ClassVar[type[SourceConfig]] = SourceConfig
    classes: ClassVar[tuple[str, ...]] = ()
    mirrored: ClassVar[tuple[tuple[int, int], ...]] = ()
    _OUTSIDE: ClassVar[str] = "outside the layout of the data set"

    def __init__(self, config: SourceConfig) -> None:
        if type(config) is not self.Config:
            raise TypeError(f"{self.card.name} needs a {self.Config.__name__}, got {config}; call source_config")
        self.config = config
        self._list_files: list[Locator] = []
        self._list_digests: dict[str, str] = {}
        self._listed: list[Locator] = []
        self._accounted: list[Locator] = []
        self._left_out = LeftOutFiles()

    def images(self) -> list[SourceImage]:
        """Return the pictures of the config's splits, sorted by key.

        Raises ArchiveError if the root cannot be read, ValueError if it holds no picture of these splits, SourceError
        if a list file is missing or two pictures get the same key.
        """
        self._listed, self._accounted, self._left_out = [], [], LeftOutFiles()
        found = list(self._find())
        images = [image for image in found if image.split in self.config.splits]
        if not images:
            raise self._nothing_found(f" in {', '.join(self.config.splits)}")
        self._count_left_out(found)
        images.sort(key=attrgetter("key"))
        for first, second in pairwise(images):
            if first.key == second.key:
                raise SourceError(
                    f"{self.card.name}: {first.name} and {second.name} both have the key {first.key}; rename one"
                )
        return images

    def parameters(self) -> dict[str, Any]:
        """Return the inputs of `images` other than the pictures, for the manifest. Call it after `images`.

        These are the options of the data set and, as `list_files`, the SHA-256 of each list file that was read, by its
        name. Empty for a data set that has neither.
        """
        options = {name: getattr(self.config, name) for name in self.card.options}
        lists = dict(sorted(self._list_digests.items()))
        return options | ({"list_files": lists} if lists else {})

    def check_lists(self) -> None:
        """Raise ChangedFileError if a list file that `images` read has changed since."""
        for locator in self._list_files:
            locator.check()

    def left_out(self) -> tuple[LeftOut, ...]:
        """Return all files that are no picture of `images`, by the rule that leaves them out. Call it after `images`.

        With the pictures they are all files of the data set; an archive that was opened counts as its members.
        """
        return self._left_out.summary()

    def unlike_published(self, counts: Mapping[str, int]) -> dict[str, tuple[int, int]]:
        """Return the splits whose number of pictures differs from the published one: split -> (here, published).

        counts: split -> pictures that `images` lists. A split without pictures is not compared.
        """
        both = {split: (counts.get(split, 0), published) for split, published in self._published().items()}
        return {split: (here, published) for split, (here, published) in both.items() if here not in (0, published)}

    def _published(self) -> Mapping[str, int]:
        """Return the published number of pictures per split, for the options in the config."""
        return self.card.counts

    @staticmethod
    def label_map(files: Mapping[str, NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Return the label map of a picture, uint8 (H, W), 255 = not known.

        files: name -> decoded label file of the picture, uint8 (H, W).
        The map has the picture's aspect ratio, but may have another size.
        """
        raise NotImplementedError

    @abstractmethod
    def _find(self) -> Iterable[SourceImage]:
        """Yield the pictures of all splits, in any order."""

    def _root(self) -> Path:
        if self.config.root is None:
            raise SourceError(f"{self.card.name} needs root, the path of: {self.card.layout}")
        return Path(self.config.root)

    def _entries(self, is_wanted: Callable[[str], bool] = lambda name: True) -> Mapping[str, Locator]:
        """Return relative name -> file. An archive at the top of a folder counts as if it were unpacked there.

        is_wanted: whether to open the archive of this name. Listing a large tar takes minutes.
        """
        tree = open_tree(self._root(), follow_links=self.config.follow_links)
        self._left_out.update(tree.left_out)
        entries = dict(tree.entries)
        for name, file in tree.entries.items() if tree.kind == "folder" else ():
            path = tree.root / name
            if "/" in name or is_picture(file) or archive_kind(path) is None or not is_wanted(name):
                continue
            inner = open_tree(path)
            self._accounted.append(file)
            self._left_out.update(inner.left_out)
            for member, locator in inner.entries.items():
                if entries.setdefault(member, locator) is not locator:
                    raise SourceError(f"{member} is both in {entries[member].container} and in {path}; move one away")
        self._listed.extend(entries.values())
        return entries

    def _inner_entries(self, tars: list[Locator]) -> Iterator[Locator]:
        """Yield the files of tars that are files of the data set."""
        self._accounted.extend(tars)
        for locator in open_inner(tars, self._left_out):
            self._listed.append(locator)
            yield locator

    def _count_left_out(self, found: Iterable[SourceImage]) -> None:
        """Give every listed file that is not in `found` to a rule, and so the pictures of splits that are not read."""
        taken, labels, opened = set(), set(), set(map(id, self._accounted))
        for image in found:
            taken.add(id(image.locator))
            labels.update(map(id, image.labels))
            if image.split not in self.config.splits:
                self._left_out.add(f"picture of {image.split}, which is not in dataset.splits", image.name)
        for locator in self._listed:
            if id(locator) not in taken and id(locator) not in opened:
                rule = "label map" if id(locator) in labels else self._rule_of(locator)
                self._left_out.add(rule, locator.member)
        self._listed, self._accounted = [], []

    def _rule_of(self, locator: Locator) -> str:
        """Return the rule that leaves out a file which `_find` did not take."""
        if is_picture(locator):
            return f"picture {self._OUTSIDE}"
        is_archive = suffix_of(locator.member).lower() in _ARCHIVE_SUFFIXES
        return "archive that is not opened" if is_archive else "not a picture"

    def _list_content(
        self, entries: Mapping[str, Locator], name: str, max_bytes: int = MAX_MEMBER_BYTES
    ) -> bytes | None:
        """Return the content of a list file and keep its digest for `parameters`; None if there is no such file.

        name: its path, or the end of its path. Of several such files the topmost is read. If there is none in an
        archive, the file beside the archive is read.
        """
        root = self._root().absolute()
        beside = root.parent / name
        ending = f"/{name}"
        topmost = min((path for path in entries if path == name or path.endswith(ending)), key=_depth, default=None)
        if topmost is not None:
            locator = entries[topmost]
        elif root.is_file() and beside.is_file():
            locator = locate_file(root.parent, name)
        else:
            return None
        content = read(locator, max_bytes)
        self._list_files.append(locator)
        self._list_digests[PurePosixPath(name).name] = hashlib.sha256(content).hexdigest()
        return content

    def _list(self, entries: Mapping[str, Locator], name: str) -> list[list[str]] | None:
        """Return the words of each line of a list file; None if there is no such file."""
        content = self._list_content(entries, name)
        try:
            return None if content is None else [line.split() for line in _text(content).splitlines() if line.strip()]
        except UnicodeError as error:
            is_utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff")) and len(content) % 2 == 0
            problem = "is text in UTF-16; save it as UTF-8" if is_utf16 else "is not text; fetch it again"
            raise SourceError(f"{self.card.name}: {name} {problem}") from error

    def _needed_list(self, entries: Mapping[str, Locator], name: str) -> list[list[str]]:
        """Return the words of each line of a list file that names the splits. Raises SourceError if it is missing."""
        rows = self._list(entries, name)
        if rows is None:
            folder = self._root() if self._root().is_dir() else self._root().parent
            raise SourceError(f"{self.card.name}: {name} is missing, so no picture has a split; put it into {folder}")
        return rows

    def _nothing_found(self, which: str = "") -> SourceError:
        return SourceError(
            f"{self._root()} holds no pictures of {self.card.name}{which}; expected {self.card.layout}"
            f"{self._left_out_by_name()}"
        )

    def _left_out_by_name(self) -> str:
        """Return the end of an error's message that names the files which were left out for their names; "" if none."""
        summary = self._left_out.summary()
        return f"; left out: {describe(summary)}" if summary else ""


def source_key(name: str) -> str:
    """Return the record key of a relative name: only A-Z, a-z, 0-9, _, / and -, without the suffix of a picture.

    Dots and blanks become "-", because a WebDataset key ends at its first dot. Any other character becomes "-" and its
    UTF-8 bytes in hex, so that names in other scripts stay distinct. A leading underscore gets an x before it, because
    WebDataset may read it as metadata. The key depends on this name alone: no other file can change it.
    """
    suffix = suffix_of(name)
    stem = name.removesuffix(suffix) if suffix.rstrip().lower() in _SUFFIXES_WITHOUT_KEY else name
    key = re.sub(r"[^A-Za-z0-9_/-]", _key_characters, stem)
    return f"x{key}" if key.startswith("_") else key


def _key_characters(match: re.Match[str]) -> str:
    character = match[0]
    return "-" if character in ". " else f"-{character.encode().hex()}"


def is_image(name: str) -> bool:
    """Return whether the suffix is one of a picture. Those that cannot be decoded are listed too, and then rejected."""
    return bool(format_by_name(name))


def is_picture(locator: Locator) -> bool:
    """Return whether a file is a picture by its suffix or by its first bytes."""
    return bool(locator.picture) or is_image(locator.member)


def with_labels(
    entries: Mapping[str, Locator], picture: re.Pattern[str], label: re.Pattern[str]
) -> Iterator[tuple[str, re.Match[str], tuple[Locator, ...]]]:
    """Yield each name that matches `picture`, its match, and the label file with an equal group `key`, if any."""
    labels = {match["key"]: entries[name] for name in entries if (match := label.fullmatch(name))}
    for name in entries:
        if match := picture.fullmatch(name):
            own = labels.get(match["key"])
            yield name, match, (own,) if own else ()


def _depth(path: str) -> tuple[int, str]:
    return path.count("/"), path


def _text(content: bytes) -> str:
    """Return the text of a list file, without byte order marks. Raises UnicodeError if it is no UTF-8 text."""
    text = content.decode().replace("\ufeff", "")  # also between two files that were joined
    if "\0" in text:
        raise UnicodeError("text has no null characters")
    return text
