"""Pages made in code, and what can be read back from them."""

import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
from PIL import Image

from jobs.evaluation.comparison import Comparison
from jobs.evaluation.metrics.value import Missing, Value
from jobs.evaluation.results import OVERALL
from jobs.report.data import Cost, Curves, GalleryCell, GalleryRow, OtherPage, Page, Row, Unfinished

HOSTILE = (
    "</title></style><script>alert(1)</script>'\" onload='x' <img src=x onerror=alert(1)>"
    "{{ 7 * 7 }} $\\frac$ &amp; --> url(http:/x) javascript:alert(1)"
)


class Nodes(HTMLParser):
    """Elements with their attributes, and the text outside of style and script."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.text, self.inside = [], "", []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.inside.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag in self.inside:
            del self.inside[len(self.inside) - 1 - self.inside[::-1].index(tag) :]

    def handle_data(self, text):
        if not {"style", "script"} & set(self.inside):
            self.text += text

    def texts(self):
        return re.sub(r"\s+", " ", self.text)


def png(width=8, height=8, level=0):
    file = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), level, np.uint8)).save(file, "PNG")
    return file.getvalue()


def row(name, hole_l1, kind="generator", **rest):
    metrics = {"l1_hole_percent": Value(hole_l1, hole_l1 - 0.5, hole_l1 + 0.5)}
    return Row(name=name, kind=kind, metrics=metrics | rest.pop("metrics", {}), **rest)


def page(**changes):
    rows = (row("mean_colour", 9.0, "baseline"), row("edge_connect", 5.0), row("edge_connect", 30.0, "untrained"))
    plain = Page(
        dataset="shapes",
        size="64 × 48",
        num_images=1200,
        num_masks=6,
        suite="3f9a",
        budget="2,000 steps",
        rows=rows,
    )
    return replace(plain, **changes)


def _cost(kind):
    return Cost(images_seen=800, parameters=20, trained_parameters=30) if kind == "generator" else None


def full_page(text):
    """A page with the text wherever text can stand."""
    metrics = {text: Value(1.0, 0.5, 1.5), "fid": Missing(text), "psnr": Value(20.0)}
    bins = {text: {"l1_hole_percent": Value(3.0), "psnr": Value(20.0)}, "0.1-0.2": {"l1_hole_percent": Missing(text)}}
    rows = [
        row(text, 4.0, kind, metrics=metrics, by_bin=bins, paper=text, cost=_cost(kind))
        for kind in ("generator", "untrained", "baseline")
    ]
    return page(
        dataset=text,
        suite=text,
        suite_name=text,
        other_pages=[OtherPage(text, "../reports/centre/index.html")],
        rows=[*rows, row("mean_colour", 9.0, "baseline", by_bin=bins)],
        comparisons=[
            Comparison(
                metric="l1_hole_percent",
                group=group,
                first=text,
                second="mean_colour",
                difference=Value(-1.0, -2.0, 0.5),
                p_value=0.01,
            )
            for group in (OVERALL, text)
        ],
        bins=[(text, 4), ("0.1-0.2", 5)],
        curves=[
            Curves(generator=text, phase=text, steps=[1, 2, 3], series={text: [3.0, 2.0, 1.0]}),
            Curves(generator="b", phase="edges", steps=[1, 2, 3], series={"l1": [300.0, 2.0, 1.0]}),
            Curves(generator="c", phase="edges", steps=[1], series={"l1": [float("nan")]}),
        ],
        gallery=[
            GalleryRow(
                key=text,
                bin=text,
                caption=text,
                cells=[
                    GalleryCell("input", png(level=255)),
                    GalleryCell(text, png(), png(level=9), 3.0),
                    GalleryCell("truth", png(level=90)),
                ],
            )
        ],
        facts=[(text, text)],
        commands=[text],
        notes=[text],
        unfinished=Unfinished(made=text, missing=[(text, text)]),
    )
