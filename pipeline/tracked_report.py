"""Attach a page of the report to the runs of the trainings that it compares, and its suite to their versions."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping

from jobs.evaluation.metrics.value import Metric, Value
from jobs.report.data import Page
from jobs.report.formats import format_results
from jobs.tracking import mlflow_runs as tracking
from jobs.tracking.mlflow_registry import newest_version, set_version_tags
from pipeline.layout import OTHERS_ROW, PLOTS_NAME
from pipeline.results import Results

log = logging.getLogger(__name__)


def track_report(page: Page, results: Results) -> None:
    """Attach page, tables and intervals to each training run, and the suite to its registered version, too.

    The artifacts are in a folder of the name of that of the page. Of one more suite, the metrics begin with
    suites/<name> and the tag is suite.<name>.

    The page must be written. A row without a registered version is named in a warning. If the server fails, a warning
    is logged.
    """
    suite = results.suite
    folder, begin = suite.page.parent, f"suites/{suite.name}" if suite.name else "evaluation"
    tag = {f"suite.{suite.name}" if suite.name else "suite": page.suite}
    tables = {"results.csv": format_results(page, "csv"), "results.md": format_results(page, "markdown")}
    rows = {row.id: row for row in page.rows}
    lacking = []
    try:
        for name, model, tags in _versions(results):
            version = newest_version(model, tags)
            if version is None:
                lacking.append(name)
                continue
            tracking.log_file(version.run_id, suite.page, folder.as_posix())
            for path, text in tables.items():
                tracking.log_text(version.run_id, text, f"{folder.as_posix()}/{path}")
            for path in sorted((folder / PLOTS_NAME).rglob("*.tsv")):
                tracking.log_file(version.run_id, path, path.parent.as_posix())
            points = dict(_intervals(rows[name].metrics, begin))
            if suite.name:  # those of the suite of params.yaml are there since the evaluation
                points |= _means(rows[name].metrics, begin)
            tracking.log_metrics(version.run_id, points)
            tracking.set_tags(version.run_id, tag)
            set_version_tags(version, tag)
    except Exception as error:  # every client and store raises its own kinds
        why = tracking.reason(error)
        log.warning(
            "%s is written, but not tracked (%s); later: %s",
            suite.page, why, f"python -m pipeline report {suite.name}".rstrip(),
        )  # fmt: skip
        return
    if lacking:
        log.warning(
            "no registered version has the weights of %s, so no run has their report; run: python -m pipeline deliver, "
            "then %s", ", ".join(lacking), f"python -m pipeline report {suite.name}".rstrip(),
        )  # fmt: skip


def _versions(results: Results) -> Iterator[tuple[str, str, Mapping[str, str]]]:
    """Yield each row that came from a training, with the name of its model and the tags that tell its version."""
    for name, receipt in results.receipts.items():
        yield name, f"inpaint-{name}", {"identity": receipt.experiment, "weights_sha256": receipt.weights_sha256}
    for name in results.others:
        about = re.match(r"(\S+) version \d+, weights (\w+)", results.summaries[OTHERS_ROW].about[name])
        if about:
            yield name, about[1], {"weights_sha256": about[2]}


def _intervals(metrics: Mapping[str, Metric], begin: str) -> Iterator[tuple[str, float]]:
    for name, metric in metrics.items():
        if isinstance(metric, Value) and metric.low is not None and metric.high is not None:
            yield f"{begin}/interval_low/{name}", metric.low
            yield f"{begin}/interval_high/{name}", metric.high


def _means(metrics: Mapping[str, Metric], begin: str) -> dict[str, float]:
    return {f"{begin}/{name}": metric.mean for name, metric in metrics.items() if isinstance(metric, Value)}
