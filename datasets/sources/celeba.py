"""CelebA, aligned faces, and its list files, which CelebA-HQ uses too."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar

from datasets.sources.source import Card, Source, SourceError, SourceImage, source_key

PARTITION = "list_eval_partition.txt"
IDENTITY = "identity_CelebA.txt"
SPLITS = {"0": "train", "1": "val", "2": "test"}


class CelebA(Source):
    """CelebA, aligned and cropped, with its official partition.

    Liu et al., "Deep Learning Face Attributes in the Wild", ICCV 2015.
    """

    card = Card(
        name="celeba",
        splits=("train", "val", "test"),
        counts={"train": 162_770, "val": 19_867, "test": 19_962},
        labels="none; persons as groups with identity_CelebA.txt",
        layout=(
            "img_align_celeba.zip or its tree img_align_celeba/<number>.jpg; beside it list_eval_partition.txt, and "
            "identity_CelebA.txt if persons are wanted as groups"
        ),
        licence="non-commercial research and education; pictures of persons, no publication",
        redistributable=False,
        consent="not asked: pictures of celebrities, collected from the web",
        defects=(
            "178x218 pixels: the largest square of a picture is 178, so larger sizes reject all",
            "the pictures in the wild are another archive: they are not read",
        ),
    )
    _PATTERN: ClassVar[re.Pattern[str]] = re.compile(r"(?:.*/)?img_align_celeba/(\d{6}\.jpg)")

    def _find(self) -> Iterator[SourceImage]:
        entries = self._entries()
        pictures = {name: match[1] for name in entries if (match := self._PATTERN.fullmatch(name))}
        if not pictures:
            raise self._nothing_found()
        partition = column(self._needed_list(entries, PARTITION), 1, PARTITION)
        identity = column(self._list(entries, IDENTITY), 1, IDENTITY)
        for name, file in pictures.items():
            if (split := SPLITS.get(partition.get(file, ""))) is None:
                raise SourceError(f"celeba: {name} has no entry in {PARTITION}; is that the list of this data set?")
            yield SourceImage(name, source_key(file), split, entries[name], group=identity.get(file))


def column(rows: list[list[str]] | None, number: int, name: str) -> dict[str, str]:
    """Return first column -> another column of a list file.

    rows: words of each line; None if there is no file.
    number: index of the other column.
    name: of the file, for the error.
    Returns an empty mapping if there is no file. Raises SourceError if a line has too few columns.
    """
    try:
        return {row[0]: row[number] for row in rows or ()}
    except IndexError as error:
        raise SourceError(f"{name} has a line with too few columns; fetch it again") from error
