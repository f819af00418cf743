"""Standard output and error that may lose their reader while the work goes on."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

_GONE = {errno.EPIPE, errno.EIO}  # nothing reads the pipe any more; the terminal was closed


class LastingStream:
    """A text stream that is turned to /dev/null once its reader has gone, instead of raising an error."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text if anything still reads it. Returns its length."""
        self._attempt(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Send all that was written."""
        self._attempt(self._stream.flush)

    def _attempt(self, action: Callable[..., object], *arguments: str) -> None:
        try:
            action(*arguments)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())  # Python and libraries write there as well, at exit at the latest
            os.close(null)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def outlast_readers(*, of_output: bool) -> Iterator[None]:
    """Let the work go on when the terminal is closed or the reader of a pipe ends: `... 2>&1 | head`.

    of_output: whether this holds for standard output as well as for standard error.
    """
    with contextlib.ExitStack() as streams:
        streams.enter_context(contextlib.redirect_stderr(LastingStream(sys.stderr)))
        if of_output:
            streams.enter_context(contextlib.redirect_stdout(LastingStream(sys.stdout)))
        yield
