"""Trace a picture or a column forward to the columns, trainings, checkpoints, evaluations and versions that used it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from datasets.stream.consumption import reading_steps
from datasets.stream.plan import Plan, PlanConfig
from pipeline.layout import GROUP_ROWS
from pipeline.lineage.archive import Archive, ImageShards, image_shards
from pipeline.lineage.graph import Graph, Node
from pipeline.lineage.origins import column_node, evaluation_node, is_of_suite, training_node
from pipeline.lineage.pictures import Picture


@dataclass(frozen=True)
class Place:
    """Where a manifest of images has a picture.

    key: of the picture.
    shard: number of the shard among those of the manifest, from 0.
    record: number of the record in the split, from 0.
    """

    key: str
    shard: int
    record: int


class Uses:
    """Grow a graph from pictures or a column to all that used them.

    archive: the records to read.
    storage: folder of live trainings, whose checkpoints are listed.
    """

    def __init__(self, archive: Archive, storage: Path) -> None:
        self.archive = archive
        self.storage = storage
        self.graph = Graph()
        self._plans: dict[tuple, Plan] = {}

    def add_picture(self, picture: Picture, below: Node | None = None, **facts: Any) -> None:
        """Add a record of images and its uses. facts: further facts about it.

        The same record in several shards, which takedowns rewrote, is one node.
        """
        node = Node(
            kind="picture",
            title=picture.key,
            digest=picture.sha256,
            facts={**facts, "source": picture.source, "source_sha256": picture.source_sha256},
        )
        self.graph.add(node, below=below)
        for digest, shards in self._images.items():
            if picture.shard in shards.digests:
                number = shards.digests.index(picture.shard)
                self._add_images(digest, node, Place(picture.key, number, sum(shards.sizes[:number]) + picture.place))

    def add_column(self, digest: str) -> None:
        """Add a column and its uses. digest: of its manifest."""
        manifest = self.archive.manifests[digest]
        if manifest["column"] == "image":
            self._add_images(digest, None, None)
            return
        node, _ = column_node(self.archive, digest)
        self.graph.add(node)
        for receipt in self.archive.receipts:
            if digest in receipt["columns"].values():
                self._add_training(receipt, node, None)
        self._add_evaluations(digest, node)

    def _add_images(self, digest: str, below: Node | None, place: Place | None) -> None:
        """Add images, and the uses of one of their records, or of any if `place` is None."""
        facts = {} if place is None else {"shard": self._images[digest].names[place.shard], "record": place.record}
        node = _about(column_node(self.archive, digest, **facts)[0], place)
        self.graph.add(node, below=below)
        for made, entries in self.archive.manifests.items():
            if entries["made_from"] == digest:
                shard = {} if place is None else {"shard": entries["shards"][place.shard]["name"]}
                self.graph.add(_about(column_node(self.archive, made, **shard)[0], place), below=node)
        for receipt in self.archive.receipts:
            if receipt["images"] == digest:
                self._add_training(receipt, node, place)
        for run in self._live_trainings:
            if run["data"].get("image") == digest:
                self._add_live_training(run, node, place)
        self._add_evaluations(digest, node)

    def _add_training(self, receipt: Mapping[str, Any], below: Node, place: Place | None) -> None:
        steps = self._reading_steps(receipt["images"], receipt, place, receipt["steps"])
        node = _about(training_node(self.archive, receipt, **consumption(steps))[0], place)
        self.graph.add(node, below=below)
        for version in self.archive.versions:
            if version.tags.get("weights_sha256") == receipt["weights_sha256"]:
                facts = {name: version.tags[name] for name in ("git_commit", "steps") if name in version.tags}
                title = f"{version.name}@{version.version}"
                digest = version.tags.get("files_sha256", "")
                node_of_version = Node(
                    kind="version", title=title, digest=digest, facts={**consumption(steps), **facts}
                )
                self.graph.add(_about(node_of_version, place), below=node)

    def _add_live_training(self, run: Mapping[str, Any], below: Node, place: Place | None) -> None:
        """Add the checkpoints of a training that is not finished."""
        node = Node(
            kind="unfinished training", title=run["generator"], digest=run["identity"], facts={"folder": run["folder"]}
        )
        self.graph.add(node, below=below)
        for step in run["checkpoints"]:
            steps = self._reading_steps(run["data"]["image"], run, place, step)
            title = f"{run['generator']}, step {step}"
            checkpoint = Node(kind="checkpoint", title=title, facts=consumption(steps))
            self.graph.add(_about(checkpoint, place), below=node)

    def _add_evaluations(self, digest: str, below: Node) -> None:
        for statement in self.archive.reading(digest):
            if statement.stage in ("evaluate", *GROUP_ROWS) and is_of_suite(self.archive, statement, digest):
                self.graph.add(evaluation_node(statement), below=below)

    def _reading_steps(
        self, images: str, training: Mapping[str, Any], place: Place | None, num_steps: int
    ) -> list[int] | None:
        """Return the steps up to a number that read a record; None if no record is asked for."""
        if place is None:
            return None
        window = training["train"]["samples"]["plan"]["window_shards"]
        plan = self._plan(images, training["seed"], window)
        batch_size = training["train"].get("global_batch") or training["config"]["batch_size"]
        return reading_steps(plan, place.record, batch_size, num_steps)

    def _plan(self, images: str, seed: int, window: int) -> Plan:
        key = (self._images[images].sizes, seed, window)
        if key not in self._plans:
            self._plans[key] = Plan(self._images[images].sizes, seed, PlanConfig(window_shards=window))
        return self._plans[key]

    @cached_property
    def _images(self) -> dict[str, ImageShards]:
        """Digest -> shards of every manifest of images."""
        found = self.archive.manifests.items()
        return {digest: image_shards(entries) for digest, entries in found if entries["column"] == "image"}

    @cached_property
    def _live_trainings(self) -> list[dict[str, Any]]:
        return list(_read_live_trainings(self.storage))


def _about(node: Node, place: Place | None) -> Node:
    """Return a node whose facts are about one picture, so that another picture has a node of its own."""
    return node if place is None else replace(node, about=place.key)


def consumption(steps: Sequence[int] | None) -> dict[str, Any]:
    """Return, as facts, whether a record was read by a training, and at which steps; {} if no record is asked for."""
    if steps is None:
        return {}
    if not steps:
        return {"consumed": "no: in the data set, but not read by this step"}
    times = "once" if len(steps) == 1 else f"{len(steps)} times"
    return {"consumed": f"yes, {times}, first at step {steps[0]}", "steps that read it": list(steps)}


def _read_live_trainings(storage: Path) -> Iterator[dict[str, Any]]:
    """Yield inputs, folder and steps of the checkpoints of every training that is not finished."""
    for path in sorted(storage.glob("*/[!.]*/experiment.json")):
        steps = sorted(int(folder.name.removeprefix("step-")) for folder in path.parent.glob("checkpoints/step-*"))
        yield {
            **json.loads(path.read_bytes()),
            "generator": path.parent.parent.name,
            "identity": path.parent.name,
            "folder": str(path.parent.relative_to(storage.parent)),
            "checkpoints": steps,
        }
