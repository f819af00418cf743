"""What `doctor` tells about one thing."""

from __future__ import annotations

from typing import Literal, NamedTuple

State = Literal["fine", "missing", "broken"]


class Finding(NamedTuple):
    """One line of the output.

    topic: such as "packages".
    state: fine; missing, and nothing that is asked for needs it; or broken: something that is needed is not there.
    detail: what is there.
    remedy: what to do; "" if all is fine.
    """

    topic: str
    state: State
    detail: str
    remedy: str = ""
