"""Names of the rows that `evaluate.rows` lists: each must be a new one, and fit into names of files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import get_args

from jobs.evaluation.settings import BaselineName, EvaluateConfig, guided_row, parse_version, untrained_row


def find_wrong_row(config: EvaluateConfig, generators: Iterable[str]) -> str | None:
    """Return what is wrong with the first row that cannot be evaluated, or None.

    generators: names of the trained generators.
    """
    for address in config.rows.registered:
        if parse_version(address) is None:
            return (
                f"evaluate.rows.registered has {address!r}; name a version as models:/inpaint-csa@champion or "
                "models:/inpaint-csa/3"
            )
    taken = {*get_args(BaselineName), *generators, *map(untrained_row, generators), *map(guided_row, generators)}
    for row in config.rows.external:
        if not re.fullmatch(r"[a-z0-9_]+", row.name):
            return f"evaluate.rows.external has the name {row.name!r}; names are made of a-z, 0-9 and _"
        if row.name in taken:
            return f"evaluate.rows.external names {row.name}, which another row has; choose another name"
        taken.add(row.name)
    return None
