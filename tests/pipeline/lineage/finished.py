"""A finished pipeline at the smallest size, made by the command line in the working folder."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from ruamel.yaml import YAML

from jobs.generators import card
from pipeline.__main__ import main
from tests.pipeline.pictures import write_pictures

ROOT = Path(__file__).resolve().parent.parent.parent.parent
GENERATOR = "edge_connect"
MODEL = f"inpaint-{GENERATOR}"
STAGES = (
    ["ingest"],
    ["precompute", "edges"],
    ["precompute", "semantics"],
    ["precompute", "masks"],
    ["train", GENERATOR],
    ["evaluate", GENERATOR],
    ["evaluate", "baselines"],
    ["report"],
)


def prepare(folder: Path, database: Path) -> None:
    """Write pictures, parameters, lock, tombstones and an empty tracking database into a folder."""
    write_pictures(folder / "pictures", 15)
    tree = YAML(typ="safe", pure=True).load(ROOT / "params.yaml")
    tree |= {
        "dataset": {"name": "folder", "root": str(folder / "pictures"), "watch": "pictures"},
        "ingest": {"size": 32, "format": "png", "records_per_shard": 4},
        "train": tree["train"] | {"checkpoint_steps": 2, "log_steps": 1, "sample_steps": 100},
        "evaluate": {"baselines": ["mean_colour"], "gallery_images": 1, "bootstrap_samples": 20},
        "generators": {GENERATOR: dataclasses.asdict(card(GENERATOR).Config.tiny())},
    }
    tree["cluster"] |= {"num_workers": 0, "train_workers": 0, "max_failures": 0}
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.dump(tree, folder / "params.yaml")
    for name in ("tombstones.jsonl", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
    shutil.copy(database, folder / "mlflow.db")


def run_all() -> None:
    """Run every stage in the working folder."""
    for words in STAGES:
        assert main(words) == 0, words
