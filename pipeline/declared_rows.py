"""The rows that `evaluate.rows` lists beside the trained generators: registered versions and external results."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from jobs.evaluation.job import RegisteredFill
from jobs.evaluation.settings import External, parse_version
from pipeline.params import Params


@dataclass(frozen=True)
class DeclaredRows:
    """Rows that the stage `others` evaluates.

    registered: row, such as "inpaint-csa-3" -> function that loads the version.
    external: rows of other programs, with absolute folders.
    about: row -> what it is.
    """

    registered: Mapping[str, Callable[[], RegisteredFill]] = field(default_factory=dict)
    external: tuple[External, ...] = ()
    about: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The rows."""
        return (*self.registered, *(row.name for row in self.external))


def fetch_rows(params: Params, folder: Path) -> DeclaredRows:
    """Fetch the registered versions that `evaluate.rows` lists, and return all its rows.

    folder: for the files of the registered versions, which must stay until the rows are evaluated.
    Raises ModelError for a version that cannot be loaded.
    """
    from jobs.tracking import mlflow_registry as registry  # here, since mlflow takes seconds to import

    rows = params.evaluate.rows
    registered, about = {}, {}
    for number, address in enumerate(rows.registered):
        wanted = parse_version(address)
        model = registry.fetch_model(wanted.model, wanted.version, (folder / str(number)).resolve())
        name = re.sub(r"\W", "_", f"{wanted.model}_{model.version}")
        registered[name] = model.open
        about[name] = f"{wanted.model} version {model.version}, weights {model.weights_sha256}"
    external = tuple(replace(row, root=str(Path(row.root).resolve())) for row in rows.external)
    return DeclaredRows(registered, external, about | {row.name: f"results in {row.root}" for row in rows.external})
