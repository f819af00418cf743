"""Start this process again with pinned instruction sets, before a library reads its variables."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from jobs.training.portability import PINNED, PortabilityError, is_pinned

_PROGRAM = Path(__file__).with_name("__main__.py")


def pin_instruction_sets() -> None:
    """Replace this process by one with the variables of a portable training, unless it has them.

    The new process has the same number, parent and command line. Processes that it starts have the variables, too.
    Raises PortabilityError in a process that is not `python -m pipeline`.
    """
    if is_pinned(os.environ):
        return
    if Path(sys.argv[0]) != _PROGRAM:
        raise PortabilityError("train.portable is true, so it needs a process of its own; run: python -m pipeline")
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | PINNED)
