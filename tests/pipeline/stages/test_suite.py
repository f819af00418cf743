"""More suites have results of their own, which share no table with those of another one."""

import dataclasses
import json
import re
import shutil
from hashlib import sha256
from pathlib import Path

import mlflow
import pytest

from datasets.shards.column import Column
from datasets.shards.manifest import ManifestError
from files.pictures import decode_map
from jobs.evaluation.results import read_scores
from jobs.evaluation.settings import EvaluateConfig
from jobs.evaluation.suite import SuiteError
from jobs.generators import card
from pipeline import suite_files
from pipeline.layout import model_folder, results_folder
from pipeline.page_suites import page_suite
from pipeline.results import common_suite, read_results
from pipeline.stages import evaluate, ingest, masks, report, suite
from pipeline.suite_files import SuiteFileError
from tests.jobs.tracking.models import register
from tests.pipeline.pictures import small_params, tree, write_pictures

GENERATOR = "unet"
TEXT = """
dataset: folder
split: val
size: 32
rule: crop
masks: {{kind: {kind}}}
bins: {bins}
seed: 1
"""


@pytest.fixture
def params(tmp_path, monkeypatch):
    write_pictures(tmp_path / "pictures", 40)
    small = small_params(tmp_path / "pictures")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setattr(suite_files, "_FOLDER", tmp_path / "conf")
    (tmp_path / "conf").mkdir()
    for name, kind, bins in (("thick", "thick", "false"), ("bins", "irregular", "true")):
        (tmp_path / "conf" / f"{name}.yaml").write_text(TEXT.format(kind=kind, bins=bins))
    (tmp_path / "conf" / "few.yaml").write_text(TEXT.format(kind="centre", bins="false") + "smallest_sha256: 3\n")
    small = dataclasses.replace(
        small,
        evaluate=EvaluateConfig(baselines=("mean_colour", "telea"), gallery_images=2, bootstrap_samples=50),
        generators={GENERATOR: card(GENERATOR).Config.tiny()},
    )
    ingest.run(small)
    register(tmp_path / "registered", GENERATOR)
    shutil.copytree(tmp_path / "registered" / "model", model_folder(GENERATOR))
    return small


def test_suites_have_results_of_their_own_and_are_refused_in_one_table(params):
    masks.run(params)
    for row in (GENERATOR, "baselines"):
        evaluate.run(params, row)
    params = dataclasses.replace(params, suites=("thick", "bins"))
    with pytest.raises(ManifestError, match=r"suites/thick/mask/val.* is missing.*; run: dvc repro suites@thick$"):
        report.run(params, "thick")
    for name, groups in (("thick", {"thick"}), ("bins", None)):
        suite.run(params, name)
        folder = Path("suites") / name
        for row in (GENERATOR, "baselines"):
            summary = json.loads((folder / "results" / row / "summary.json").read_text())
            text = (folder / "results" / row / "suite.json").read_bytes()
            assert summary["suite"] == sha256(text).hexdigest()
            assert json.loads(text)["masks"]["seed"] == 1
            for of_row in summary["rows"].values():
                assert groups is None or of_row.keys() == {"overall", *groups}
        assert {path.stem for path in Path("metrics/suites", name).iterdir()} == {GENERATOR, "mean_colour", "telea"}
    images = Column(Path("shards/image/val"))
    own = json.loads((results_folder("baselines") / "summary.json").read_text())["suite"]
    other = json.loads(Path("suites/bins/results/baselines/summary.json").read_text())["suite"]
    of_masks = page_suite(params), (GENERATOR, "baselines"), images, Column(Path("shards/mask/val"))
    common_suite(params, read_results(*of_masks))
    check_pages(params)
    shutil.copytree("suites/bins/results/baselines", results_folder("baselines"), dirs_exist_ok=True)
    with pytest.raises(SuiteError, match=f"{own}, baselines on {other}: their numbers cannot be compared"):
        common_suite(params, read_results(*of_masks))


def check_pages(params):
    """Each suite has a page of its own, with the same files and with links to the others."""
    pages = {"": Path("report/index.html")} | {name: Path("reports", name, "index.html") for name in params.suites}
    for name in pages:
        report.run(params, name)
    texts = {name: path.read_text() for name, path in pages.items()}
    client = mlflow.MlflowClient()
    run = client.get_run(client.get_model_version_by_alias(f"inpaint-{GENERATOR}", "candidate").run_id)
    for name, path in pages.items():
        place = Path("suites", name, "results") if name else Path("results")
        digest = json.loads((place / GENERATOR / "summary.json").read_text())["suite"]
        assert [other for other, text in texts.items() if digest in text] == [name]
        assert ("By size of the hole" in texts[name]) == (name != "thick")
        assert "Which of two rows is better" in texts[name]
        tables = {table.name for table in path.parent.rglob("*.*")} - {"psnr_hole.tsv", "ssim.tsv"}
        assert tables == {"index.html", "comparisons.parquet", "costs.tsv"} | (
            set() if name == "thick" else {"l1_hole_percent.tsv"}
        )
        tag, begin = (f"suite.{name}", f"suites/{name}") if name else ("suite", "evaluation")
        assert run.data.tags[tag] == digest
        assert f"{begin}/psnr" in run.data.metrics
        assert f"{begin}/interval_low/psnr" in run.data.metrics
        artifacts = {found.path for found in client.list_artifacts(run.info.run_id, path.parent.as_posix())}
        assert {f"{path.parent.as_posix()}/{file}" for file in ("index.html", "results.csv")} <= artifacts
        links = {(path.parent / link).resolve() for link in re.findall(r'href="(\.\.[^"]*)"', texts[name])}
        assert links == {other.resolve() for other in pages.values()} - {path.resolve()}


def test_a_suite_of_some_images_has_those_and_its_masks_are_kept(params, capsys):
    suite.run(params, "few")
    before = tree(Path("suites"))
    made = Path("suites/few/mask/val/mask-000000.tar").stat().st_ino
    suite.run(params, "few")
    assert tree(Path("suites")) == before
    assert Path("suites/few/mask/val/mask-000000.tar").stat().st_ino == made
    summary = json.loads(Path(f"suites/few/results/{GENERATOR}/summary.json").read_text())
    names = {
        key: sha256(f"{key.rpartition('/')[2]}.png".encode()).hexdigest()
        for key in Column(Path("shards/image/val")).keys.to_pylist()
    }
    scores = {score.key for score in read_scores(Path(f"suites/few/results/{GENERATOR}/per_image.parquet"))}
    assert scores == set(sorted(names, key=names.get)[:3])
    assert summary["images"] == 3
    capsys.readouterr()
    report.print_results(params, "csv", "few")
    lines = [line.split(",") for line in capsys.readouterr().out.splitlines()[1:]]
    assert {(line[0], line[3]) for line in lines} == {(summary["suite"], group) for group in ("overall", "centre")}
    hole = decode_map(Column(Path("suites/few/mask/val")).read(0, "mask-centre.png"))
    assert (hole[8:24, 8:24] == 255).all()
    assert hole.sum() == 255 * 16 * 16


def test_a_suite_of_other_images_is_refused_before_anything_is_computed(params):
    other = dataclasses.replace(params, ingest=dataclasses.replace(params.ingest, size=64))
    with pytest.raises(
        SuiteFileError, match=r"suite few is of other images than params\.yaml: ingest\.size is 64, not 32"
    ):
        suite.run(other, "few")
    path = Path("conf/few.yaml")
    path.write_text(path.read_text() + "images: 7\n")
    with pytest.raises(SuiteFileError, match="suite few has 7 images, but shards/image/val has 8"):
        suite.run(params, "few")
    assert not Path("suites").exists()
