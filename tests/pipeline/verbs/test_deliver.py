"""Finished trainings that the tracking server heard nothing of."""

import dataclasses
import json
import shutil
from pathlib import Path

import mlflow
from PIL import Image

from benchmarks.photographs import photograph
from files.durable import file_digest
from jobs.generators import card
from jobs.training.settings import TrainConfig
from pipeline.__main__ import main
from pipeline.stages import ingest, train
from tests.pipeline.pictures import ROOT, small_params


def test_a_stage_succeeds_without_a_server_and_its_run_is_delivered_later(
    database, tmp_path, monkeypatch, capsys, caplog
):
    name = "context_encoder"
    for number in range(8):
        path = tmp_path / "pictures" / ("train" if number else "val") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph(number, 64)).save(path)
    params = dataclasses.replace(
        small_params(tmp_path / "pictures", size=64),
        train=TrainConfig(checkpoint_steps=1, log_steps=1, sample_steps=1),
        generators={name: card(name).Config.tiny()},
    )
    shutil.copy(ROOT / "params.yaml", tmp_path)
    ingest.run(params)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nothing listens there
    train.run(params, name)
    assert Path("curves", name).is_dir()
    said = [record.getMessage() for record in caplog.records]
    assert len([text for text in said if "deliver them with: python -m pipeline deliver" in text]) == 1
    assert not list(Path("runs", name).iterdir())
    assert main(["deliver"]) == 1
    assert "still waits in" in capsys.readouterr().out
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    assert main(["deliver", "--json"]) == 0
    assert [(each["run"], each["version"]) for each in json.loads(capsys.readouterr().out)] == [(name, "1")]
    version = mlflow.MlflowClient(f"sqlite:///{database}").get_model_version_by_alias(f"inpaint-{name}", "candidate")
    assert version.tags["weights_sha256"] == file_digest(Path("models", name, "weights.safetensors"))
    assert main(["deliver"]) == 0
    assert capsys.readouterr().out == "nothing waits to be delivered\n"
