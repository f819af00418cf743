"""What a data set is: its card, its pictures with their splits, and what one class per data set shares.

Read this first; each data set then is one short file beside this one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from operator import attrgetter
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from files.archives import MAX_MEMBER_BYTES, FileLocator, Locator, archive_kind, open_tree, read
from files.errors import UserError

# Decoding accepts JPEG and PNG only. The others are listed all the same, so that they are counted as rejected.
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
SPLITS = ("train", "val", "test")


class SourceError(UserError):
    """A data set on the user's disk is not as its card describes; the message names the file and what to do."""


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """Which data set, where it lies, and how its splits are chosen. A card's `options` names those it uses.

    name: the data set; see `python -m pipeline datasets`.
    root: a folder with the tree, a folder with the official archives, or one archive; None for `photos`, which needs
        none. splits: those to read; any other is left where it is.
    val_share (`folder` without split folders, `paris_streetview`): share held out for validation, in (0, 1).
    edition, variant (`places2`): Standard or Challenge, and the 256x256 files or the large ones.
    split_list (`celeba_hq`): which of the circulating divisions. split_number (`dtd`): which of the ten.
    """

    name: str = "photos"
    root: str | None = None
    splits: tuple[str, ...] = SPLITS
    val_share: float = 0.1
    edition: Literal["standard", "challenge"] = "standard"
    variant: Literal["small", "large"] = "small"
    split_list: Literal["celeba", "lama", "first28000"] = "celeba"
    split_number: int = 1

    def __post_init__(self) -> None:
        if not self.splits or len(set(self.splits)) < len(self.splits) or not set(self.splits) <= set(SPLITS):
            raise ValueError(f"splits must be some of {', '.join(SPLITS)}, each once, got {', '.join(self.splits)!r}")
        if not 0 < self.val_share < 1:
            raise ValueError(f"val_share must lie between 0 and 1, got {self.val_share}")
        if self.edition not in ("standard", "challenge"):
            raise ValueError(f'edition must be "standard" or "challenge", got {self.edition!r}')
        if self.variant not in ("small", "large"):
            raise ValueError(f'variant must be "small" or "large", got {self.variant!r}')
        if self.split_list not in ("celeba", "lama", "first28000"):
            raise ValueError(f'split_list must be "celeba", "lama" or "first28000", got {self.split_list!r}')
        if not 1 <= self.split_number <= 10:
            raise ValueError(f"split_number must lie in 1..10, got {self.split_number}")


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One picture to ingest: small and picklable. A list of eight million of them must fit into memory.

    name: path inside the data set. key: unique in the data set, made from the name. split: "train", "val" or "test".
    locator: for `archives.read`. label: class. group: pictures of one group show the same thing and stay in one split,
    unless a published list that was asked for tears them apart. crop: left, top, right, bottom in pixels of the decoded
    picture; None for all of it. labels: the files of which `Source.label_map` makes the picture's semantic labels;
    empty where it has none.
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
    """What a user must know of a data set before using it.

    counts: pictures per published split, empty if it varies. labels: what is known of each picture. layout: what must
    lie on disk. defects: known traps. options: the fields of `SourceConfig` that it uses, and what they mean.
    """

    name: str
    splits: tuple[str, ...]
    counts: Mapping[str, int]
    labels: str
    layout: str
    licence: str
    redistributable: bool
    defects: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)


class Source(ABC):
    """One data set. `card` describes it; `images` lists it.

    classes: names of the semantic classes, label 0 first; empty where the data set has no label maps. mirrored: pairs
    of labels that change places when a picture is flipped, such as the left and the right eye. Raises ValueError for
    an option that this data set does not use.
    """

    card: ClassVar[Card]
    classes: ClassVar[tuple[str, ...]] = ()
    mirrored: ClassVar[tuple[tuple[int, int], ...]] = ()

    def __init__(self, config: SourceConfig) -> None:
        for option in dataclasses.fields(SourceConfig):
            is_general = option.name in ("name", "root", "splits") or option.name in self.card.options
            if not is_general and getattr(config, option.name) != option.default:
                used = ", ".join(self.card.options) or "no options"
                raise SourceError(f"{self.card.name} does not use {option.name}; remove it: it uses {used}")
        self.config = config
        self._list_digests: dict[str, str] = {}

    def images(self) -> list[SourceImage]:
        """The pictures of the wanted splits, sorted by key.

        Raises ArchiveError if the root cannot be read, and ValueError if the layout is another one, if a list is
        missing, or if two pictures get the same key.
        """
        images = [image for image in self._find() if image.split in self.config.splits]
        if not images:
            raise self._nothing_found(f" in {', '.join(self.config.splits)}")
        images.sort(key=attrgetter("key"))
        for first, second in pairwise(images):
            if first.key == second.key:
                raise SourceError(
                    f"{self.card.name}: {first.name} and {second.name} both have the key {first.key}; rename one"
                )
        return images

    def parameters(self) -> dict[str, Any]:
        """What decided the list beside the files themselves, for the manifest; call after `images`.

        The options of the data set, and as `list_files` the SHA-256 of each list file that was read, by its name.
        Empty for a data set that has neither.
        """
        options = {name: getattr(self.config, name) for name in self.card.options}
        lists = dict(sorted(self._list_digests.items()))
        return options | ({"list_files": lists} if lists else {})

    def unlike_published(self, counts: Mapping[str, int]) -> dict[str, tuple[int, int]]:
        """Splits with another number of pictures than was published: split -> (here, published).

        counts: pictures here, by split, as `images` lists them; a split that has none is left out.
        """
        found = {split: (counts.get(split, 0), number) for split, number in self._published().items()}
        return {split: (here, number) for split, (here, number) in found.items() if here not in (0, number)}

    def _published(self) -> Mapping[str, int]:
        """Pictures per split, for the options of this data set."""
        return self.card.counts

    @staticmethod
    def label_map(files: Mapping[str, NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Labels of every pixel, uint8 (H, W), 255 = not known, of a picture's label files by name, uint8 (H, W) each.

        The map has the picture's aspect ratio, not always its size.
        """
        raise NotImplementedError

    @abstractmethod
    def _find(self) -> Iterable[SourceImage]:
        """The pictures of all splits, in any order."""

    def _root(self) -> Path:
        if self.config.root is None:
            raise SourceError(f"{self.card.name} needs root, the path of: {self.card.layout}")
        return Path(self.config.root).expanduser()

    def _entries(self, is_wanted: Callable[[str], bool] = lambda name: True) -> Mapping[str, Locator]:
        """Files by relative name; an archive at the top of a folder counts as if it had been unpacked there.

        is_wanted: asked for the name of each such archive, because listing a large tar takes minutes.
        """
        tree = open_tree(self._root())
        if tree.kind != "folder":
            return tree.entries
        entries = dict(tree.entries)
        for name in tree.entries:
            path = tree.root / name
            if "/" in name or is_image(name) or archive_kind(path) is None or not is_wanted(name):
                continue
            for member, locator in open_tree(path).entries.items():
                if entries.setdefault(member, locator) is not locator:
                    raise SourceError(f"{member} lies both in {entries[member].container} and in {path}; move one away")
        return entries

    def _list_content(
        self, entries: Mapping[str, Locator], name: str, max_bytes: int = MAX_MEMBER_BYTES
    ) -> bytes | None:
        """A list file: the topmost of this name, else the one beside an archive; else None. Its digest is kept."""
        root = self._root().absolute()
        beside = root.parent / name
        ending = f"/{name}"
        found = min((path for path in entries if path == name or path.endswith(ending)), key=_depth, default=None)
        if found is not None:
            content = read(entries[found], max_bytes)
        elif root.is_file() and beside.is_file():
            content = read(FileLocator(str(root.parent), name, beside.stat().st_size), max_bytes)
        else:
            return None
        self._list_digests[PurePosixPath(name).name] = hashlib.sha256(content).hexdigest()
        return content

    def _list(self, entries: Mapping[str, Locator], name: str) -> list[list[str]] | None:
        """The words of each line of a list file that is there."""
        content = self._list_content(entries, name)
        try:
            return None if content is None else [line.split() for line in content.decode().splitlines() if line.strip()]
        except UnicodeDecodeError as error:
            raise SourceError(f"{self.card.name}: {name} is not text; fetch it again") from error

    def _needed_list(self, entries: Mapping[str, Locator], name: str) -> list[list[str]]:
        """The same of a list without which there are no splits."""
        rows = self._list(entries, name)
        if rows is None:
            folder = self._root() if self._root().is_dir() else self._root().parent
            raise SourceError(f"{self.card.name}: {name} is missing, so no picture has a split; put it into {folder}")
        return rows

    def _nothing_found(self, which: str = "") -> ValueError:
        return ValueError(f"{self._root()} holds no pictures of {self.card.name}{which}; expected {self.card.layout}")


def source_key(name: str) -> str:
    """The record key of a relative name: characters A-Z, a-z, 0-9, _, / and - only, the extension dropped.

    Dots and blanks become "-", since a WebDataset key ends at its first dot; any other character becomes "-" and its
    UTF-8 bytes in hex, so that names in other scripts stay apart. A leading underscore, which WebDataset may take for
    metadata, gets an x before it. The key depends on this name alone: no other file can change it.
    """
    stem = name.removesuffix(_suffix(name))
    key = re.sub(r"[^A-Za-z0-9_/-]", _key_characters, stem)
    return f"x{key}" if key.startswith("_") else key


def _key_characters(match: re.Match[str]) -> str:
    character = match[0]
    return "-" if character in ". " else f"-{character.encode().hex()}"


def is_image(name: str) -> bool:
    """Whether a file calls itself a picture."""
    return _suffix(name).lower() in IMAGE_SUFFIXES


def _suffix(name: str) -> str:
    """As pathlib's, but several times faster, which counts for eight million names."""
    file = name.rpartition("/")[2]
    dot = file.rfind(".")
    return file[dot:] if 0 < dot < len(file) - 1 else ""


def split_by_hash(names: Iterable[str], val_share: float) -> dict[str, str]:
    """ "train" or "val" by name, from the name's hash: adding or removing one moves no other to another split.

    With few names one side could stay empty, and then nothing could be trained or measured. So the name of smallest
    hash is always val and, of two or more, that of largest hash always train; these may move when the others change.
    """
    hashes = {name: int.from_bytes(hashlib.sha256(name.encode()).digest()[:6]) / 2**48 for name in names}
    splits = {name: "val" if number < val_share else "train" for name, number in hashes.items()}
    if hashes:
        splits[max(hashes, key=hashes.__getitem__)] = "train"
        splits[min(hashes, key=hashes.__getitem__)] = "val"
    return splits


def with_labels(
    entries: Mapping[str, Locator], picture: re.Pattern[str], label: re.Pattern[str]
) -> Iterator[tuple[str, re.Match[str], tuple[Locator, ...]]]:
    """Names that match `picture`, each with the label file of the same group `key`, if there is one."""
    labels = {match["key"]: entries[name] for name in entries if (match := label.fullmatch(name))}
    for name in entries:
        if match := picture.fullmatch(name):
            own = labels.get(match["key"])
            yield name, match, (own,) if own else ()


def _depth(path: str) -> tuple[int, str]:
    return path.count("/"), path
