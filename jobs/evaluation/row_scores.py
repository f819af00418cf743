"""The scores of one row of the results on disk, of which a reader loads only the columns that it needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.evaluation.results import FIXED_COLUMNS


@dataclass(frozen=True)
class RowScores:
    """The scores of one row.

    path: table of scores that `ScoreWriter` wrote.
    row: one of the rows of the table.
    """

    path: Path
    row: str

    @property
    def metrics(self) -> list[str]:
        """The metrics that some row of the table has."""
        return [name for name in pq.read_schema(self.path).names if name not in FIXED_COLUMNS]

    @property
    def keys(self) -> pa.Array:
        """The keys of the images that have a score, without repetition."""
        return pc.unique(self._read("key")["key"])

    def grid(self, metric: str, keys: pa.Array, bins: Sequence[str]) -> np.ndarray:
        """Return one metric by image and bin, float64 (len(keys), len(bins)); NaN where there is no value.

        keys, bins: those to return, in this order. Scores of others are left out.
        """
        grid = np.full((len(keys), len(bins)), np.nan)
        if metric in self.metrics:
            table = self._read("key", "bin", metric)
            image = pc.index_in(table["key"], value_set=keys)
            column = pc.index_in(table["bin"], value_set=pa.array(bins, pa.string()))
            is_wanted = pc.and_(pc.is_valid(image), pc.is_valid(column))
            places = (pc.filter(each, is_wanted).to_numpy() for each in (image, column))
            grid[tuple(places)] = pc.filter(table[metric].cast(pa.float64()), is_wanted).to_numpy()
        return grid

    def _read(self, *columns: str) -> pa.Table:
        return pq.read_table(self.path, columns=list(columns), filters=[("row", "=", self.row)])


def rows_of(path: Path) -> dict[str, RowScores]:
    """Return row -> its scores, of all rows of a table of scores, in the order of the table."""
    return {row: RowScores(path, row) for row in pc.unique(pq.read_table(path, columns=["row"])["row"]).to_pylist()}


def all_keys(rows: Iterable[RowScores]) -> pa.Array:
    """Return the keys of the images that some row has a score of, sorted."""
    keys = pa.chunked_array([row.keys for row in rows], pa.string())
    return pc.unique(keys).sort()
