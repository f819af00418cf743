"""From pictures to a report, in this process: the stages as DVC calls them, at the smallest size."""

import contextlib
import csv
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import mlflow
import numpy as np
import pytest
from PIL import Image

from benchmarks.photographs import photograph
from datasets.ingest import IngestConfig
from datasets.maps.edges import EdgeConfig
from datasets.maps.semantics import SemanticsConfig
from datasets.shards.column import Column
from datasets.sources import source_config
from files.code_archive import process_code
from files.durable import file_digest
from files.errors import UserError
from files.pictures import decode_image, decode_map
from jobs.evaluation.baselines import BASELINES, telea
from jobs.evaluation.inference import inpaint_images, load_trained
from jobs.evaluation.metrics.pixels import composite_uint8
from jobs.evaluation.settings import EvaluateConfig, External, RowsConfig
from jobs.generators import card, names
from jobs.generators.build import build_recipe
from jobs.runs.events import EventLog
from jobs.runs.folder import RunFolder
from jobs.runs.note import leave_note
from jobs.runs.receipt import read_receipt
from jobs.tracking import mlflow_runs as tracking
from jobs.tracking.mlflow_registry import load_model
from jobs.training.settings import TrainConfig
from masks.hole_ratio import BINS, member_of_bin
from pipeline.params import ParamsError, read_params
from pipeline.stages import edges, evaluate, ingest, masks, report, semantics, train
from pipeline.verbs import inpaint
from tests.pipeline.pictures import small_params

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def params(tmp_path_factory):
    """Parameters of the smallest run; everything up to the report has been made in the working folder."""
    folder = tmp_path_factory.mktemp("run")
    for number in range(16):
        path = folder / "pictures" / ("val" if number < 4 else "train") / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph(number, 64)).save(path)
    read = read_params(ROOT / "params.yaml")
    small = dataclasses.replace(
        read,
        dataset=source_config(name="folder", root=str(folder / "pictures")),
        ingest=IngestConfig(size=64, format="png", records_per_shard=3),
        semantics=SemanticsConfig(num_clusters=4),
        train=TrainConfig(checkpoint_steps=1, log_steps=1, sample_steps=1),
        evaluate=EvaluateConfig(
            gallery_images=2,
            bootstrap_samples=50,
            rows=RowsConfig(
                untrained=True,
                guided=True,
                registered=("models:/inpaint-edge_connect@candidate", "models:/inpaint-edge_connect/1"),
                external=(External(name="copied", root=str(folder / "copied")),),
            ),
        ),
        cluster=dataclasses.replace(read.cluster, num_workers=0, train_workers=0),
        generators={name: card(name).Config.tiny() for name in names()},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        ingest.run(small)
        edges.run(small)
        semantics.run(small)
        masks.run(small)
        for name in small.generators:
            train.run(small, name)
            evaluate.run(small, name)
        evaluate.run(small, "baselines")
        _copy_results_of_telea(folder / "copied")
        evaluate.run(small, "others")
        report.run(small)
        yield small


def _copy_results_of_telea(folder):
    """Fill every hole of the suite with plain code, as another program would, and write PNGs."""
    images, masks = Column(Path("shards/image/val")), Column(Path("shards/mask/val"))
    for record, key in enumerate(images.keys.to_pylist()):
        image = decode_image(images.read(record))
        for name, _, _ in BINS:
            hole = (decode_map(masks.read(record, member_of_bin("mask", name))) > 127).astype(np.uint8)
            path = folder / f"{key}-{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            filled = telea(image, hole)
            filled[hole == 0] ^= 1  # what is visible is taken from the image
            Image.fromarray(filled).save(path)


def test_the_suite_has_a_mask_in_every_bin_of_every_image(params):
    scores = json.loads(Path("results/baselines/summary.json").read_text())
    assert scores["rows"]["telea"]["overall"]["pairs"] == 4 * len(BINS)
    for name, low, high in BINS:
        group = scores["rows"]["telea"][name]
        assert group["pairs"] == 4
        assert 100 * low < 100 * group["l1_percent"]["mean"] / group["l1_hole_percent"]["mean"] <= 100 * high + 3


@pytest.mark.parametrize("name", names())
def test_every_generator_leaves_weights_curves_figures_and_a_version(params, name):
    receipt = read_receipt(Path("models") / name)
    recipe = build_recipe(name, params.generators[name], params.seed)
    assert receipt.steps == recipe.steps == sum(p.steps for p in recipe.phases)
    assert receipt.images == Column(Path("shards/image/train")).manifest.digest
    assert receipt.edges == (params.edges["edge"] if "edge" in recipe.columns else None)
    assert {path.parent.name for path in Path("curves", name).rglob("*.tsv")} == {
        p.name for p in recipe.phases if p.steps
    }
    groups = json.loads(Path(f"results/{name}/summary.json").read_text())["rows"]
    assert set(groups) - {f"{name}_guided"} == {name, f"{name}_untrained"}
    assert (f"{name}_guided" in groups) == ("edge" in recipe.columns)
    figures = json.loads(Path(f"metrics/{name}.json").read_text())
    assert figures == {key: groups[name]["overall"][key]["mean"] for key in ("l1_hole_percent", "psnr", "ssim")}
    assert not Path("runs", name).exists() or not list(Path("runs", name).iterdir())
    client = mlflow.MlflowClient(tracking.tracking_uri())
    version = client.get_model_version_by_alias(f"inpaint-{name}", "candidate")
    assert version.tags["weights_sha256"] == file_digest(Path("models", name, "weights.safetensors"))
    assert version.tags["images_manifest"] == receipt.images
    run = client.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert {i.dataset.digest for i in run.inputs.dataset_inputs} >= {receipt.images[:36]}
    phase = next(p.name for p in recipe.phases if p.steps)
    key = next(k for k in run.data.metrics if k.startswith(f"{phase}/"))
    steps = [metric.step for metric in client.get_metric_history(version.run_id, key)]
    assert steps == sorted(set(steps))


@pytest.mark.parametrize("name", names())
def test_the_run_of_a_training_has_its_evaluation(params, name):
    run = _candidate_run(name)
    groups = json.loads(Path(f"results/{name}/summary.json").read_text())["rows"][name]
    figures = {key: value for key, value in run.data.metrics.items() if key.startswith("evaluation/")}
    assert figures["evaluation/psnr"] == groups["overall"]["psnr"]["mean"]
    assert figures["evaluation/0.1-0.2/ssim"] == groups["0.1-0.2"]["ssim"]["mean"]
    assert "evaluation/fid" not in figures
    assert run.data.tags["suite"] == json.loads(Path("results/baselines/summary.json").read_text())["suite"]
    assert run.info.status == "FINISHED"


def test_an_external_row_has_the_very_figures_of_the_same_results_computed_inside(params):
    inside, outside = (json.loads(Path(f"results/{name}/summary.json").read_text()) for name in ("baselines", "others"))
    assert outside["rows"]["copied"] == inside["rows"]["telea"]
    assert outside["suite"] == inside["suite"]
    figures = [Path(f"metrics/{name}.json").read_bytes() for name in ("baselines/telea", "others/copied")]
    assert figures[0] == figures[1]
    images = Column(Path("shards/image/val")).keys.to_pylist()
    contents = [[Path(f"copied/{key}-{name}.png").read_bytes() for name, _, _ in BINS] for key in images]
    of_images = [sha256(b"".join(sha256(file).digest() for file in files)).hexdigest() for files in contents]
    digest = sha256("".join(of_images).encode()).hexdigest()
    assert outside["about"]["copied"] == f"results in {Path('copied').resolve()}, SHA-256 {digest}"


def test_a_registered_version_has_the_figures_of_its_training(params):
    """Named by alias and by number, which are the same version here and one row."""
    groups = json.loads(Path("results/edge_connect/summary.json").read_text())["rows"]["edge_connect"]
    others = json.loads(Path("results/others/summary.json").read_text())
    assert set(others["rows"]) == {"copied", "inpaint_edge_connect_1"}
    without_edges = {
        name: {key: value for key, value in group.items() if not key.startswith("edge_")}
        for name, group in groups.items()
    }
    assert others["rows"]["inpaint_edge_connect_1"] == without_edges
    digest = file_digest(Path("models/edge_connect/weights.safetensors"))
    assert others["about"]["inpaint_edge_connect_1"] == f"inpaint-edge_connect version 1, weights {digest}"


def test_an_external_row_that_lacks_a_picture_is_named_with_it(params, tmp_path):
    shutil.copytree("copied", tmp_path / "copied")
    lost, small = sorted((tmp_path / "copied").rglob("*.png"))[:2]

    def refused():
        row = External(name="copied", root=str(tmp_path / "copied"))
        config = dataclasses.replace(params.evaluate, rows=RowsConfig(external=(row,)))
        with pytest.raises(UserError) as error:
            evaluate.run(dataclasses.replace(params, evaluate=config), "others")
        return str(error.value)

    Image.new("RGB", (64, 32)).save(small)
    assert f"{small} is 64x32, the image is 64x64" in refused()
    lost.unlink()
    assert refused().startswith(f"{lost}: No such file or directory; the external row copied needs")
    lost.write_bytes(b"\xff\xd8\xff")
    assert f"{lost} is no PNG" in refused()


def test_what_an_evaluation_cost_is_beside_its_results_and_not_in_them(params):
    costs = json.loads(Path("costs/baselines.json").read_text())
    assert costs["biharmonic"]["pairs"] == 4 * len(BINS)
    assert costs["biharmonic"]["seconds_per_image"] > costs["mean_colour"]["seconds_per_image"] > 0
    assert not [path for path in Path("results").rglob("*.json") if "seconds_per_image" in path.read_text()]
    assert _candidate_run("csa").data.metrics["evaluation/seconds_per_image"] > 0


def _candidate_run(name):
    client = mlflow.MlflowClient(tracking.tracking_uri())
    return client.get_run(client.get_model_version_by_alias(f"inpaint-{name}", "candidate").run_id)


def test_a_registered_model_fills_as_the_trained_one_does(params, tmp_path):
    name = next(iter(params.generators))
    image, mask = photograph(77, 64), np.zeros((64, 64), np.uint8)
    mask[10:40, 20:50] = 1
    recipe, receipt = load_trained(Path("models") / name)
    expected = inpaint_images(recipe, receipt.edges, image[None], mask[None])["composite"][0]
    model = load_model(f"inpaint-{name}", "candidate")
    assert np.array_equal(model(image[None], mask[None, ..., None])[0], expected)
    Image.fromarray(image).save(tmp_path / "image.png")
    Image.fromarray(255 * mask).save(tmp_path / "mask.png")
    (said,) = inpaint.run(f"{name}/1", *(str(tmp_path / f) for f in ("image.png", "mask.png", "filled.png")))
    assert "22.0% of the picture" in said
    filled = np.array(Image.open(tmp_path / "filled.png"))
    assert np.array_equal(filled, expected)
    assert np.array_equal(filled[mask == 0], image[mask == 0])


def test_a_registered_model_holds_no_pickle(params):
    assert list(Path().rglob("MLmodel"))
    assert not {path.suffix for path in Path().rglob("*")} & {".pkl", ".pickle", ".pth", ".pt"}


def test_figures_are_those_of_the_composites(params):
    """One baseline's row, computed again from shards with plain code."""
    images, masks = Column(Path("shards/image/val")), Column(Path("shards/mask/val"))
    errors = []
    for record in range(4):
        image = decode_image(images.read(record))
        for field in masks.fields:
            hole = decode_map(masks.read(record, field)) > 127
            filled = BASELINES["mean_colour"].fill(image, hole.astype(np.uint8))
            filled = composite_uint8(filled, image, hole.astype(np.uint8))
            errors.append(np.abs(filled[hole].astype(int) - image[hole]).mean() / 2.55)
    found = json.loads(Path("metrics/baselines/mean_colour.json").read_text())["l1_hole_percent"]
    assert found == pytest.approx(np.mean(errors), rel=1e-12)


class _Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen = []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))


def test_the_report_stands_alone(params):
    page = _Tags()
    page.feed(Path("report/index.html").read_text())
    tags = {tag for tag, _ in page.seen}
    assert not tags & {"iframe", "object"}
    assert all(attrs["href"].startswith(("data:", "#")) for _, attrs in page.seen if attrs.get("href"))
    sources = [attrs["src"] for _, attrs in page.seen if attrs.get("src")]
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources)


@pytest.mark.parametrize("name", ["csa", "edge_connect"])
def test_the_run_and_the_version_of_a_training_have_the_report(params, name, tmp_path):
    run = _candidate_run(name)
    client = mlflow.MlflowClient(tracking.tracking_uri())
    folder = Path(client.download_artifacts(run.info.run_id, "report", str(tmp_path)))
    assert (folder / "index.html").read_bytes() == Path("report/index.html").read_bytes()
    assert {path.relative_to("report") for path in Path("report").rglob("*.tsv")} == {
        path.relative_to(folder) for path in folder.rglob("*.tsv")
    }
    lines = list(csv.DictReader((folder / "results.csv").open()))
    line = next(x for x in lines if (x["row"], x["group"], x["metric"]) == (name, "overall", "psnr"))
    metrics = run.data.metrics
    assert [float(line[key]) for key in ("mean", "low", "high")] == [
        metrics[f"evaluation/{key}"] for key in ("psnr", "interval_low/psnr", "interval_high/psnr")
    ]
    version = client.get_model_version_by_alias(f"inpaint-{name}", "candidate")
    assert version.tags["suite"] == run.data.tags["suite"] == line["suite"]
    assert not [other for other in client.search_runs([run.info.experiment_id]) if other.info.run_name == "report"]


@pytest.mark.parametrize("form", ["markdown", "csv", "latex", "json"])
def test_the_results_are_printed_as_text(params, capsys, form):
    report.print_results(params, form)
    text = capsys.readouterr().out
    groups = json.loads(Path("results/csa/summary.json").read_text())["rows"]["csa"]
    mean = groups["overall"]["psnr"]["mean"]
    assert (str(mean) if form in ("csv", "json") else f"{mean:.2f}") in text
    assert json.loads(Path("results/baselines/summary.json").read_text())["suite"] in text


def test_a_tracking_server_that_is_gone_does_not_hold_up_the_report(params, monkeypatch, caplog):
    before = Path("report/index.html").read_bytes()
    Path("report/index.html").unlink()
    Path("report/partial.html").touch()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nothing listens there
    report.run(params)
    assert not Path("report/partial.html").exists()
    assert len(Path("report/index.html").read_bytes()) == len(before)
    assert "is written, but not tracked (http://127.0.0.1:9 does not answer)" in caplog.text


@pytest.mark.parametrize("is_gone", [True, False])
def test_an_evaluation_that_cannot_be_tracked_is_written_with_a_warning(params, tmp_path, monkeypatch, caplog, is_gone):
    """With a server that does not answer, and with one that knows no registered version."""
    paths = [
        Path(f"{folder}/context_encoder{rest}") for folder, rest in (("results", "/summary.json"), ("metrics", ".json"))
    ]
    before = [path.read_bytes() for path in paths]
    for path in paths:
        path.unlink()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9" if is_gone else f"sqlite:///{tmp_path / 'other.db'}")
    evaluate.run(params, "context_encoder")
    assert [path.read_bytes() for path in paths] == before
    reason = "http://127.0.0.1:9 does not answer" if is_gone else "no registered version has its weights"
    assert f"context_encoder is evaluated, but its run is not updated ({reason}" in caplog.text


def test_training_reads_the_column_of_edges_that_is_named(params, tmp_path, monkeypatch):
    shutil.copytree("shards", tmp_path / "shards")
    monkeypatch.chdir(tmp_path)
    fine = EdgeConfig(sigma=1.0)
    changed = dataclasses.replace(
        params, edges={**params.edges, "fine": fine}, train=dataclasses.replace(params.train, edges="fine")
    )
    before = file_digest(Path("shards/edges/edge/train/manifest.json"))
    edges.run(changed)
    assert file_digest(Path("shards/edges/edge/train/manifest.json")) == before
    columns = {name: Column(Path("shards/edges") / name / "train") for name in ("edge", "fine")}
    assert columns["fine"].manifest.parameters["sigma"] == 1.0
    assert columns["edge"].keys == columns["fine"].keys
    assert [columns["edge"].read(r) for r in range(12)] != [columns["fine"].read(r) for r in range(12)]
    train.run(changed, "edge_connect")
    _, receipt = load_trained(Path("models/edge_connect"))
    assert receipt.edges == fine
    assert receipt.columns == {"edge": columns["fine"].manifest.digest}


def test_stages_repeat_to_the_byte(params):
    name = "context_encoder"
    made = ("report/index.html", f"models/{name}/receipt.json", f"models/{name}/weights.safetensors",
            f"results/{name}/summary.json", f"results/{name}/per_image.parquet")  # fmt: skip
    before, first_run = {path: file_digest(Path(path)) for path in made}, _candidate_run(name)
    train.run(params, name)
    evaluate.run(params, name)
    report.run(params)
    assert {path: file_digest(Path(path)) for path in made} == before
    second_run = _candidate_run(name)  # equal weights of the same experiment: the newest version's run is meant
    assert second_run.info.run_id != first_run.info.run_id
    assert second_run.data.metrics["evaluation/psnr"] == first_run.data.metrics["evaluation/psnr"]


def test_more_classes_than_a_generator_has_are_named_before_it_trains(params):
    few = dataclasses.replace(params.generators["sge_net"], num_classes=3)
    params = dataclasses.replace(params, generators={"sge_net": few})
    with pytest.raises(
        ParamsError, match=r"sge_net\.num_classes is 3, but shards/semantics/train has 4 classes; set it to 4"
    ):
        train.run(params, "sge_net")


@pytest.mark.parametrize(
    ("paths", "old", "new", "message"),
    [
        ("results/baselines/summary.json", '"suite": "', '"suite": "0', "their numbers cannot be compared"),
        ("results/*/summary.json", '"suite": "', '"suite": "0', "shards/mask/val are suite"),
        ("results/csa/summary.json", '"csa"', '"spl"', "results/csa has the rows .*, expected csa"),
        ("models/csa/receipt.json", '"images": "', '"images": "0', "csa on 0.*: their numbers cannot be compared"),
        ("results/csa/gallery/manifest.json", '"column": "', '"column": "x', "gallery/manifest.json was edited"),
    ],
)
def test_results_of_two_protocols_share_no_table(params, paths, old, new, message):
    before = {path: path.read_text() for path in Path().glob(paths)}
    for path, text in before.items():
        assert old in text
        path.write_text(text.replace(old, new))
    try:
        with pytest.raises(UserError, match=message):
            report.run(params)
    finally:
        for path, text in before.items():
            path.write_text(text)


def test_the_report_states_its_commit_and_the_size_of_its_images(params):
    page, code = Path("report/index.html").read_text(), process_code()
    assert "<b>64 × 64</b> pixels" in page
    assert code.commit in page
    assert "of this report" not in page
    assert ("<h3>To rebuild it</h3>" in page) == (code.changes == ())
    clean = dataclasses.replace(code, commit="1234", changes=())
    dirty = dataclasses.replace(clean, changes=("params.yaml",))
    assert report._rebuild_commands(clean) == ["git checkout 1234", "make setup", "dvc repro"]
    assert report._rebuild_commands(dirty) == []
    assert "made from files that differ from commit 1234 (params.yaml)" in report._notes("folder", dirty)[-1]


def test_the_size_of_images_is_that_of_the_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, shape in {"train/1": (40, 48), "train/2": (60, 40), "val/3": (40, 48)}.items():
        path = tmp_path / "pictures" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((*shape, 3), 7, np.uint8)).save(path)
    ingest.run(small_params(tmp_path / "pictures", rule="shorter"))
    sizes = {split: report._describe_size(Column(Path("shards/image") / split)) for split in ("train", "val")}
    assert sizes == {"train": "32–48 × 32–38", "val": "32 × 38"}


@contextlib.contextmanager
def _without(*names):
    """Put folders of outputs aside until the context ends."""
    for name in names:
        Path(name).rename(f"{name}.aside")
    try:
        yield
    finally:
        for name in names:
            Path(f"{name}.aside").rename(name)


def _with_three(params):
    """Leave three generators: a page of all takes long to draw."""
    return dataclasses.replace(params, generators={name: params.generators[name] for name in ("csa", "spl", "unet")})


def _partial(params) -> tuple[str, list[str]]:
    """Write the partial page. Returns its text, and the rows of its comparison."""
    report.run_partial(params)
    html = Path("report/partial.html").read_text()
    comparison = html.partition("<h2>Comparison</h2>")[2].partition("</section>")[0]
    return html, re.findall(r'<th scope="row"><bdi>(\w+)</bdi>', comparison)


def test_the_page_of_an_unfinished_run_shows_what_there_is(params):
    params = _with_three(params)
    before = Path("report/index.html").read_bytes()
    folder = RunFolder(params.cluster.storage_folder / "csa" / "0123")
    log = EventLog(folder.events)
    for step in (1, 2, 3):
        log.log(step, {"refine/l1": 1.0 / step, "refine/adversarial": 0.5})
    log.close()
    (folder.checkpoints / "step-00000002").mkdir(parents=True)
    with _without("models/csa", "results/spl"), leave_note(folder.note, steps=50):
        folder.stage_lock.touch()
        html, rows = _partial(params)
        with pytest.raises(UserError, match=r"results/spl has no results; run: dvc repro; .* report --partial"):
            report.run(params)
    shutil.rmtree(folder.path)
    assert sorted(rows) == sorted(["unet", "unet", *_DECLARED, *params.evaluate.baselines])
    assert "<title>Partial: " in html
    assert re.search(r"<h2>Partial report, made \d{4}-\d\d-\d\d \d\d:\d\d UTC</h2>", html)
    for name, why in {"csa": "stopped, step 2 of 50", "spl": "trained, not evaluated yet"}.items():
        assert f'<th scope="row"><bdi>{name}</bdi></th><td><bdi>{why}</bdi></td>' in html
    assert re.search(r"<bdi>csa, stopped</bdi> <small><bdi>refine</bdi>.*?adversarial", html, re.DOTALL)
    assert "To rebuild it" not in html
    assert Path("report/index.html").read_bytes() == before


_DECLARED = ("copied", "inpaint_edge_connect_1")  # rows of `evaluate.rows`


@pytest.mark.parametrize("gone", ["results/baselines", "shards/mask", "models"])
def test_an_unfinished_run_without_baselines_masks_or_models_has_a_page(params, gone):
    params = _with_three(params)
    with _without(gone):
        html, rows = _partial(params)
    kept = {"results/baselines": 2 * len(params.generators), "models": len(params.evaluate.baselines)}
    assert len(rows) == (len(_DECLARED) + kept[gone] if gone in kept else 0)
    assert "Partial report, made" in html


def test_the_page_is_opened_in_the_browser_of_the_user(params, tmp_path):
    """BROWSER names the program, as for every other Python program."""
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    browser.chmod(0o755)
    command = [sys.executable, "-c", "from pathlib import Path; from pipeline.browser import open_page; "
               "open_page(Path('report/index.html'))"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": "/nowhere", "DISPLAY": ""}
    for variable, said in ((str(browser), "opened in the browser"), ("", "no browser can be opened here; open this")):
        env = {**environment, "BROWSER": variable}
        assert subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.startswith(said)
    assert (tmp_path / "opened").read_text().strip() == Path("report/index.html").resolve().as_uri()
