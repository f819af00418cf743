"""Parameters of the report. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Track = Literal["common", "paper"]


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Parameters of the report.

    track: rules that the compared trainings must meet; common: equal masks and an equal number of images seen, which is
        enforced; paper: each generator's own schedule and losses, so that published numbers are judged; None: neither.
    """

    track: Track | None = None
