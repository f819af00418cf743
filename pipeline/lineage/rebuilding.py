"""Make the weights of a registered version again, in a clean clone of its commit, and compare the results."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from datasets.shards.manifest import MANIFEST_NAME
from files.checkout import ROOT
from files.durable import file_digest
from files.errors import UserError
from jobs.evaluation.metrics.value import Value
from jobs.evaluation.results import Summary, read_summary
from jobs.runs.history import STATEMENTS, Version
from jobs.tracking.address import tracking_uri
from jobs.tracking.mlflow_registry import fetch_version
from jobs.tracking.training_run import RECORD_NAME
from pipeline.code import LOCK
from pipeline.layout import SUMMARY_NAME, results_folder
from pipeline.lineage.checks import MISSING, Check
from pipeline.lineage.environments import describe_differences
from pipeline.lineage.statement import Statement, parse_statement

_LAST_LINES = 15  # of the output of a command that fails


class RebuildError(UserError):
    """A version cannot be rebuilt here. The message says why."""


def rebuild(version: Version) -> list[Check]:
    """Run the recorded commands of a version in a clean clone of its commit, and compare data and weights.

    Nothing of the clone stays, and its training is tracked in a database of its own. If an operation of the training
    does not repeat to the bit, the figures of its evaluation are compared with the intervals of the recorded ones.
    Returns the comparisons, in the order of the stages.
    Raises RebuildError if the version does not say how, or if a command fails.
    """
    tags = version.tags
    training = re.search(r" restore (\w+)", tags.get("rebuild", ""))
    if not training or tags.get("git_commit", "unknown") == "unknown":
        raise RebuildError(
            f"{version.name}@{version.version} has no commit and no tag rebuild, so it cannot be rebuilt"
        )
    with tempfile.TemporaryDirectory(prefix="rebuild-") as folder:
        model = fetch_version(version, Path(folder, "model"))
        (record,) = model.glob(f"data/*/{RECORD_NAME}")
        statement = parse_statement(record.read_bytes(), str(record))
        clone = Path(folder, "clone")
        _run(["git", "clone", "--quiet", "--no-checkout", str(ROOT), str(clone)], ROOT)
        _run(["git", "checkout", "--quiet", "--detach", tags["git_commit"]], clone)
        path = _prepare_environment(clone, tags.get("packages_lock", ""))
        _run(["python", "-m", "pipeline", "restore", training[1]], clone, path, tracking_uri())
        is_exact = tags.get("not_repeatable") == "nothing"
        target = statement.name if is_exact else f"evaluate@{statement.key}"
        _run(["dvc", "repro", "--force", target], clone, path, f"sqlite:///{folder}/mlflow.db")
        checks = list(_compare_files(statement, clone, with_weights=is_exact))
        if not is_exact:
            checks += compare_figures(
                statement.key,
                read_summary(results_folder(statement.key) / SUMMARY_NAME),
                read_summary(clone / results_folder(statement.key) / SUMMARY_NAME),
            )
        return checks


def _prepare_environment(clone: Path, packages_lock: str) -> str:
    """Return the folder of programs for a clone: this process's if the lock is the same, or else a new one's."""
    if file_digest(ROOT / LOCK) == packages_lock:
        return str(Path(sys.executable).parent)
    _run(["make", "setup"], clone)
    return str(clone / ".venv" / "bin")


def _run(command: list[str], folder: Path, programs: str = "", tracking: str = "") -> None:
    """Run one command and show it on standard error.

    folder: where it runs.
    programs: folder of programs that come first.
    tracking: address of the tracking server.
    Raises RebuildError with the last lines of its output if it fails.
    """
    print(f"rebuild: {' '.join(command)}", file=sys.stderr, flush=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "PYTHONPATH"))}
    environment["PATH"] = f"{programs}:{environment['PATH']}" if programs else environment["PATH"]
    environment |= {"MLFLOW_TRACKING_URI": tracking} if tracking else {}
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        last = " | ".join(done.stdout.strip().splitlines()[-_LAST_LINES:])
        raise RebuildError(f"{' '.join(command)} fails in a clean clone ({done.returncode}): {last}")


def _compare_files(statement: Statement, clone: Path, *, with_weights: bool) -> Iterator[Check]:
    """Compare the data and the outputs of a training in a clone with its record, data first."""
    remedy = _explain(statement, clone)
    resources = [r for r in statement.dependencies if Path(r.name).name == MANIFEST_NAME]
    resources += statement.subjects if with_weights else ()
    for resource in resources:
        path = clone / resource.name
        yield Check(
            link=f"{resource.name}, rebuilt",
            expected=resource.sha256,
            found=file_digest(path) if path.is_file() else MISSING,
            by=f"the record of {statement.name}",
            remedy=remedy,
        )


def _explain(statement: Statement, clone: Path) -> str:
    """Return how the environment of a rebuilt training differs from the recorded one, as text."""
    recorded = statement.run.environment if statement.run else {}
    made = [parse_statement(path.read_bytes(), str(path)) for path in _list_statements(clone, statement.name)]
    differences = describe_differences(recorded, made[-1].run.environment) if made and made[-1].run else ""
    if not differences:
        return "the recorded environment is equal to this one; compare the records of both trainings"
    return f"the environment differs: {differences}; weights repeat on equal ones, see train.portable"


def _list_statements(clone: Path, name: str) -> list[Path]:
    """Return the full records of a stage in the history of a clone, oldest first."""
    found = clone.glob(f"lineage/{STATEMENTS}/{name}-*.json")
    return sorted(found, key=lambda path: path.stat().st_mtime_ns)


def compare_figures(generator: str, recorded: Summary, rebuilt: Summary) -> list[Check]:
    """Check that each mean of a rebuilt generator is inside the interval of the recorded one."""
    return [
        _compare_figure(f"{generator}, {group}: {name}", metric, rebuilt.rows[generator][group].metrics)
        for group, groups in recorded.rows[generator].items()
        for name, metric in groups.metrics.items()
        if isinstance(metric, Value) and metric.low is not None
    ]


def _compare_figure(link: str, metric: Value, rebuilt: Mapping[str, object]) -> Check:
    interval = f"{metric.low:.6g} to {metric.high:.6g}"
    value = rebuilt.get(link.rpartition(": ")[2])
    is_inside = isinstance(value, Value) and metric.low <= value.mean <= metric.high
    return Check(
        link=link,
        expected=interval,
        found=interval if is_inside else str(value.mean if isinstance(value, Value) else MISSING),
        by="the recorded evaluation",
        remedy="another device or other packages may train differently; compare the records",
    )
