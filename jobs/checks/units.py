"""Numbers of bytes as text."""

from __future__ import annotations

_UNITS = ("B", "kB", "MB", "GB", "TB")


def format_bytes(count: float | None) -> str:
    """Return a count of bytes with three digits and a decimal unit, such as "25.3 GB"; "-" for None."""
    if count is None:
        return "-"
    power = next((power for power in (4, 3, 2, 1) if count >= 1000**power), 0)
    return f"{count / 1000**power:.3g} {_UNITS[power]}"
