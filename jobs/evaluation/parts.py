"""The finished parts of an evaluation on disk: a killed evaluation continues with those that are missing."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from files.durable import durable_file
from jobs.evaluation.costs import Cost
from jobs.evaluation.loop import PartResult
from jobs.evaluation.metrics.inception import Features
from jobs.evaluation.metrics.value import Missing
from jobs.evaluation.results import score_lines, write_json, write_table

_NOTE, _SCORES, _GALLERY, _REAL = "part.json", "scores.parquet", "gallery.parquet", "real.npy"
_JOINED = "joined"
_COLUMNS = pa.schema({"row": pa.string(), "key": pa.string(), "bin": pa.string(), "hole_ratio": pa.float64()})
"""Of every table of scores; an evaluation without rows has no other."""


@dataclass(frozen=True, kw_only=True)
class PartNote:
    """What is small of a part; see `PartResult`.

    rows: the rows that have scores.
    """

    first: int
    keys: tuple[str, ...]
    rows: tuple[str, ...]
    over_limit: tuple[tuple[str, str, str], ...]
    missing: dict[str, Missing]
    costs: dict[str, Cost]
    sources: dict[str, list[str]]


class Parts:
    """The parts of one evaluation, a folder each. The note of a part is written last: its presence means "complete".

    folder: of the parts. Parts of another evaluation, which a killed command left there, are removed.
    identity: JSON of everything that decides the results.
    """

    def __init__(self, folder: Path, identity: object) -> None:
        self._folder = folder
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()
        self._place = folder / digest[:16]
        for other in folder.glob("*") if folder.is_dir() else ():
            if other != self._place:
                shutil.rmtree(other)
        shutil.rmtree(self._place / _JOINED, ignore_errors=True)

    def unfinished(self, parts: Sequence[range]) -> list[range]:
        """Return those parts that are not complete here."""
        return [part for part in parts if not (self._part(part.start) / _NOTE).is_file()]

    def add(self, result: PartResult) -> None:
        """Write a part."""
        folder = self._part(result.first)
        shutil.rmtree(folder, ignore_errors=True)
        write_table(folder / _SCORES, score_lines(result.scores))
        write_table(folder / _GALLERY, _gallery_lines(result))
        if result.real:
            _write_array(folder / _REAL, np.concatenate(result.real))
        for row, fake in result.fake.items():
            _write_array(folder / f"{row}.fake.npy", np.concatenate(fake))
        note = PartNote(
            first=result.first,
            keys=tuple(result.keys),
            rows=tuple(dict.fromkeys(score.row for score in result.scores)),
            over_limit=tuple(result.over_limit),
            missing=result.missing,
            costs=result.costs,
            sources=result.sources,
        )
        write_json(folder / _NOTE, asdict(note))

    def notes(self) -> Iterator[PartNote]:
        """Yield the notes of all parts, in the order of the suite."""
        for folder in self._folders():
            yield _read_note(folder)

    def gallery(self) -> Iterator[tuple[str, dict[str, bytes]]]:
        """Yield the key and the members of each image of the gallery, in the order of the suite."""
        for folder in self._folders():
            members: dict[str, dict[str, bytes]] = {}
            for line in pq.read_table(folder / _GALLERY).to_pylist():
                of_key = members.setdefault(line["key"], {})
                if line["member"] is not None:
                    of_key[line["member"]] = line["content"]
            yield from members.items()

    def schema(self) -> pa.Schema:
        """Return the schema of all scores: the fixed columns, then the metrics in the order of their appearance."""
        return pa.unify_schemas([_COLUMNS, *(pq.read_schema(folder / _SCORES) for folder in self._folders())])

    def scores(self, row: str) -> pa.Table:
        """Return the scores of one row in the order of the suite; null where a pair lacks a metric."""
        tables = (pq.read_table(folder / _SCORES, filters=[("row", "=", row)]) for folder in self._folders())
        return pa.concat_tables((table for table in tables if table.num_rows), promote_options="default")

    def features(self, row: str) -> Features:
        """Return the features of one row in the order of its scores. They stay on disk, joined in one file per side."""
        real, fake = self._join(_REAL), self._join(f"{row}.fake.npy")
        image_of: list[int] = []
        num_before = 0
        for folder in self._folders():
            keys = _read_note(folder).keys
            number_of = {key: num_before + number for number, key in enumerate(keys)}
            of_row = pq.read_table(folder / _SCORES, columns=["key"], filters=[("row", "=", row)])
            image_of += [number_of[key] for key in of_row["key"].to_pylist()]
            num_before += len(keys)
        return Features(real, fake, np.array(image_of), np.arange(len(fake)))

    def _join(self, name: str) -> np.ndarray:
        """Append the arrays of all parts in one file, and map it."""
        path = self._place / _JOINED / name
        path.parent.mkdir(exist_ok=True)
        sources = [folder / name for folder in self._folders() if (folder / name).is_file()]
        first = np.load(sources[0], mmap_mode="r", allow_pickle=False)
        if not path.exists():
            with path.open("wb") as file:
                for source in sources:
                    np.load(source, allow_pickle=False).tofile(file)
        return np.memmap(path, first.dtype, "r").reshape(-1, first.shape[1])

    def _part(self, first: int) -> Path:
        return self._place / f"{first:09d}"

    def _folders(self) -> list[Path]:
        return sorted(path.parent for path in self._place.glob(f"*/{_NOTE}"))


def _gallery_lines(result: PartResult) -> list[dict[str, Any]]:
    """Return a line per member; an image without pictures has one line without a member."""
    return [
        {"key": key, "member": member, "content": content}
        for key, members in result.gallery.items()
        for member, content in (members or {None: None}).items()
    ]


def _write_array(path: Path, array: np.ndarray) -> None:
    with durable_file(path) as file:
        np.save(file, array, allow_pickle=False)


def _read_note(folder: Path) -> PartNote:
    tree = json.loads((folder / _NOTE).read_bytes())
    tree["over_limit"] = tuple(tuple(pair) for pair in tree["over_limit"])
    tree["missing"] = {metric: Missing(**missing) for metric, missing in tree["missing"].items()}
    tree["costs"] = {row: Cost(**cost) for row, cost in tree["costs"].items()}
    return PartNote(**tree | {"rows": tuple(tree["rows"]), "keys": tuple(tree["keys"])})
