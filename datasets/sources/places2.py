"""Places2, also called Places365."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from datasets.sources.source import Card, Source, SourceConfig, SourceError, SourceImage, is_image, source_key
from files.archives import Locator
from files.nearest import suggest


@dataclass(frozen=True, kw_only=True)
class Places2Config(SourceConfig):
    """The config of Places2.

    edition: Places365-Standard or Places365-Challenge.
    variant: "small" reads the files of 256x256 pixels, "large" the large ones.
    classes: scenes to read, such as "beach" or "field/wild"; none reads all. Pictures of test have no class, so they
        are left out if classes are named.
    """

    edition: Literal["standard", "challenge"] = "standard"
    variant: Literal["small", "large"] = "small"
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.edition not in ("standard", "challenge"):
            raise ValueError(f'edition must be "standard" or "challenge", got {self.edition!r}')
        if self.variant not in ("small", "large"):
            raise ValueError(f'variant must be "small" or "large", got {self.variant!r}')


class Places2(Source):
    """Places365, the "Places2" of the papers: Standard or Challenge, 256x256 or large.

    Zhou et al., "Places: A 10 million Image Database for Scene Recognition", TPAMI 2017.
    """

    card = Card(
        name="places2",
        splits=("train", "val", "test"),
        counts={"train": 1_803_460, "val": 36_500, "test": 328_500},
        labels="class: 365 scenes, none in test",
        layout=(
            "train_256_places365standard.tar and val_256.tar (or ..._large...), or their trees data_256/ and val_256/, "
            "or {train,val}/<class>/; places365_val.txt and categories_places365.txt beside them give val its labels"
        ),
        licence="research and education; the photographs belong to their owners",
        redistributable=False,
        defects=(
            "file names restart in every class, so the key holds the class path",
            "small files are squashed to 256x256; of large ones the shorter side is 512 at most: do not rely on it",
            "grey JPEGs occur; expect cut copies and near duplicates between train and val",
            "Challenge (8,026,628 pictures in train) contains Standard, perhaps under other numbers: never mixed",
            "a tree data_256/ does not say which edition it was: `edition` is then taken on trust",
        ),
        options={
            "edition": "standard or challenge: which training pictures; archives of the other are left closed",
            "variant": "small (256x256) or large; archives of the other are left closed",
            "classes": "scenes to read, by their names in categories_places365.txt without the letter; none reads all",
        },
    )
    Config = Places2Config
    _PATTERNS = (
        # The class is the path between the letter and the file: field/wild of data_256/f/field/wild/00000001.jpg
        re.compile(r"data_(?P<size>256|large)(_(?P<edition>standard|challenge))?/(?P<rest>[a-z]/(?P<label>.+)/[^/]+)"),
        re.compile(r"(?P<split>val|test)_(?P<size>256|large)/(?P<rest>[^/]+)"),
        re.compile(r"(places365_standard/)?(?P<rest>(?P<split>train|val)/(?P<label>.+)/[^/]+)"),
    )
    _EDITION = re.compile("standard|challenge")

    def _find(self) -> Iterator[SourceImage]:
        size = "256" if self.config.variant == "small" else "large"
        entries = self._entries(self._is_wanted)
        labels = self._val_labels(entries)
        layouts: dict[str, str] = {}
        wanted, seen = set(self.config.classes), set()
        for name, locator in entries.items():
            match = next(filter(None, (pattern.fullmatch(name) for pattern in self._PATTERNS)), None)
            if match is None or not is_image(name):
                continue
            groups = match.groupdict()
            if groups.get("size", "256") != size:
                continue
            split = groups.get("split") or "train"
            layout = self._layout(groups, locator)
            if split == "train" and not self._is_of_edition(layout):
                continue
            if layouts.setdefault(split, layout) != layout:
                raise SourceError(
                    f"{self._root()} has {split} twice, as {layouts[split]} and as {layout} ({name}); "
                    "their numbers mean different pictures, so they are never mixed: move one away"
                )
            label = groups.get("label") or labels.get(name.rpartition("/")[2])
            seen.add(label)
            if wanted and label not in wanted:
                self._left_out.add("picture of a class that is not in dataset.classes", name)
                self._accounted.append(locator)
                continue
            yield SourceImage(name, source_key(groups["rest"]), split, locator, label=label and sys.intern(label))
        if not layouts:
            raise self._nothing_found(f" (edition {self.config.edition}, variant {self.config.variant})")
        for name in sorted(wanted - seen):
            raise SourceError(f"{self._root()} has no pictures of the class {name!r}; {suggest(name, seen - {None})}")

    def _published(self) -> Mapping[str, int]:
        if self.config.classes:
            return {}  # only the numbers of all classes together are published
        challenge = {"train": 8_026_628} if self.config.edition == "challenge" else {}
        return {**self.card.counts, **challenge}

    def _is_wanted(self, archive: str) -> bool:
        """Return whether an archive is of the config's edition and variant.

        The lists of val and test are the same in both editions. So if those of the edition are missing, any will do.
        """
        if (
            archive.startswith("filelist")
            and not (self._root() / f"filelist_places365-{self.config.edition}.tar").exists()
        ):
            return True
        other = "large" if self.config.variant == "small" else "256"
        return f"_{other}" not in archive and self._is_of_edition(archive)

    def _is_of_edition(self, words: str) -> bool:
        """Return False if the words name the other edition."""
        marked = self._EDITION.search(words.lower())
        return marked is None or marked[0] == self.config.edition

    def _layout(self, groups: Mapping[str, str | None], locator: Locator) -> str:
        """Describe the origin of a file by its path, or else by the name of its archive.

        groups: of the pattern that its name matches. Val and test are common to both editions.
        """
        if "size" not in groups:
            return "standard in easy format" if groups["split"] == "train" else "easy format"
        if "split" in groups:
            return "official format"
        marked = self._EDITION.search(locator.container.rpartition("/")[2].lower())
        return groups["edition"] or (marked[0] if marked else "unmarked edition")

    def _val_labels(self, entries: Mapping[str, Locator]) -> dict[str, str]:
        """Return file name -> class of val, from the two list files.

        Their lines are `Places365_val_00000001.jpg 165` and `/f/field/wild 165`. Empty if one of them is missing.
        """
        val = self._list(entries, "places365_val.txt")
        categories = self._list(entries, "categories_places365.txt")
        if val is None or categories is None:
            return {}
        try:
            classes = {index: path[len("/f/") :] for path, index in categories}
            return {name: classes[index] for name, index in val}
        except (ValueError, KeyError) as error:
            raise SourceError(f"{self._root()}: places365_val.txt and categories_places365.txt do not match") from error
