"""A limit of the time in which a baseline fills one hole."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection

import numpy as np

from files.errors import UserError
from jobs.evaluation.baselines import FillOne


class TimeLimit:
    """Call fills in a process of its own, which is ended when a call takes too long.

    Compiled code cannot be interrupted in any other way. The process ends with the one that started it. It is started
    again after it was ended; its start counts towards no call.

    seconds: limit of one call.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None

    def fill(self, fill: FillOne, image: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
        """Return the filled image, or None if it was not finished in time.

        fill: a function of a module, which the process imports by name.
        Raises what the fill raises, and UserError when its process ends early.
        """
        self.start()
        self._pipe.send((fill, image, mask))
        if not self._pipe.poll(self._seconds):
            self.close()
            return None
        answer = self._receive()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
        self._process = self._pipe = None

    def start(self) -> None:
        """Start the process, unless it runs."""
        if self._process is not None:
            return
        context = multiprocessing.get_context("spawn")
        self._pipe, its_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(its_end,), daemon=True)
        self._process.start()
        its_end.close()  # only the process holds it now, so that its end is seen here
        self._receive()  # it is ready

    def _receive(self) -> np.ndarray | Exception | None:
        try:
            return self._pipe.recv()
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            self.close()
            raise UserError(f"the process of a baseline ended with exit code {code}") from None


def _serve(pipe: Connection) -> None:
    pipe.send(None)
    while True:
        try:
            fill, image, mask = pipe.recv()
        except EOFError:  # the caller is gone
            return
        try:
            pipe.send(fill(image, mask))
        except Exception as error:
            pipe.send(error)
