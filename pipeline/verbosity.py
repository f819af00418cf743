"""How much a command says on the terminal: errors only, results and warnings, or the log of this code as well.

The options `--quiet` and `--verbose` decide, before the verb or after it. The variable INPAINT_VERBOSITY does the same
for commands without them, such as the stages that DVC starts.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from files.addresses import without_secrets
from files.checkout import FOLDERS
from files.errors import UserError

VARIABLE = "INPAINT_VERBOSITY"
LEVELS = ("quiet", "normal", "verbose")

_PLAIN, _WITH_TIME = "%(message)s", "%(asctime)s %(name)s: %(message)s"

log = logging.getLogger(__name__)


class VerbosityError(UserError):
    """The variable INPAINT_VERBOSITY has an unknown value."""


def add_options(parser: argparse.ArgumentParser, **default: Any) -> None:
    """Add --quiet and --verbose to a parser.

    default: `default=argparse.SUPPRESS` for the parser of a verb, which must not overwrite options before the verb.
    """
    group = parser.add_mutually_exclusive_group()
    for level, flag, text in (
        ("quiet", "-q", "print errors, and of results only those that were asked for"),
        ("verbose", "-v", "print the log of this code as well, with times"),
    ):
        group.add_argument(
            flag, f"--{level}", dest="verbosity", action="store_const", const=level, help=text, **default
        )


@contextlib.contextmanager
def set_verbosity(level: str | None) -> Iterator[None]:
    """Log to standard error as a level asks, until the context ends.

    level: one of LEVELS; None takes the variable INPAINT_VERBOSITY, or "normal" if it is not set.
    Raises VerbosityError if the variable has another value.
    """
    level = level or os.environ.get(VARIABLE) or "normal"
    if level not in LEVELS:
        raise VerbosityError(f"INPAINT_VERBOSITY is {level!r}; set it to one of {', '.join(LEVELS)}, or unset it")
    _write_log(_WITH_TIME if level == "verbose" else _PLAIN)
    with contextlib.ExitStack() as stack:
        if level == "quiet":
            stack.enter_context(_silence())
        if level == "verbose":
            for name in FOLDERS:
                stack.enter_context(_logging_at(logging.DEBUG, name))
        yield


def is_quiet() -> bool:
    """Tell whether only errors and results that were asked for are printed."""
    return not log.isEnabledFor(logging.WARNING)


def say(text: str) -> None:
    """Print what a command has done, unless only errors are wanted."""
    if not is_quiet():
        print(text, flush=True)


def _write_log(template: str) -> None:
    """Write the log to standard error from now on, unless another handler takes it, as in tests.

    template: format of a line.
    """
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(_StderrHandler(_Stderr()))
    for handler in root.handlers:
        if isinstance(handler, _StderrHandler):
            handler.setFormatter(_SecretlessFormatter(template))


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Drop warnings, also those of libraries whose loggers have a level of their own."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _logging_at(level: int, name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


class _StderrHandler(logging.StreamHandler):
    """The handler of the command line."""


class _SecretlessFormatter(logging.Formatter):
    """Remove the secrets of addresses from every line of the log, also from those of libraries."""

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


class _Stderr:
    """The present standard error: a stage puts another one in its place."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()
