"""Work in a process of its own, started anew."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from files.errors import UserError

Argument = TypeVar("Argument")
Result = TypeVar("Result")
Say = Callable[[str], None]

log = logging.getLogger(__name__)


class ProbeError(UserError):
    """A generator cannot be trained as it is configured; the message says why."""


def run_apart(work: Callable[[Argument, Say], Result], argument: Argument, heard: Say = lambda text: None) -> Result:
    """`work(argument, say)` in a process of its own, started anew; `heard` gets what it says meanwhile.

    Raises ProbeError with the first cause when the work fails or its process ends, as it does when memory runs out.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_apart, args=(theirs, work, argument), daemon=True)
    process.start()
    theirs.close()
    try:
        while True:
            kind, content = ours.recv()
            if kind == "done":
                return content
            if kind == "failed":
                raise ProbeError(content)
            heard(content)
    except EOFError:
        process.join()
        killed = " as the system kills what takes too much memory" if process.exitcode == -9 else ""
        raise ProbeError(f"its process ended with exit code {process.exitcode}{killed}") from None
    finally:
        process.terminate()
        process.join()


def _apart(pipe: Connection, work: Callable[[Any, Say], Any], argument: Any) -> None:
    try:
        pipe.send(("done", work(argument, lambda text: pipe.send(("said", text)))))
    except Exception as error:
        if not isinstance(error, ValueError | RuntimeError | OSError):  # a defect, not a configuration
            log.exception("%s failed", work.__name__)
        text = str(error).strip() or type(error).__name__
        pipe.send(("failed", text.splitlines()[0]))
