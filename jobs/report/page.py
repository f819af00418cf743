"""Render the comparison as one HTML page that needs no other file. Equal data give equal text.

Names, keys and captions come from data sets and may be hostile. The template escapes all of them, and charts are drawn
from numbers. The page's policy forbids requests, and every script but that of page.js.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from jobs.report.charts import bin_charts, cost_charts, loss_chart
from jobs.report.costs import cost_lines
from jobs.report.data import GROUPS, WORDS, Page, part_by_guidance, rows_by_bin, sort_rows
from jobs.report.gallery import lay_out
from jobs.report.heat import BRIGHTEST
from jobs.report.pairs import pair_table
from jobs.report.summary import summarise_rows
from jobs.report.tables import absent_columns, bin_table, comparison_table
from jobs.report.text import encodable


def render(page: Page) -> str:
    """Render the page as HTML 5, to be written in UTF-8.

    Raises UserError for a picture in the gallery that is not a PNG.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["thousands"] = lambda number: f"{number:,}"
    script = _read("page.js")
    by_bin = rows_by_bin(page)
    page, guided = part_by_guidance(page)
    costs = cost_lines(page)
    html = environment.get_template("page.html.j2").render(
        page=page,
        style=_read("page.css"),
        script=script,
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        groups=GROUPS,
        words=WORDS,
        summary=summarise_rows(page.rows, page.comparisons),
        comparison=comparison_table(page),
        guided=comparison_table(guided) if guided.rows else None,
        bin_table=bin_table(by_bin, page) if by_bin else None,
        pairs=pair_table(page),
        costs=costs,
        cost_charts=cost_charts(sort_rows(page.rows)) if costs else [],
        absent=absent_columns(page.rows),
        bin_charts=bin_charts(by_bin, [name for name, _ in page.bins]) if by_bin else [],
        losses=[loss_chart(curves, number) for number, curves in enumerate(page.curves)],
        gallery=lay_out(page.gallery),
        best=next((row.name for row in sort_rows(page.rows) if row.kind == "generator"), ""),
        brightest=BRIGHTEST,
    )
    return encodable(html)


def _read(name: str) -> Markup:
    """Return a file beside this one, as text that is not escaped."""
    return Markup(Path(__file__).with_name(name).read_text(encoding="utf-8"))
