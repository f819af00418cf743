"""Operations that repeat to the bit, and a report of those that cannot on the device."""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections.abc import Iterator

import torch

_REPORT = re.compile(
    r"(.+?) (?:does not have a deterministic implementation|defaults to a non-deterministic algorithm)", re.DOTALL
)


@contextlib.contextmanager
def deterministic(wanted: bool) -> Iterator[set[str]]:
    """Choose operations that repeat to the bit until the context ends.

    wanted: False changes nothing.

    Yields a set that receives the names of operations without a deterministic form, as they occur. PyTorch has none for
    some operations on a GPU. They are computed all the same.
    PyTorch would also fill every new tensor with NaN, to expose operations that read memory before they write it. That
    is for the search of defects and takes up to a tenth of a step, so it is left out.
    """
    reported: set[str] = set()
    if not wanted:
        yield reported
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    try:
        with _intercept_reports(reported):
            yield reported
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory = filled


@contextlib.contextmanager
def _intercept_reports(reported: set[str]) -> Iterator[None]:
    """Add the operations that PyTorch warns of to a set. Other warnings are shown as before."""
    with warnings.catch_warnings():
        warnings.filterwarnings("always", message=_REPORT.pattern)
        show = warnings.showwarning

        def note_or_show(message: Warning | str, *details: object) -> None:
            if report := _REPORT.match(str(message)):
                reported.add(report[1])
            else:
                show(message, *details)

        warnings.showwarning = note_or_show
        yield
