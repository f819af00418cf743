"""Trace a model or a column back to code, parameters, packages, images and the files that they were made from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from datasets.shards.manifest import MANIFEST_NAME
from files.checkout import FOLDERS, name_some
from jobs.runs.history import Version
from pipeline.code import LOCK
from pipeline.layout import TOMBSTONES, column_folder
from pipeline.lineage.archive import Archive
from pipeline.lineage.commits import digests_at
from pipeline.lineage.graph import Graph, Node
from pipeline.lineage.pictures import count_sources
from pipeline.lineage.records import is_outside
from pipeline.lineage.statement import Statement

_FACTS_OF_TAGS = (
    "git_commit", "git_dirty", "git_changes", "steps", "licence", "redistributable", "consent", "takedown",
    "not_repeatable", "rebuild",
)  # fmt: skip
_NO_RECORD = "no provenance record of it is here: its code, parameters and inputs are not known"
_MAX_SOURCES = 50  # that are named one by one


class Origins:
    """Grow a graph from an artefact to all that it was made from.

    archive: the records to read.
    """

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.graph = Graph()
        self._commits: dict[tuple, dict[str, str] | None] = {}  # digests at a commit, of some names

    def add_version(self, version: Version, below: Node | None = None) -> None:
        """Add a registered version and its origins."""
        tags = version.tags
        facts = {name: tags[name] for name in _FACTS_OF_TAGS if name in tags}
        receipt = self.archive.receipt_of(tags.get("weights_sha256", ""))
        problems = []
        if "provenance_sha256" not in tags:
            problems.append("it was registered without a provenance record")
        if receipt is None:
            problems.append(f"no receipt of weights {tags.get('weights_sha256', 'without a digest')} is here")
        node = Node(
            kind="version",
            title=f"{version.name}@{version.version}",
            digest=tags.get("files_sha256", ""),
            facts=facts,
            problems=tuple(problems),
        )
        self.graph.add(node, below=below)
        if receipt is not None:
            self.add_training(receipt, node)

    def add_training(self, receipt: Mapping[str, Any], below: Node | None = None) -> None:
        """Add trained weights and their origins. receipt: entries of the receipt, with `receipt_sha256`."""
        node, statement = training_node(self.archive, receipt)
        if self.graph.add(node, below=below):
            for digest in (receipt["images"], *receipt["columns"].values()):
                self.add_column(digest, node)
            if statement:
                self._add_definition(statement, node)
            self._add_evaluations(receipt, node)

    def add_column(self, digest: str, below: Node | None = None) -> None:
        """Add a column of a split and its origins. digest: of its manifest."""
        node, statement = column_node(self.archive, digest)
        if not self.graph.add(node, below=below):
            return
        manifest = self.archive.manifests.get(digest)
        if manifest and manifest["made_from"]:
            self.add_column(manifest["made_from"], node)
        elif manifest:
            self._add_sources(manifest, statement, node)
        if statement:
            self._add_definition(statement, node)

    def _add_sources(self, manifest: Mapping[str, Any], statement: Statement | None, below: Node) -> None:
        """Add the files that images were made from: archives, list files, and the pictures if they are few."""
        lists = manifest["parameters"].get("list_files", {})
        archives = {r.name: r.sha256 for r in statement.dependencies if is_outside(r.name)} if statement else {}
        for name, sha256 in archives.items():
            self.graph.add(Node(kind="archive", title=name, digest=sha256), below=below)
        for name, sha256 in lists.items():
            self.graph.add(Node(kind="list file", title=name, digest=sha256), below=below)
        sources = count_sources({shard["sha256"][:16] for shard in manifest["shards"]}, manifest["records"])
        if sources is None:
            return
        if len(sources) > _MAX_SOURCES:
            title = f"{len(sources):,} pictures"
            facts = {"where": "records.parquet of the images has source and source_sha256 of each"}
            self.graph.add(Node(kind="source", title=title, facts=facts), below=below)
            return
        for (name, sha256), records in sources.items():
            self.graph.add(Node(kind="source", title=name, digest=sha256, facts={"records": records}), below=below)

    def _add_definition(self, statement: Statement, below: Node) -> None:
        """Add code, packages, parameters and commit of one run of a stage."""
        code = {r.name: r.sha256 for r in statement.dependencies if r.name.split("/")[0] in FOLDERS}
        packages = next((r for r in statement.dependencies if r.name == LOCK), None)
        lines = "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(code.items()))
        recorded = {**code, **({LOCK: packages.sha256} if packages else {})}
        run = statement.run
        ran = {"finished": run.finished, "commit": run.commit, **run.environment} if run else {}
        code_node = Node(
            kind="code",
            title=f"of the stage {statement.name}",
            digest=hashlib.sha256(lines.encode()).hexdigest(),
            facts={"files": len(code), "command": statement.command, **ran},
            problems=tuple(self._code_problems(statement, recorded)),
        )
        self.graph.add(code_node, below=below)
        if run:
            self.graph.add(Node(kind="commit", title=run.commit[:12], digest=run.commit), below=code_node)
        parameters = Node(kind="parameters", title=f"of the stage {statement.name}", facts=statement.parameters)
        self.graph.add(parameters, below=below)
        if packages:
            self.graph.add(Node(kind="packages", title=LOCK, digest=packages.sha256), below=below)
        for dependency in statement.dependencies:
            if dependency.name == str(TOMBSTONES):
                self.graph.add(Node(kind="tombstones", title=dependency.name, digest=dependency.sha256), below=below)

    def _code_problems(self, statement: Statement, files: Mapping[str, str]) -> Iterator[str]:
        """Yield why the code of a run cannot be got from git.

        files: path -> recorded SHA-256.
        """
        run = statement.run
        if run is None:
            yield "only the portable record is here, which names no commit; its digests of code hold"
            return
        if run.changes is None:
            yield "it is not known which files differed from the commit"
        elif run.changes:
            yield f"these files differed from the commit: {name_some(run.changes, 20)}"
        found = self._digests_at(run.commit, tuple(sorted(files)))
        if found is None:
            yield f"git has no commit {run.commit} here; get it with: git fetch"
            return
        differing = tuple(sorted(name for name, sha256 in files.items() if found.get(name) != sha256))
        if differing:
            yield f"the commit has other contents of {name_some(differing)}"

    def _digests_at(self, commit: str, names: tuple[str, ...]) -> dict[str, str] | None:
        if (commit, names) not in self._commits:
            self._commits[commit, names] = digests_at(commit, names)
        return self._commits[commit, names]

    def _add_evaluations(self, receipt: Mapping[str, Any], below: Node) -> None:
        """Add the evaluations of weights, and the images and masks that they used."""
        for statement in self.archive.statements:
            if statement.stage == "evaluate" and any(
                r.sha256 == receipt["receipt_sha256"] and r.name.startswith("models/") for r in statement.dependencies
            ):
                node = evaluation_node(statement)
                if self.graph.add(node, below=below):
                    for dependency in statement.dependencies:
                        if is_of_suite(self.archive, statement, dependency.manifest):
                            self.add_column(dependency.manifest, node)


def training_node(archive: Archive, receipt: Mapping[str, Any], **facts: Any) -> tuple[Node, Statement | None]:
    """Return the node of trained weights, and the record of their training if it is here.

    facts: further facts.
    """
    generator = receipt["generator"]
    statement = archive.made(f"models/{generator}/receipt.json", receipt["receipt_sha256"])
    node = Node(
        kind="training",
        title=generator,
        digest=receipt["weights_sha256"],
        facts={
            **facts,
            "steps": receipt["steps"],
            "samples": receipt["samples_seen"],
            "seed": str(receipt["seed"]),
            "receipt": receipt["receipt_sha256"],
            "experiment": receipt["experiment"],
            "not repeatable": ", ".join(receipt["not_repeatable"]) or "nothing",
        },
        problems=() if statement else (_NO_RECORD,),
    )
    return node, statement


def column_node(archive: Archive, digest: str, **facts: Any) -> tuple[Node, Statement | None]:
    """Return the node of a column of a split, and the record of the stage that wrote it if it is here.

    digest: of its manifest.
    """
    manifest = archive.manifests.get(digest)
    statement = archive.made_manifest(digest)
    if manifest is None:
        return Node(kind="column", title="unknown", digest=digest, problems=("its manifest is not here",)), statement
    column = manifest["column"]
    problems = [] if statement else [_NO_RECORD]
    if not _is_present(column, manifest["split"], digest):
        problems.append("shards/ has another or no such column now, so its bytes cannot be read here")
    node = Node(
        kind="images" if column == "image" else "column",
        title=f"{manifest['dataset']}, {manifest['split']}" + ("" if column == "image" else f", {column}"),
        digest=digest,
        facts={
            **facts,
            "records": manifest["records"],
            "shards": len(manifest["shards"]),
            "bytes": manifest["bytes"],
            "records.parquet": manifest["records_sha256"],
            "licence": manifest["licence"],
        },
        problems=tuple(problems),
    )
    return node, statement


def is_of_suite(archive: Archive, statement: Statement, digest: str) -> bool:
    """Return whether an evaluation scored the images or masks of a manifest. It depends on those of all splits.

    digest: of the manifest; "" for another file.
    """
    manifest = archive.manifests.get(digest)
    return manifest is not None and manifest["split"] == statement.parameters.get("suite.split")


def evaluation_node(statement: Statement) -> Node:
    """Return the node of an evaluation."""
    summary = next((s for s in statement.subjects if s.name.endswith("/summary.json")), statement.subjects[0])
    finished = {"finished": statement.run.finished} if statement.run else {}
    return Node(
        kind="evaluation",
        title=statement.name,
        digest=summary.sha256,
        facts={**finished, "outputs": len(statement.subjects), "command": statement.command},
    )


def _is_present(column: str, split: str, digest: str) -> bool:
    path = column_folder(column, split) / MANIFEST_NAME
    return path.is_file() and f'"digest": "{digest}"'.encode() in path.read_bytes()
