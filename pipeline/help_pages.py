"""The page of the documentation that helps with each error. The command line prints it after the error."""

from __future__ import annotations

import traceback

from files.checkout import FOLDERS
from files.errors import UserError

_LIST = "docs/troubleshooting.md"

MACHINE = f"{_LIST}#places"
"""The page for errors of the machine, such as a full disk."""

PAGES = {
    "files": f"{_LIST}#data",
    "files.checkout": f"{_LIST}#places",
    "files.code_archive": "docs/clusters.md#what-is-shipped-to-workers",
    "files.durable": f"{_LIST}#places",
    "files.objects": "docs/data.md#shards-in-an-object-store",
    "datasets": f"{_LIST}#data",
    "datasets.maps.semantics": "docs/data.md#semantic-labels",
    "datasets.shards.cache": "docs/data.md#shards-in-an-object-store",
    "datasets.sources": "docs/data.md#choose-a-data-set",
    "datasets.stream.proof": "docs/training.md#plan-a-run",
    "datasets.tombstones": "docs/data.md#take-images-out",
    "masks": f"{_LIST}#masks",
    "masks.collection": "docs/masks.md#your-own-masks",
    "jobs.checks": "docs/training.md#plan-a-run",
    "jobs.cluster": f"{_LIST}#training",
    "jobs.evaluation": f"{_LIST}#evaluation-and-report",
    "jobs.generators": f"{_LIST}#training",
    "jobs.layers": f"{_LIST}#training",
    "jobs.layers.weights": "docs/training.md#feature-weights",
    "jobs.recipe": f"{_LIST}#training",
    "jobs.report": f"{_LIST}#evaluation-and-report",
    "jobs.runs": f"{_LIST}#training",
    "jobs.runs.experiment": "docs/interruptions.md#same-experiment-only",
    "jobs.runs.stopping": "docs/interruptions.md#what-stops-a-training",
    "jobs.tracking": f"{_LIST}#tracking-and-models",
    "jobs.training": f"{_LIST}#training",
    "pipeline": f"{_LIST}#parameters",
    "pipeline.columns": f"{_LIST}#data",
    "pipeline.configuring": "docs/getting_started.md#your-job-is-paramsyaml",
    "pipeline.inpainting": "docs/getting_started.md#your-own-pictures",
    "pipeline.inputs": "docs/lineage.md#what-a-training-was-started-with",
    "pipeline.places": f"{_LIST}#places",
    "pipeline.aftermath": "docs/data.md#take-images-out",
    "pipeline.purging": "docs/data.md#take-images-out",
    "pipeline.removal": "docs/data.md#take-images-out",
    "pipeline.results": f"{_LIST}#evaluation-and-report",
    "pipeline.stages.ingest": "docs/data.md#ingest",
    "pipeline.stages.semantics": "docs/data.md#semantic-labels",
    "pipeline.verbosity": "docs/getting_started.md#all-verbs",
    "pipeline.verbs.audit": "docs/data.md#check-the-data",
    "pipeline.verbs.duplicates": "docs/data.md#check-the-data",
    "pipeline.verbs.inpaint": "docs/getting_started.md#your-own-pictures",
    "pipeline.verbs.restore": "docs/lineage.md#what-a-training-was-started-with",
    "pipeline.verbs.takedown": "docs/data.md#take-images-out",
}
"""Module, or package of modules -> page with anchor. The longest name that fits an error's module counts."""


def page_for(error: Exception) -> str:
    """Return the page that helps with an error, relative to the checkout.

    A named error belongs to the module that declares it, a plain UserError to the module that raised it.
    """
    if not isinstance(error, UserError):
        return MACHINE
    return page_of(_raising_module(error) if type(error) is UserError else type(error).__module__)


def page_of(module: str) -> str:
    """Return the page for the errors of a module. Raises KeyError for a module of no room of this code."""
    parts = module.split(".")
    for end in range(len(parts), 0, -1):
        if (name := ".".join(parts[:end])) in PAGES:
            return PAGES[name]
    raise KeyError(module)


def _raising_module(error: UserError) -> str:
    """Return the innermost module of this code in the traceback of an error."""
    names = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    ours = [name for name in names if name.partition(".")[0] in FOLDERS]
    return ours[-1] if ours else "pipeline"
