"""Show progress on standard error: a bar on a terminal, elsewhere a line every 15 seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column

from pipeline.verbosity import is_quiet

Item = TypeVar("Item")

_LINE_SECONDS = 15.0
_BAR_WIDTH, _PACE_WIDTH, _LEFT_WIDTH = 17, 30, 14  # characters, with the space before


class Bar:
    """Show how much of some work is done. Use it with `with`, and call `at` as the work proceeds.

    what: name of the work.
    total: how many units there are.
    unit: plural of the unit, such as "images".
    """

    def __init__(self, what: str, total: int, unit: str) -> None:
        self.what = what
        self.total = total
        self.unit = unit
        self._opened = time.monotonic()
        self._start = self._opened  # the rate counts from here
        self._first: int | None = None  # units that were done then
        self._printed = self._opened
        self._done = 0
        self._skipped = 0
        self._rich: Progress | None = None
        self._is_quiet = is_quiet()
        if sys.stderr.isatty() and not self._is_quiet:
            self._rich = _make_progress(Console(stderr=True), what, total)
            self._task = self._rich.add_task(what, total=total, pace="", left="", note="")

    def __enter__(self) -> Bar:
        if self._rich:
            self._rich.start()
        return self

    def __exit__(self, kind: type | None, *rest: object) -> None:
        if self._rich:
            self._rich.stop()
        elif kind is None and not self._is_quiet:
            seconds = time.monotonic() - self._opened
            print(f"{self.what}: {self._done} {self.unit} in {seconds:.1f} s", file=sys.stderr, flush=True)

    def at(self, done: int, note: str = "", *, skipped: int = 0) -> None:
        """Show that `done` units of the total are done.

        note: a few words that are shown beside.
        skipped: units since the last call that an earlier run had done. They do not count in the rate.
        """
        self._done = done
        self._skipped += skipped
        now = time.monotonic()
        worked = done - self._skipped
        if self._first is None or worked == self._first:  # a resumed run does not start at 0
            self._first = worked
            self._start = now
        rate = (worked - self._first) / max(now - self._start, 1e-9)
        if self._rich:
            pace, left = self._pace(done, rate), self._left(done, rate)
            self._rich.update(self._task, completed=done, pace=pace, left=left, note=note)
        elif now - self._printed > _LINE_SECONDS and not self._is_quiet:
            self._printed = now
            words = [f"{self.what}: {done}/{self.total} {self.unit}", self._pace(done, rate), note]
            print(", ".join(word for word in words if word), file=sys.stderr, flush=True)

    def _pace(self, done: int, rate: float) -> str:
        return f"{rate:,.1f} {self.unit}/s, {self._left(done, rate)}" if rate > 0 else ""

    def _left(self, done: int, rate: float) -> str:
        return f"{span((self.total - done) / rate)} left" if rate > 0 else ""


def _make_progress(console: Console, what: str = "", total: int = 1) -> Progress:
    """Return a bar with count, rate and time left. The note gets the rest of the line, and is cut where that ends.

    On a narrow terminal the note, the rate and then the bar are left out, and then the name is cut.

    what, total: name and number of units of the work, from which the width is computed.
    """
    free = console.width - len(what) - 2 * len(str(total)) - 2  # beside name and count
    name, bar = TextColumn("{task.description}"), BarColumn(bar_width=16)
    count, rest = MofNCompleteColumn(), Column(ratio=1, no_wrap=True, overflow="ellipsis")
    if free >= _BAR_WIDTH + _PACE_WIDTH:
        pace = TextColumn("{task.fields[pace]}", table_column=Column(no_wrap=True))
        columns = [name, bar, count, pace, TextColumn("{task.fields[note]}", table_column=rest)]
    else:
        name = TextColumn("{task.description}", table_column=rest)
        left = TextColumn("{task.fields[left]}", table_column=Column(no_wrap=True))
        columns = [name, *([bar] if free >= _BAR_WIDTH + _LEFT_WIDTH else []), count, left]
    return Progress(*columns, console=console, expand=True)


def span(seconds: float) -> str:
    """Return a text such as "45 s", "12 min" or "3 h 20 min"."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def track(items: Iterable[Item], what: str, total: int, unit: str) -> Iterator[Item]:
    """Yield the items and show how many have come. The arguments are those of Bar."""
    with Bar(what, total, unit) as bar:
        for count, item in enumerate(items, start=1):
            yield item
            bar.at(count)


def printable(text: str) -> str:
    """Return a text with every character escaped that moves the cursor, breaks the line or changes its direction."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
