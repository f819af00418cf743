"""Compare the results of the trained generators with older ones: of a git revision, or of a registered version."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from files.errors import UserError
from jobs.evaluation.catalogue import BY_NAME
from jobs.evaluation.job import BIN_NAMES
from jobs.evaluation.regression import DECIDING, Change, find_changes, find_regressions, find_worst_images
from jobs.evaluation.results import Summary, read_summary
from jobs.evaluation.row_scores import RowScores
from jobs.evaluation.settings import RowsConfig, Version, parse_version
from jobs.evaluation.suite import check_one_suite
from pipeline.columns import open_column
from pipeline.declared_rows import fetch_rows
from pipeline.evaluating import Place, evaluate_job, make_job
from pipeline.inputs import StageInputs
from pipeline.layout import OTHERS_ROW, SCORES_NAME, SUMMARY_NAME, results_folder, unfinished_folder
from pipeline.page_suites import page_suite
from pipeline.params import Params, check_listed
from pipeline.results import check_complete
from pipeline.tables import align_right

_NUM_WORST = 10
_LEGEND = (
    "p: of no difference, corrected over the bins of a metric. "
    "worse by: in per cent of the old mean, below 0 where the new one is better."
)


class AgainstError(UserError):
    """There are no older results to compare with; the message says why."""


def compare_with(params: Params, against: str, max_regression: float | None) -> int:
    """Print how each trained generator has changed, and judge it.

    against: a git revision whose results DVC has, or a registered version such as models:/inpaint-unet@champion, which
        is evaluated on the suite.
    max_regression: largest rise of the mean hole L1, in percent of the old mean, over all pairs and in every bin; None
        judges nothing.
    Returns 0, or 1 if a generator got worse by more.
    Raises AgainstError if there are no older results, SuiteError if they are of another suite.
    """
    version = parse_version(against)
    with tempfile.TemporaryDirectory() as folder:
        if version is not None:
            olds = {_generator_of(params, version): _evaluate_version(params, against)}
        else:
            olds = _fetch_results(params, against, Path(folder))
        failed = False
        for generator, place in olds.items():
            before, old = _read(place, generator if version is None else None)
            after, new = _read(results_folder(generator), generator)
            check_one_suite({f"{generator} of {against}": before, generator: after})
            changes = find_changes(old, new, bins=BIN_NAMES, samples=params.evaluate.bootstrap_samples)
            print(f"{generator}: old is {old.row} of {against}, suite {after.suite}\n")
            print("\n".join([*_table(changes), _LEGEND]) + "\n")
            if worst := find_worst_images(old, new, _NUM_WORST, bins=BIN_NAMES):
                print(f"Images whose {BY_NAME[DECIDING].title} rose most, in percentage points:")
                print("\n".join(align_right([(key, f"{rise:+.2f}") for key, rise in worst])) + "\n")
            failed |= _judge(generator, changes, max_regression)
    shutil.rmtree(_evaluated_here(), ignore_errors=True)
    return int(failed)


def _judge(generator: str, changes: Sequence[Change], max_regression: float | None) -> bool:
    """Print the verdict. Returns whether the generator got worse by more than is allowed."""
    if max_regression is None:
        return False
    title, worse = BY_NAME[DECIDING].title, find_regressions(changes, max_regression)
    if worse:
        places = ", ".join(f"{change.group} by {change.worse_percent:.2f} %" for change in worse)
        print(f"{generator}: {title} is worse than allowed ({max_regression:g} %): {places}")
    else:
        print(f"{generator}: {title} is worse by no more than {max_regression:g} % over all pairs and in every bin")
    return bool(worse)


def _table(changes: Sequence[Change]) -> list[str]:
    lines = [("metric", "pairs", "old", "new", "new - old", "95 % interval", "p", "worse by")]
    for change in changes:
        info, difference = BY_NAME[change.metric], change.difference.difference
        digits = info.digits + 1
        numbers = (f"{change.old:.{digits}f}", f"{change.new:.{digits}f}", f"{difference.mean:+.{digits}f}")
        interval = f"{difference.low:+.{digits}f} to {difference.high:+.{digits}f}"
        name = f"{info.title} {info.unit}".strip()
        lines.append(
            (
                name,
                change.group,
                *numbers,
                interval,
                f"{change.difference.p_value:.3f}",
                f"{change.worse_percent:.2f} %",
            )
        )
    return align_right(lines)


def _read(folder: Path, row: str | None) -> tuple[Summary, RowScores]:
    """Return the summary and one row's scores of an evaluation. row: None takes its only one."""
    summary = read_summary(folder / SUMMARY_NAME)
    return summary, RowScores(folder / SCORES_NAME, row or next(iter(summary.rows)))


def _generator_of(params: Params, version: Version) -> str:
    generator = version.model.removeprefix("inpaint-")
    check_listed(params, generator)
    check_complete(page_suite(params), [generator])
    return generator


def _evaluate_version(params: Params, address: str) -> Path:
    """Evaluate a registered version on the suite. Returns the folder of its results."""
    images = open_column(params, "image", params.suite.split)
    masks = open_column(params, "mask", params.suite.split, images=images)
    staged = _evaluated_here()
    declared = fetch_rows(
        replace(params, evaluate=replace(params.evaluate, rows=RowsConfig(registered=(address,)))),
        staged / "registered",
    )
    job = replace(make_job(params, OTHERS_ROW, images, masks), registered=declared.registered)
    place = Place(inputs=StageInputs.read(OTHERS_ROW), staged=staged, about=declared.about)
    evaluate_job(params, job, images, masks, place)
    return staged / "results"


def _evaluated_here() -> Path:
    """Return the folder in which a registered version is evaluated; a killed evaluation continues there."""
    return unfinished_folder("against")


def _fetch_results(params: Params, revision: str, folder: Path) -> dict[str, Path]:
    """Fetch older results from DVC's cache or remote. Returns generator -> their folder."""
    check_complete(page_suite(params), list(params.generators))
    _check_revision(revision)
    found, problem = {}, ""
    for generator in params.generators:
        target = folder / generator
        command = [sys.executable, "-m", "dvc", "get", "--quiet", "--rev", revision, "-o", str(target), os.curdir]
        done = subprocess.run([*command, str(results_folder(generator))], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            found[generator] = target
        else:
            problem = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
    if not found:
        raise AgainstError(
            f"revision {revision} has no results of {', '.join(params.generators)} that DVC can fetch ({problem}); "
            "name a commit whose dvc.lock lists results/, or run: dvc pull"
        )
    return found


def _check_revision(revision: str) -> None:
    """Raise AgainstError unless git knows a commit of that name."""
    command = ["git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        raise AgainstError(
            f"git knows no revision {revision}; name a commit, a tag or a branch, or a registered version such as "
            "models:/inpaint-unet@champion"
        )
