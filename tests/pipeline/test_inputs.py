"""Every stage whose inputs are edited while it runs says so, and leaves its outputs as they were."""

import dataclasses
import os
import shutil
import sys
from pathlib import Path

import mlflow
import pytest
from ruamel.yaml import YAML

from files.checkout import FOLDERS
from files.durable import file_digest
from jobs.generators import card
from pipeline import code
from pipeline.__main__ import main
from pipeline.code import find_stage
from tests.faults import in_child
from tests.pipeline.pictures import write_pictures

ROOT = Path(__file__).resolve().parent.parent.parent
GENERATOR = "sge_net"  # reads label maps, so that the stage semantics makes some
STAGES = {
    "ingest": ["ingest"],
    "edges": ["precompute", "edges"],
    "semantics": ["precompute", "semantics"],
    "masks": ["precompute", "masks"],
    "train": ["train", GENERATOR],
    "evaluate": ["evaluate", GENERATOR],
    "baselines": ["evaluate", "baselines"],
    "report": ["report"],
}
OUTPUTS = {
    "ingest": "shards/image/train/manifest.json",
    "edges": "shards/edges/edge/train/manifest.json",
    "semantics": "shards/semantics/train/manifest.json",
    "masks": "shards/mask/val/manifest.json",
    "train": f"models/{GENERATOR}/receipt.json",
    "evaluate": f"metrics/{GENERATOR}.json",
    "baselines": "metrics/baselines/mean_colour.json",
    "report": "report/index.html",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory, empty_database):
    """A folder in which every stage has run, at the smallest size."""
    folder = tmp_path_factory.mktemp("made")
    write_pictures(folder / "pictures", 12)
    tree = YAML(typ="safe", pure=True).load(ROOT / "params.yaml")
    tree |= {
        "dataset": {"name": "folder", "root": "pictures", "watch": "pictures"},
        "ingest": {"size": 32, "format": "png", "records_per_shard": 4},
        "semantics": {"source": "kmeans", "num_clusters": 3},
        "train": tree["train"] | {"checkpoint_steps": 2, "log_steps": 1, "sample_steps": 100},
        "evaluate": {"baselines": ["mean_colour"], "gallery_images": 1, "bootstrap_samples": 20},
        "generators": {GENERATOR: dataclasses.asdict(card(GENERATOR).Config.tiny()) | {"steps": 4}},
    }
    tree["cluster"] |= {"num_workers": 0, "train_workers": 0, "max_failures": 0}
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False  # a line per value
    yaml.dump(tree, folder / "params.yaml")
    for name in ("tombstones.jsonl", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
    shutil.copy(empty_database, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        for words in STAGES.values():
            assert main(words) == 0, words
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """A copy of that folder, as the working folder; and a copy of the code, which the stages take for their own."""
    copy = shutil.copytree(made, tmp_path / "made")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, tmp_path / "code" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path / "code")
    monkeypatch.setattr(code, "ROOT", tmp_path / "code")
    monkeypatch.chdir(copy)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{copy / 'mlflow.db'}")
    return copy


def run(words, edit=None, *, at=""):
    """Run a stage in a child process; returns its exit code and what it said.

    edit: function that is called once, when the stage opens the first file whose path has `at` in it.
    """

    def work():
        edits = [edit] if edit else []

        def watch(event, arguments):
            if event == "open" and edits and at in os.fspath(arguments[0] if isinstance(arguments[0], str) else ""):
                edits.pop()()

        sys.addaudithook(watch)
        result = main(words)
        assert not edits, f"{words} opened no {at}"
        sys.stderr.flush()
        os._exit(result)

    return in_child(work)


def replace(path, old, new):
    def edit():
        text = Path(path).read_text()
        assert text.count(old) == 1, f"{path}: {old}"
        Path(path).write_text(text.replace(old, new))

    return edit


# stage -> the file at whose opening params.yaml is edited, the text that is replaced, and what is said of it
PARAMETERS = {
    "ingest": ("pictures/", "size: 32\n", "size: 40\n", "params.yaml: ingest.size was 32, is 40"),
    "edges": ("train/image-000000.tar", "sigma: 2.0", "sigma: 1.0", "edges.edge.sigma was 2.0, is 1.0"),
    "semantics": ("train/image-000000.tar", "num_clusters: 3", "num_clusters: 4", "semantics.num_clusters was 3, is 4"),
    "masks": ("val/image-000000.tar", "split: val", "split: train", "suite.split was val, is train"),
    "train": ("events.jsonl", "  steps: 4\n", "  steps: 5\n", f"generators.{GENERATOR}.steps was 4, is 5"),
    "evaluate": ("val/mask-", "bootstrap_samples: 20", "bootstrap_samples: 30", "bootstrap_samples was 20, is 30"),
    "baselines": ("val/mask-", "bootstrap_samples: 20", "bootstrap_samples: 30", "bootstrap_samples was 20, is 30"),
    "report": ("gallery-", "split: val", "split: train", "suite.split was val, is train"),
}


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "train"])
def test_parameters_that_are_edited_meanwhile_leave_the_stage_without_new_outputs(folder, stage):
    at, old, new, said = PARAMETERS[stage]
    output, params = Path(OUTPUTS[stage]), Path("params.yaml").read_bytes()
    before, inode = output.read_bytes(), output.stat().st_ino
    if stage == "edges":  # it would keep equal outputs
        shutil.rmtree(output.parent)
    code, text = run(STAGES[stage], replace("params.yaml", old, new), at=at)
    assert code == 1
    (line,) = [line for line in text.splitlines() if line.startswith(f"{STAGES[stage][0]}: ")]
    assert "were changed while it ran, so it writes no outputs: " in line
    assert said in line
    assert not output.exists() or output.stat().st_ino == inode  # new outputs would have the same bytes
    Path("params.yaml").write_bytes(params)
    assert run(STAGES[stage])[0] == 0
    assert output.read_bytes() == before


@pytest.mark.parametrize(
    ("stage", "at", "path"),
    [
        ("masks", "val/image-000000.tar", "../code/masks/strokes.py"),
        ("train", "events.jsonl", "../code/requirements.lock"),
        ("evaluate", "val/mask-", "../code/jobs/evaluation/metrics/pixels.py"),
        ("ingest", "pictures/", "tombstones.jsonl"),
        ("evaluate", "val/mask-", f"models/{GENERATOR}/receipt.json"),
        ("train", "events.jsonl", "shards/edges/edge/train/manifest.json"),
        ("baselines", "val/mask-", "shards/image/train/manifest.json"),
        ("report", "gallery-", "results/baselines/per_image.parquet"),
    ],
)
def test_code_and_data_that_are_edited_meanwhile_are_named(folder, stage, at, path):
    before = {name: Path(name).read_bytes() for name in OUTPUTS.values() if name != path}

    def edit():
        with Path(path).open("ab") as file:
            file.write(b"\n")

    code, text = run(STAGES[stage], edit, at=at)
    assert code == 1
    assert f"so it writes no outputs: {path.removeprefix('../code/')} was changed; " in text
    if stage not in ("ingest", "masks"):  # which remove their outputs when they begin, as DVC does
        assert {name: Path(name).read_bytes() for name in before} == before


def test_finished_weights_wait_for_the_old_parameters(folder):
    shutil.rmtree("models")
    at, old, new, _ = PARAMETERS["train"]
    code, text = run(STAGES["train"], replace("params.yaml", old, new), at=at)
    (waiting,) = Path("runs", GENERATOR).iterdir()
    assert code == 1
    assert not Path("models").exists()
    assert PARAMETERS["train"][3] in text
    assert f"its finished weights stay in {waiting.resolve()}: put these inputs back, and the same command" in text
    weights = file_digest(waiting / "weights.safetensors")
    replace("params.yaml", new, old)()
    assert run(STAGES["train"])[0] == 0
    assert file_digest(Path("models", GENERATOR, "weights.safetensors")) == weights
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    _, newest = sorted(client.search_model_versions(f"name = 'inpaint-{GENERATOR}'"), key=lambda v: int(v.version))
    assert client.get_run(newest.run_id).info.status == "FINISHED"


def test_edits_of_other_parameters_and_of_the_form_of_the_file_are_none(folder):
    def edit():
        replace("params.yaml", "  bootstrap_samples: 20\n", "  # a comment\n  bootstrap_samples: 30\n")()

    assert run(STAGES["masks"], edit, at="val/image-000000.tar")[0] == 0


def test_a_command_line_is_found_among_the_stages():
    assert {find_stage(words) for words in STAGES.values()} == {
        (stage, GENERATOR if stage in ("train", "evaluate") else "") for stage in STAGES
    }
    assert find_stage(["audit"]) is None
    assert find_stage(["report", "photos"]) == ("reports", "photos")
    assert find_stage(["report", "--open"]) is None
    assert find_stage(["precompute", "images"]) is None
