"""Paths of the stages' outputs, relative to the root of the checkout. dvc.yaml has the same paths."""

from __future__ import annotations

from pathlib import Path

_STAGES = {"image": "ingest", "semantics": "semantics", "mask": "masks"}  # every other column is one of edges


def column_folder(column: str, split: str) -> Path:
    """Return the folder of one column of one split, such as shards/image/train or shards/edges/edge/train."""
    return Path("shards") / ("" if column in _STAGES else "edges") / column / split


def stage_of(column: str) -> str:
    """Return the stage that writes a column."""
    return _STAGES.get(column, "edges")


def image_splits(*, complete_only: bool = True) -> list[str]:
    """Return the splits of shards/image, sorted.

    complete_only: leave out folders without a manifest.
    """
    folders = [path for path in column_folder("image", "").glob("*") if path.is_dir()]
    return sorted(path.name for path in folders if not complete_only or (path / "manifest.json").exists())


def columns_of(split: str) -> list[str]:
    """Return the columns that have a folder for this split, images first."""
    edges = sorted(path.name for path in Path("shards/edges").glob("*"))
    return [column for column in ("image", *edges, "semantics", "mask") if column_folder(column, split).is_dir()]


def staging_folder(column: str) -> Path:
    """Return the folder in which a column is written until it is complete, on the file system of its final place."""
    return Path("shards") / f".{column}.partial"


def inflated_folder(column: str) -> Path:
    """Return the folder for the inflated .tar.gz sources of a column, while the column is written."""
    return Path("shards") / f".{column}.inflated"


def made_note(column: str) -> Path:
    """Return the file that says from which inputs and code a column was made. No stage declares it as output."""
    return Path("shards") / ".made" / f"{column}.json"


def column_lock(name: str) -> Path:
    """Return the file whose lock is held by the process that writes shards/<name>."""
    return Path("shards") / f".{name}.lock"


def model_folder(generator: str) -> Path:
    """Return the folder of a trained generator's weights and receipt."""
    return Path("models") / generator


def curves_folder(generator: str) -> Path:
    """Return the folder of a generator's losses over steps, a table per phase and term for `dvc plots`."""
    return Path("curves") / generator


def results_folder(row: str, suite: str = "") -> Path:
    """Return the folder of per-image scores, summary and gallery of a generator, or of "baselines".

    suite: name of one more suite; "" for that of params.yaml.
    """
    return suite_folder(suite) / "results" / row if suite else Path("results") / row


def page_file(suite: str = "") -> Path:
    """Return the page of the report; its tables are beside it. suite: see `results_folder`."""
    return (Path("reports") / suite if suite else Path("report")) / "index.html"


def unfinished_folder(row: str) -> Path:
    """Return the folder in which an evaluation writes until it is finished. It is beside the outputs, not in them."""
    return Path(".unfinished") / row


def suite_folder(name: str) -> Path:
    """Return the folder of the masks and results of one more suite."""
    return Path("suites") / name


def stage_note(stage: str, key: str = "") -> Path:
    """Return the file in which a stage tells that it runs or has failed. key: see `pipeline.code.read_declaration`."""
    return Path(".unfinished") / ".stages" / f"{stage}{'@' if key else ''}{key}.json"


def metrics_file(row: str) -> Path:
    """Return the file that `dvc metrics show` reads as one line: of a generator, or of "baselines/<name>"."""
    return Path("metrics") / f"{row}.json"


def costs_file(row: str) -> Path:
    """Return the file of the time and memory of an evaluation. They differ from run to run: no stage declares it."""
    return Path("costs") / f"{row}.json"


def record_file(stage: str, key: str = "") -> Path:
    """Return the provenance record of a stage. key: the generator, for a stage that has one variant per generator."""
    return PROVENANCE / stage / f"{key}.json" if key else PROVENANCE / f"{stage}.json"


def undelivered_folder(storage: Path) -> Path:
    """Return the folder of finished trainings that the tracking server does not know completely.

    storage: the folder of all trainings.
    """
    return storage / "undelivered"


BASELINES_ROW = "baselines"
OTHERS_ROW = "others"
GROUP_ROWS = (BASELINES_ROW, OTHERS_ROW)
"""Names of evaluations of several rows, none of which is a generator of params.yaml."""
SUMMARY_NAME, SCORES_NAME, GALLERY_NAME = "summary.json", "per_image.parquet", "gallery"
SUITE_NAME = "suite.json"
"""The file whose SHA-256 is the id of the suite."""
REPORT = page_file()
PARTIAL_REPORT = REPORT.with_name("partial.html")
"""The page of an unfinished run. DVC ignores it, see .dvcignore, so that it does not change the output `report`."""
QUALITY_AND_COST = Path("costs") / "quality.json"
COMPARISONS_NAME = "comparisons.parquet"
PLOTS_NAME = "plots"
"""The folder of the tables that `dvc plots` draws, beside the page."""
PROVENANCE = Path("provenance")
TOMBSTONES = Path("tombstones.jsonl")
