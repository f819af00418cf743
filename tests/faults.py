"""Faults in a forked child of this process, which has everything imported: kills at the n-th change of the disk."""

from __future__ import annotations

import functools
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable

_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}


def in_child(work: Callable[[], object], *, kill_at: int = 0, file_bytes: int = 0) -> tuple[int, str]:
    """Run `work` in a child; returns its exit code, negative for a signal, and what it said on standard error.

    kill_at: SIGKILL just before the n-th file is opened for writing, renamed or removed, or folder made or removed.
    file_bytes: no file can grow beyond this, as on a full disk.
    """
    ours, theirs = os.pipe()  # to which the limit of files does not apply
    child = os.fork()
    if child == 0:
        _run(work, kill_at, file_bytes, theirs)
    os.close(theirs)
    with os.fdopen(ours) as said:
        text = said.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), text


def in_own_process(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test in a child, for a test that would leave its process unable to fork a training.

    PyTorch starts threads for a GPU, real or not, and a fork of a process that has them cannot compute gradients.
    """

    @functools.wraps(test)
    def run(*arguments: object, **named: object) -> None:
        code, said = in_child(functools.partial(test, *arguments, **named))
        assert code == 0, said

    return run


def _run(work: Callable[[], object], kill_at: int, file_bytes: int, said: int) -> None:
    """Never returns, whatever happens: a second test runner must not go on from here."""
    code = 1
    try:
        os.dup2(said, 2)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        if file_bytes:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
        if kill_at:
            sys.addaudithook(_Killer(kill_at))
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


class _Killer:
    def __init__(self, number: int) -> None:
        self._left = number

    def __call__(self, event: str, arguments: tuple) -> None:
        is_write = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if is_write or event in _CHANGES:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
