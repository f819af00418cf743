"""Run work in a process of its own, so that its memory is counted and its crash is caught."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from torch import OutOfMemoryError

from files.errors import UserError

Argument = TypeVar("Argument")
Result = TypeVar("Result")
Say = Callable[[str], None]

log = logging.getLogger(__name__)


class ProbeError(UserError):
    """A generator cannot be trained with its configuration. The message says why."""


def run_apart(work: Callable[[Argument, Say], Result], argument: Argument, heard: Say = lambda text: None) -> Result:
    """Run `work(argument, say)` in a new Python process and return its result.

    work: a function of a module, which the new process imports by name.
    argument, and the result: must be picklable.
    heard: called here with each text that the work passes to `say`.
    Raises ProbeError with the first cause when the work fails or its process ends early. A process ends early, for
    example, when the system kills it because memory runs out.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(sender, work, argument), daemon=True)
    process.start()
    sender.close()  # only the process holds it now, so that its end is seen here as the end of the messages
    try:
        return _receive(receiver, heard)
    except EOFError:
        process.join()
        killed = ", as when the system runs out of memory" if process.exitcode == -9 else ""
        raise ProbeError(f"its process ended with exit code {process.exitcode}{killed}") from None
    finally:
        process.terminate()
        process.join()


def _receive(receiver: Connection, heard: Say) -> Any:
    """Pass on texts until the result comes. Raises ProbeError for a failure, EOFError when the process ends."""
    while True:
        kind, content = receiver.recv()
        if kind == "done":
            return content
        if kind == "failed":
            raise ProbeError(content)
        heard(content)


def _send_result(sender: Connection, work: Callable[[Any, Say], Any], argument: Any) -> None:
    try:
        sender.send(("done", work(argument, lambda text: sender.send(("said", text)))))
    except Exception as error:
        if not isinstance(error, UserError | OSError | MemoryError | OutOfMemoryError):  # a defect of this code
            log.exception("%s failed", work.__name__)
        text = str(error).strip() or type(error).__name__
        sender.send(("failed", text.splitlines()[0]))
