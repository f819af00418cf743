"""The results as text for other programs and documents: Markdown, CSV, LaTeX and JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, Literal

from jobs.evaluation.metrics.value import Metric, Missing, Value
from jobs.evaluation.results import OVERALL
from jobs.report.data import GROUPS, Page, Row, part_by_guidance, rows_by_bin, sort_rows
from jobs.report.summary import summarise_rows
from jobs.report.tables import Cell, Table, absent_columns, bin_table, comparison_table
from jobs.report.text import encodable

Format = Literal["markdown", "csv", "latex", "json"]


def format_results(page: Page, form: Format) -> str:
    """Return the results as text that ends with a line break.

    markdown: the verdict and both tables, with intervals.
    csv: a line for each row, group of pairs and metric that has a value.
    latex: the table of all pairs, for the package booktabs: the best value is bold, those that are not significantly
        worse are underlined.
    json: all of these with the comparisons of any two rows and the digests; a metric without a value is its reason.
    """
    return encodable(_WRITERS[form](page))


def _markdown(page: Page) -> str:
    unguided, guided = part_by_guidance(page)
    name = ", suite ".join(filter(None, (page.dataset, page.suite_name)))
    masks = f"{page.num_masks} mask{'' if page.num_masks == 1 else 's'} each"
    parts = [
        f"# {_escape_markdown(name)}: {page.num_images:,} images, {masks}",
        f"Suite {_escape_markdown(page.suite)}. {_escape_markdown(page.size)} pixels.",
        *map(_escape_markdown, summarise_rows(page.rows, page.comparisons)),
        *([_escape_markdown(page.track)] if page.track else []),
        _markdown_table(comparison_table(unguided)),
        *map(_escape_markdown, absent_columns(page.rows)),
    ]
    if guided.rows:
        parts += ["## With the true edges inside the hole", _markdown_table(comparison_table(guided))]
    if by_bin := rows_by_bin(page):
        parts += ["## L1 in the hole, in %, and PSNR by size of the hole", _markdown_table(bin_table(by_bin, page))]
    parts.append("Bold: best. Underlined: not significantly worse. In brackets: 95 % intervals over images.")
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Table) -> str:
    heads = [" ".join(filter(None, (heading.title, heading.unit))) for heading in table.headings]
    lines = [["", *map(_escape_markdown, heads)], ["---", *["---:"] * len(heads)]]
    for row, cells in table.rows:
        lines.append([_escape_markdown(_name(row)), *map(_markdown_cell, cells)])
    notes = [f"{number}. {_escape_markdown(note)}" for number, note in enumerate(table.footnotes, 1)]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n\n".join(filter(None, (text, "\n".join(notes))))


def _markdown_cell(cell: Cell) -> str:
    text = f"**{cell.text}**" if cell.is_best else f"<u>{cell.text}</u>" if cell.is_level else cell.text
    if cell.footnote:
        text += f" ({cell.footnote})"
    return f"{text} ({_escape_markdown(cell.beneath)})" if cell.beneath else text


def _csv(page: Page) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("suite", "row", "kind", "group", "metric", "mean", "low", "high"))
    for row in sort_rows(page.rows):
        for group, name, value in _values(row):
            writer.writerow((page.suite, row.id, row.kind, group, name, value.mean, value.low, value.high))
    return file.getvalue()


def _values(row: Row) -> Iterator[tuple[str, str, Value]]:
    """Yield group, metric and value of everything that has a value."""
    for group, metrics in {OVERALL: row.metrics, **row.by_bin}.items():
        for name, metric in metrics.items():
            if isinstance(metric, Value):
                yield group, name, metric


def _latex(page: Page) -> str:
    return "\n".join(_latex_table(part) for part in part_by_guidance(page) if part.rows)


def _latex_table(page: Page) -> str:
    table = comparison_table(page)
    heads = [_escape_latex(" ".join(filter(None, (head.title, head.unit)))) for head in table.headings]
    lines = [
        f"% suite {_escape_latex(page.suite)}",
        f"\\begin{{tabular}}{{l{'r' * len(heads)}}}",
        "\\toprule",
        " & ".join(["", *heads]) + " \\\\",
    ]
    kind = None
    for row, cells in table.rows:
        if row.kind != kind:
            kind = row.kind
            lines += ["\\midrule", f"\\multicolumn{{{len(heads) + 1}}}{{l}}{{{_escape_latex(GROUPS[kind])}}} \\\\"]
        lines.append(" & ".join([_escape_latex(row.name), *map(_latex_cell, cells)]) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def _latex_cell(cell: Cell) -> str:
    text = "--" if cell.text == "–" else cell.text
    return f"\\textbf{{{text}}}" if cell.is_best else f"\\underline{{{text}}}" if cell.is_level else text


def _json(page: Page) -> str:
    tree = {
        "suite": page.suite,
        "suite_name": page.suite_name,
        "dataset": page.dataset,
        "size": page.size,
        "images": page.num_images,
        "verdict": summarise_rows(page.rows, page.comparisons),
        "rows": [_row(row) for row in sort_rows(page.rows)],
        "comparisons": [{**asdict(one), "better": one.better} for one in page.comparisons],
        "published": [{**line._asdict(), "verdict": line.verdict._asdict()} for line in page.published],
        "provenance": dict(page.facts),
        "commands": list(page.commands),
        "notes": list(page.notes),
    }
    return json.dumps(tree, indent=2, ensure_ascii=False) + "\n"


def _row(row: Row) -> dict[str, Any]:
    groups = {OVERALL: row.metrics, **row.by_bin}
    return {
        "row": row.id,
        "kind": row.kind,
        "paper": row.paper,
        "year": row.year,
        "cost": row.cost and asdict(row.cost),
        "groups": {name: {key: _metric(metric) for key, metric in metrics.items()} for name, metrics in groups.items()},
    }


def _metric(metric: Metric) -> dict[str, float] | str:
    return metric.reason if isinstance(metric, Missing) else asdict(metric)


def _name(row: Row) -> str:
    return f"{row.name} (untrained)" if row.kind == "untrained" else row.name


def _escape_markdown(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>#|~$&])", r"\\\1", " ".join(text.split()))


_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def _escape_latex(text: str) -> str:
    escaped = re.sub(r"[\\~^&%$#_{}]", lambda found: _LATEX.get(found[0], f"\\{found[0]}"), " ".join(text.split()))
    return escaped.replace("–", "--")


_WRITERS: Mapping[Format, Callable[[Page], str]] = {
    "markdown": _markdown,
    "csv": _csv,
    "latex": _latex,
    "json": _json,
}
