"""Places2, also called Places365."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping

from datasets.sources.source import Card, Source, SourceError, SourceImage, is_image, source_key
from files.archives import Locator


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
        },
    )
    _PATTERNS = (
        # The class is all between the letter and the file: field/wild of data_256/f/field/wild/00000001.jpg
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
        for name, locator in entries.items():
            match = next(filter(None, (pattern.fullmatch(name) for pattern in self._PATTERNS)), None)
            if match is None or not is_image(name):
                continue
            found = match.groupdict()
            if found.get("size", "256") != size:
                continue
            split = found.get("split") or "train"
            layout = self._layout(found, locator)
            if split == "train" and not self._is_ours(layout):
                continue
            if layouts.setdefault(split, layout) != layout:
                raise SourceError(
                    f"{self._root()} has {split} twice, as {layouts[split]} and as {layout} ({name}); "
                    "their numbers mean different pictures, so they are never mixed: move one away"
                )
            label = found.get("label") or labels.get(name.rpartition("/")[2])
            yield SourceImage(name, source_key(found["rest"]), split, locator, label=label and sys.intern(label))
        if not layouts:
            raise self._nothing_found(f" (edition {self.config.edition}, variant {self.config.variant})")

    def _published(self) -> Mapping[str, int]:
        challenge = {"train": 8_026_628} if self.config.edition == "challenge" else {}
        return {**self.card.counts, **challenge}

    def _is_wanted(self, archive: str) -> bool:
        """Lists of val and test are the same in both editions, so those of the other one serve if need be."""
        if (
            archive.startswith("filelist")
            and not (self._root() / f"filelist_places365-{self.config.edition}.tar").exists()
        ):
            return True
        other = "large" if self.config.variant == "small" else "256"
        return f"_{other}" not in archive and self._is_ours(archive)

    def _is_ours(self, words: str) -> bool:
        """False for what names the other edition."""
        marked = self._EDITION.search(words.lower())
        return marked is None or marked[0] == self.config.edition

    def _layout(self, found: Mapping[str, str | None], locator: Locator) -> str:
        """Where a file comes from, by its path or else by the name of its archive; val and test are common to both."""
        if "size" not in found:
            return "standard in easy format" if found["split"] == "train" else "easy format"
        if "split" in found:
            return "official format"
        marked = self._EDITION.search(locator.container.rpartition("/")[2].lower())
        return found["edition"] or (marked[0] if marked else "unmarked edition")

    def _val_labels(self, entries: Mapping[str, Locator]) -> dict[str, str]:
        """Class by file name from the two list files, `Places365_val_00000001.jpg 165` and `/f/field/wild 165`."""
        val = self._list(entries, "places365_val.txt")
        categories = self._list(entries, "categories_places365.txt")
        if val is None or categories is None:
            return {}
        try:
            classes = {index: path[len("/f/") :] for path, index in categories}
            return {name: classes[index] for name, index in val}
        except (ValueError, KeyError) as error:
            raise SourceError(f"{self._root()}: places365_val.txt and categories_places365.txt do not match") from error
