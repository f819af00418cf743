"""Tables of text for the terminal."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

WIDTH = 120


def align_left(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a line per row, every column left-aligned."""
    widths = [*_widths(rows)[:-1], 0]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def align_right(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a line per row, the first column left-aligned and the others right-aligned."""
    first, *widths = _widths(rows)
    return [
        "  ".join([row[0].ljust(first), *(cell.rjust(width) for cell, width in zip(row[1:], widths, strict=True))])
        for row in rows
    ]


def wrap_last(rows: Sequence[Sequence[str]]) -> str:
    """Return the rows with their last column wrapped, so that no line is longer than 120 characters."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for _ in rows[0]:
        table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console(width=WIDTH, color_system=None, highlight=False, markup=False, emoji=False, file=io.StringIO())
    console.print(table)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*rows, strict=True)]
