"""Protocols for running tasks and for showing progress.

The caller chooses both. This package knows neither Ray nor terminals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class MapTasks(Protocol):
    """Apply a picklable function to every item, here or on workers, and yield the results as they are completed.

    The first error of a call stops the rest and is raised.
    """

    def __call__(self, function: Callable[[Item], Result], items: Sequence[Item], /) -> Iterator[Result]: ...


class ProgressBar(Protocol):
    """A bar that shows how much of a total is done."""

    def at(self, done: int, note: str = "", *, skipped: int = 0) -> None:
        """Show progress.

        done: units finished so far, skipped ones included.
        note: a few words, shown beside the bar.
        skipped: units since the last call that an earlier run had finished; they do not count for the rate.
        """


class OpenBar(Protocol):
    """Open a progress bar: a title, the total and the unit that it counts."""

    def __call__(self, title: str, total: int, unit: str, /) -> AbstractContextManager[ProgressBar]: ...


@dataclass(frozen=True, kw_only=True)
class TaskRunner:
    """The caller's choice of workers and of progress bar."""

    map_tasks: MapTasks
    open_bar: OpenBar
