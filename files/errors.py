"""The base class of every error that a user can correct."""

from __future__ import annotations

from files.addresses import without_secrets


class UserError(ValueError):
    """An error caused by a file, a parameter or a machine, not by a defect of this code.

    The message states the problem, where it is and what to do. The command line prints it in one line, without a
    traceback; any other exception keeps its traceback. Addresses in the message lose their passwords and queries.
    """

    def __str__(self) -> str:
        return without_secrets(super().__str__())
