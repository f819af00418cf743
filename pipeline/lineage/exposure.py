"""What pictures reached: the shards that ever held them, and the trainings, checkpoints and versions that read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.tombstones import TAKEN_DOWN, Tombstone
from pipeline.lineage.archive import Archive, image_shards
from pipeline.lineage.graph import Node
from pipeline.lineage.pictures import Picture, find_by_digest, find_by_key
from pipeline.lineage.uses import Uses

_KINDS = ("training", "checkpoint", "version")


@dataclass(frozen=True, kw_only=True)
class Exposed:
    """A training, checkpoint or version whose data set had a picture.

    kind: "training", "checkpoint" or "version".
    title: such as "edge_connect", "edge_connect, step 100" or "inpaint-edge_connect@1".
    key: of the picture.
    steps: that read the picture; empty if it was only in the data set.
    """

    kind: str
    title: str
    key: str
    steps: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """Everything that pictures reached, as the records tell.

    pictures: their records.
    shards: SHA-256 -> bytes of every shard that ever held one, in every column.
    tables: SHA-256 of every table that listed one, in every column.
    uses: trainings, checkpoints and versions.
    unfinished: folders of unfinished trainings on images with one, relative to the folder of the storage. They cannot
        go on, since their images are no more.
    """

    pictures: tuple[Picture, ...]
    shards: dict[str, int]
    tables: tuple[str, ...]
    uses: tuple[Exposed, ...]
    unfinished: tuple[str, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the pictures, sorted."""
        return tuple(sorted({picture.key for picture in self.pictures}))

    @property
    def generators(self) -> tuple[str, ...]:
        """The generators of which a training read one of the pictures, sorted."""
        return tuple(sorted({use.title for use in self.uses if use.kind == "training" and use.steps}))

    @property
    def versions(self) -> dict[str, tuple[str, ...]]:
        """NAME@NUMBER -> keys that it read, of every registered version that read one."""
        found: dict[str, set[str]] = {}
        for use in self.uses:
            if use.kind == "version" and use.steps:
                found.setdefault(use.title, set()).add(use.key)
        return {title: tuple(sorted(keys)) for title, keys in sorted(found.items())}


def find_taken_down(tombstones: Iterable[Tombstone]) -> tuple[Picture, ...]:
    """Return the records that tombstones took down, of all images that the history knows."""
    found: dict[tuple[str, str, str], Picture] = {}
    for tombstone in tombstones:
        if tombstone.status == TAKEN_DOWN:
            pictures = [p for p in find_by_key(tombstone.key) if p.source_sha256 == tombstone.source_sha256]
            if tombstone.every_copy:
                pictures += find_by_digest(tombstone.source_sha256)
            found |= {(p.key, p.sha256, p.shard): p for p in pictures}
    return tuple(found[key] for key in sorted(found))


def find_exposure(pictures: Iterable[Picture], storage: Path) -> Exposure:
    """Follow pictures through all records.

    storage: folder of live trainings.
    """
    archive, pictures = Archive(), tuple(pictures)
    uses = Uses(archive, storage)
    for picture in pictures:
        uses.add_picture(picture)
    nodes = list(uses.graph.nodes.values())
    exposed = tuple(_exposed(node) for node in nodes if node.kind in _KINDS)
    held = list(_shards(archive, pictures))
    folders = {str(node.facts["folder"]) for node in nodes if node.kind == "unfinished training"}
    return Exposure(
        pictures=pictures,
        shards={shard["sha256"]: shard["bytes"] for manifest, number in held for shard in [manifest["shards"][number]]},
        tables=tuple(sorted({manifest["records_sha256"] for manifest, _ in held})),
        uses=exposed,
        unfinished=tuple(sorted(folders)),
    )


def _exposed(node: Node) -> Exposed:
    steps = tuple(node.facts.get("steps that read it", ()))
    return Exposed(kind=node.kind, title=node.title, key=node.about, steps=steps)


def _shards(archive: Archive, pictures: Iterable[Picture]) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield manifest and number of every shard that ever held one of the pictures, or a map or mask made for it."""
    wanted = {picture.shard for picture in pictures}
    for digest, manifest in archive.manifests.items():
        if manifest["column"] != "image":
            continue
        for number, first in enumerate(image_shards(manifest).digests):
            if first in wanted:
                yield manifest, number
                yield from ((made, number) for made in archive.manifests.values() if made["made_from"] == digest)
