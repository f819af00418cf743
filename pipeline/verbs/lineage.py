"""Answer from the records what a model was made from, and which models saw a picture."""

from __future__ import annotations

import json
import re
from argparse import Namespace
from pathlib import Path

from files.durable import file_digest, write_durably
from files.errors import UserError
from files.nearest import suggest
from jobs.runs.history import Version, list_aliases
from pipeline.inputs import PARAMS_PREFIX, read_parameters
from pipeline.lineage.archive import Archive
from pipeline.lineage.graph import Graph, Node
from pipeline.lineage.pictures import Picture, find_by_digest, find_by_key, find_near, index_images
from pipeline.lineage.registry import find_version
from pipeline.lineage.text import render
from pipeline.lineage.uses import Uses

_MOST_NEAR = 100  # nearly equal pictures
_STORAGE = "cluster.storage"


class LineageError(UserError):
    """The records know no such thing. The message says what they know, or how to ask."""


def trace(what: str, name: str, near: int | None = None) -> Graph:
    """Return the graph of a model's origins, or of the uses of a picture or a column.

    what: "model", "image" or "dataset".
    name: NAME@ALIAS, NAME@VERSION or models/<generator>; the key, SHA-256 or path of a picture; the digest of a
        manifest, or its begin.
    near: bits of 64 in which the difference hashes of other pictures may differ that are traced as well.
    Raises LineageError if the records know no such thing.
    """
    index_images()
    archive = Archive()
    if what == "model":
        return _trace_model(archive, name)
    storage = read_parameters((_STORAGE,)).get(PARAMS_PREFIX + _STORAGE) or "runs"
    uses = Uses(archive, Path(storage).resolve())
    if what == "dataset":
        uses.add_column(_find_manifest(archive, name))
    else:
        _trace_picture(uses, name, near)
    return uses.graph


def _trace_model(archive: Archive, name: str) -> Graph:
    from pipeline.lineage.origins import Origins

    origins = Origins(archive)
    if name.startswith("models/"):
        path = Path(name) / "receipt.json"
        if not path.is_file():
            raise LineageError(f"{path} is missing; name a folder of models/, or a version such as inpaint-lama@1")
        digest = file_digest(path)
        origins.add_training(next(r for r in archive.receipts if r["receipt_sha256"] == digest))
    else:
        origins.add_version(_find_version(archive, name))
    return origins.graph


def _find_version(archive: Archive, reference: str) -> Version:
    """Return a registered version from the records, or from the tracking server if they do not have it."""
    found = find_version(archive.versions, reference)
    if found is None:
        known = sorted({f"{v.name}@{v.version}" for v in archive.versions} | {f"{n}@{a}" for n, a, _ in list_aliases()})
        hint = suggest(reference, set(known), otherwise=f"known: {', '.join(known) or 'no version'}")
        raise LineageError(f"no registered version {reference} is known here; {hint}")
    return found


def _find_manifest(archive: Archive, digest: str) -> str:
    found = [known for known in archive.manifests if known.startswith(digest)]
    if len(found) != 1 or len(digest) < 6:
        problem = "several manifests begin" if len(found) > 1 else "no manifest here begins"
        known = "; ".join(f"{d[:16]} {m['dataset']} {m['split']} {m['column']}" for d, m in archive.manifests.items())
        raise LineageError(f"{problem} with {digest!r}; name at least 6 digits of one of: {known or 'no manifest'}")
    return found[0]


def _trace_picture(uses: Uses, name: str, near: int | None) -> None:
    """Add all records of a picture to the graph, below a node for the question."""
    pictures = _find_pictures(name)
    close = _find_near(name, pictures, near) if near is not None else []
    if not pictures and not close:
        raise LineageError(
            f"no data set here ever had {name!r}: not as key, as SHA-256 of a source or stored picture, or as a file "
            "with such bytes; a copy that was saved again is found with --near 6"
        )
    records, similar = ({(p.key, p.sha256) for p in each} for each in (pictures, [p for _, p in close]))
    asked = Node(kind="question", title=name, facts={"records": len(records), "nearly equal": len(similar)})
    if len(records | similar) > 1:
        uses.graph.add(asked)
    root = asked if uses.graph.root else None
    for picture in pictures:
        uses.add_picture(picture, root)
    for distance, picture in close:
        uses.add_picture(picture, root, **{"bits that differ of 64": distance})


def _find_pictures(name: str) -> list[Picture]:
    if re.fullmatch(r"[0-9a-f]{64}", name) and (found := find_by_digest(name)):
        return found
    if found := find_by_key(name):
        return found
    return find_by_digest(file_digest(Path(name))) if Path(name).is_file() else []


def _find_near(name: str, pictures: list[Picture], distance: int) -> list[tuple[int, Picture]]:
    """Return nearly equal pictures, nearest first: of the file, or of the first record found."""
    if Path(name).is_file():
        from files.pictures import decode, difference_hash

        dhash = int.from_bytes(difference_hash(decode(Path(name).read_bytes())))
    elif pictures:
        dhash = pictures[0].dhash
    else:
        return []
    return [(bits, other) for bits, other in find_near(dhash, distance, _MOST_NEAR) if other not in pictures]


VERB = {
    "help": "say what a model was made from, and which models saw a picture",
    "example": "lineage model inpaint-edge_connect@candidate",
    "arguments": {
        "what": {"choices": ["model", "image", "dataset"], "help": "what is asked about"},
        "name": {
            "help": "a version such as inpaint-lama@candidate or inpaint-lama@3, or models/lama; a picture's key, "
            "SHA-256 or file; the digest of a manifest"
        },
        "--near": {
            "type": "int",
            "metavar": "BITS",
            "help": "also trace pictures whose hashes differ in few of 64 bits",
        },
        "--json": {"action": "store_true", "help": "print JSON"},
        "--html": {"metavar": "FILE", "help": "write one page with a graph"},
    },
    "reads_params": False,
}


def main(params: None, arguments: Namespace) -> int:
    """Print the graph, or write its page."""
    graph = trace(arguments.what, arguments.name, arguments.near)
    if arguments.html:
        from pipeline.lineage import page

        write_durably(Path(arguments.html), page.render(graph).encode())
        print(f"the graph is one page: {Path(arguments.html).resolve()}")
    elif arguments.json:
        print(json.dumps(graph.to_tree(), indent=2))
    else:
        print(render(graph))
    return 0
