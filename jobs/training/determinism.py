"""Operations that repeat to the bit, and a report of those for which a device has none."""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections.abc import Iterator

import torch

_REPORT = re.compile(r"(.+?) does not have a deterministic implementation")


@contextlib.contextmanager
def deterministic(wanted: bool) -> Iterator[set[str]]:
    """Until the end, choose operations that repeat to the bit; yields the names of those that cannot, as they occur.

    PyTorch has no such form of some operations on a GPU; they are done as they are, since whoever must have equal
    bits can read the report, and nobody else should be stopped.
    """
    found: set[str] = set()
    if not wanted:
        yield found
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("always", message=_REPORT.pattern)
            show = warnings.showwarning

            def note(message: Warning | str, *where: object) -> None:
                if reported := _REPORT.match(str(message)):
                    found.add(reported[1])
                else:
                    show(message, *where)

            warnings.showwarning = note
            yield found
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
