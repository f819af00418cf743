"""With an S3 store, the stages write and read the same bytes as with shards beside the manifests."""

import dataclasses
import json
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.photographs import photograph
from datasets.ingest import IngestConfig
from datasets.shards.column import Column
from datasets.sources import source_config
from files.durable import file_digest
from files.objects import StoreConfig, StoreError
from jobs.evaluation.settings import EvaluateConfig
from pipeline.params import read_params
from pipeline.stages import edges, evaluate, ingest, masks

ROOT = Path(__file__).resolve().parent.parent.parent


def test_stages_with_a_store_write_the_same_tables_and_no_tars(s3, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(12):
        path = tmp_path / "pictures" / ("val" if number % 4 == 0 else "train") / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph(number, 48)).save(path)
    read = read_params(ROOT / "params.yaml")
    plain = dataclasses.replace(
        read,
        dataset=source_config(name="folder", root=str(tmp_path / "pictures")),
        ingest=IngestConfig(size=32, format="png", records_per_shard=4),
        cluster=dataclasses.replace(read.cluster, num_workers=0, train_workers=0),
        evaluate=EvaluateConfig(baselines=("mean_colour",), bootstrap_samples=50),
    )

    def run(params):
        ingest.run(params)
        edges.run(params)
        masks.run(params)
        evaluate.run(params, "baselines")
        files = [path for path in Path("shards").rglob("*") if path.is_file()]
        tables = {str(path): file_digest(path) for path in files if path.suffix != ".tar"}
        return (
            tables,
            len(files) - len(tables),
            {path.stem: json.loads(path.read_text()) for path in Path("metrics/baselines").iterdir()},
        )

    tables, tars, scores = run(plain)
    assert tars == 9  # images and edges of 3 + 1 shards, masks of 1
    store = StoreConfig(url="s3://bucket/run", cache=str(tmp_path / "cache"))
    assert run(dataclasses.replace(plain, store=store)) == (tables, 0, scores)
    assert len(s3.find("bucket/run")) == tars
    Column(Path("shards/image/train"), store=store).verify()
    with pytest.raises(StoreError, match=r"s3://bucket/other/image-000000-.* is missing"):
        Column(Path("shards/image/train"), store=dataclasses.replace(store, url="s3://bucket/other")).verify()
