"""Compute ahead: keep a few results of other threads begun while this thread works."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

Result = TypeVar("Result")


def in_order(futures: Iterable[Future[Result]], num_ahead: int) -> Iterator[Result]:
    """Yield the results of futures in their order, with some of the following ones begun."""
    begun: deque[Future[Result]] = deque()
    for future in futures:
        begun.append(future)
        if len(begun) > num_ahead:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()


class Here(Executor):
    """Computes in the calling thread."""

    def submit(self, function: Callable[..., Result], /, *arguments: Any) -> Future[Result]:
        future: Future[Result] = Future()
        future.set_result(function(*arguments))
        return future
