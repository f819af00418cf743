"""Render the comparison as one HTML page that needs no other file. Equal data give equal text.

Names, keys and captions come from data sets and may be hostile. The template escapes all of them, charts are drawn from
numbers, and the page's policy forbids scripts and requests.
"""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from jobs.report.charts import bin_chart, loss_chart
from jobs.report.costs import cost_lines
from jobs.report.data import GROUPS, Page, rows_by_bin
from jobs.report.gallery import lay_out
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
    by_bin = rows_by_bin(page)
    html = environment.get_template("page.html.j2").render(
        page=page,
        groups=GROUPS,
        summary=summarise_rows(page.rows),
        comparison=comparison_table(page),
        bin_table=bin_table(by_bin, page) if by_bin else None,
        pairs=pair_table(page),
        costs=cost_lines(page),
        absent=absent_columns(page.rows),
        bin_chart=bin_chart(by_bin, [name for name, _ in page.bins]) if by_bin else None,
        losses=[loss_chart(curves, number) for number, curves in enumerate(page.curves)],
        gallery=lay_out(page.gallery),
    )
    return encodable(html)
