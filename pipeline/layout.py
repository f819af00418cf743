"""Where each stage's outputs lie, relative to the root of the checkout: the same paths as in dvc.yaml."""

from __future__ import annotations

from pathlib import Path

_STAGES = {"image": "ingest", "semantics": "semantics", "mask": "masks"}  # every other column is one of edges


def column_folder(column: str, split: str) -> Path:
    """Shards of one column of one split, such as shards/image/train; columns of edges lie in shards/edges."""
    return Path("shards") / ("" if column in _STAGES else "edges") / column / split


def stage_of(column: str) -> str:
    """The stage that writes a column."""
    return _STAGES.get(column, "edges")


def columns_of(split: str) -> list[str]:
    """Names of the columns that lie here with this split, images first."""
    edges = sorted(path.name for path in Path("shards/edges").glob("*"))
    return [column for column in ("image", *edges, "semantics", "mask") if column_folder(column, split).is_dir()]


def staging_folder(column: str) -> Path:
    """Where a column is written until it is whole: beside its place, so that it can be renamed."""
    return Path("shards") / f".{column}.partial"


def inflated_folder(column: str) -> Path:
    """Where the tars lie that a column's .tar.gz sources inflate to, while the column is written."""
    return Path("shards") / f".{column}.inflated"


def made_note(column: str) -> Path:
    """Of what and by which code a column was made, so that it can be kept: no output, since every edit changes it."""
    return Path("shards") / ".made" / f"{column}.json"


def model_folder(generator: str) -> Path:
    """Weights and receipt of a trained generator."""
    return Path("models") / generator


def curves_folder(generator: str) -> Path:
    """Losses over steps: a table per phase and term, as `dvc plots` reads them."""
    return Path("curves") / generator


def results_folder(row: str) -> Path:
    """Per-image figures, summary and gallery of a generator, or of "baselines"."""
    return Path("results") / row


def metrics_file(row: str) -> Path:
    """What `dvc metrics show` reads."""
    return Path("metrics") / f"{row}.json"


def undelivered_folder(storage: Path) -> Path:
    """Trainings that are finished, of which the tracking server does not know all yet; storage: of all trainings."""
    return storage / "undelivered"


BASELINES_ROW = "baselines"
SUMMARY_NAME, SCORES_NAME, GALLERY_NAME = "summary.json", "per_image.parquet", "gallery"
REPORT = Path("report") / "index.html"
TOMBSTONES = Path("tombstones.jsonl")
