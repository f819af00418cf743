"""Choose the pictures of the report, and read them from the results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from datasets.shards.column import Column
from datasets.shards.expectation import Expectation
from files.pictures import decode_image, decode_map, encode_grey_png, encode_png
from jobs.evaluation.settings import guided_row
from jobs.report.data import GalleryCell, GalleryRow
from jobs.report.heat import encode_errors
from masks.hole_ratio import member_of_bin
from pipeline.layout import BASELINES_ROW, GALLERY_NAME, GROUP_ROWS, OTHERS_ROW
from pipeline.params import Params
from pipeline.results import Results

_QUANTILES = (0.1, 0.5, 0.9)
_HIDDEN_COLOUR = 255


def choose_pictures(params: Params, results: Results) -> list[GalleryRow]:
    """Choose pairs by a rule: of each bin, those at fixed quantiles of the trained generators' mean error."""
    if results.masks is None or not results.generators:
        return []
    gallery = _Gallery(
        results=results,
        baselines=params.evaluate.baselines,
        columns={name: _open_gallery(name, results) for name in results.summaries},
    )
    candidates = next(iter(gallery.columns.values())).keys.to_pylist()  # the same in all
    hole_l1 = results.hole_l1(candidates)
    rows = []
    for bin_name in results.suite.bins:
        errors = {
            key: float(np.mean([hole_l1[name][key, bin_name] for name in results.generators])) for key in candidates
        }
        by_error = sorted(errors, key=lambda key: (errors[key], key))
        for quantile in _QUANTILES:
            key = by_error[round(quantile * (len(by_error) - 1))]
            caption = f"harder than {100 * quantile:.0f} % of this bin: mean L1 in the hole {errors[key]:.2f} %"
            levels = {name: pairs[key, bin_name] for name, pairs in hole_l1.items() if (key, bin_name) in pairs}
            rows.append(gallery.row(_Pair(key=key, bin=bin_name, hole_l1=levels), caption))
    return rows


def _open_gallery(row: str, results: Results) -> Column:
    images = results.images.manifest
    expected = Expectation(split=images.split, column=GALLERY_NAME, made_from=images.digest)
    remedy = f"dvc repro {results.suite.stage_of(row if row in GROUP_ROWS else f'evaluate@{row}')}"
    return Column(results.suite.results(row) / GALLERY_NAME, remedy=remedy, expected=expected)


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """A pair of image and mask. hole_l1: row -> its value, of each row that was filled in time."""

    key: str
    bin: str
    hole_l1: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class _Gallery:
    """The pictures that the results keep.

    baselines: names of the classical rows.
    columns: name of a summary -> its pictures.
    """

    results: Results
    baselines: Sequence[str]
    columns: Mapping[str, Column]

    def row(self, pair: _Pair, caption: str) -> GalleryRow:
        """Return the pictures of one pair."""
        compared = (*self.results.generators, *self.results.others)
        levels = [pair.hole_l1[name] for name in compared if name in pair.hole_l1]
        disagreement = max(levels) - min(levels)
        if len(levels) > 1:
            caption = f"{caption}; results of networks differ by up to {disagreement:.2f} percentage points"
        cells = list(self._cells(pair))
        return GalleryRow(key=pair.key, bin=pair.bin, caption=caption, cells=cells, disagreement=disagreement)

    def _cells(self, pair: _Pair) -> Iterator[GalleryCell]:
        """Yield the cells of a gallery row: the input, the results, and the truth."""
        results = self.results
        image = decode_image(_member(results.images, pair.key))
        hole = decode_map(_member(results.masks, pair.key, member_of_bin("mask", pair.bin))) > 0

        def result(group: str, name: str, label: str = "") -> GalleryCell:
            png = _member(self.columns[group], pair.key, member_of_bin(f"{name}-composite", pair.bin))
            errors = encode_errors(decode_image(png), image)
            return GalleryCell(label or name, png, errors, pair.hole_l1[name])

        yield GalleryCell("input", encode_png(np.where(hole[..., None], np.uint8(_HIDDEN_COLOUR), image)))
        for name in results.generators:
            edges = member_of_bin(f"{name}-edge", pair.bin)
            if edges in self.columns[name].fields:
                lines = decode_map(_member(self.columns[name], pair.key, edges))
                yield GalleryCell(f"edges of {name}", encode_grey_png(255 - lines))
            yield result(name, name)
            if guided_row(name) in pair.hole_l1:
                yield result(name, guided_row(name), f"{name}, guided by the true edges")
        for group, names in ((OTHERS_ROW, results.others), (BASELINES_ROW, self.baselines)):
            for name in names if group in self.columns else ():
                if name in pair.hole_l1:  # it was filled in time
                    yield result(group, name)
        yield GalleryCell("truth", encode_png(image))


def _member(column: Column, key: str, field: str | None = None) -> bytes:
    return column.read(column.keys.index(key).as_py(), field)
