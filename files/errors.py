"""The base class of every error that a user can correct."""

from __future__ import annotations


class UserError(ValueError):
    """An error caused by a file, a parameter or a machine, not by a defect of this code.

    The message states the problem, where it is and what to do. The command line prints it in one line, without a
    traceback; any other exception keeps its traceback.
    """
