"""`report --against`: results of an older revision, fetched from DVC's cache, and of a registered version."""

import dataclasses
import shutil
import subprocess
import sys
from argparse import Namespace

import pytest

from jobs.evaluation.settings import EvaluateConfig
from jobs.evaluation.suite import SuiteError
from jobs.generators import card
from pipeline.against import AgainstError
from pipeline.layout import model_folder, unfinished_folder
from pipeline.results import ReportError
from pipeline.stages import evaluate, ingest, masks, report
from tests.jobs.tracking.models import register, write_model
from tests.pipeline.pictures import small_params, write_pictures

GENERATOR = "unet"


@pytest.fixture
def params(tmp_path, monkeypatch):
    small = small_params(write_pictures(tmp_path / "pictures", 20))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    small = dataclasses.replace(
        small,
        evaluate=EvaluateConfig(gallery_images=2, bootstrap_samples=50),
        generators={GENERATOR: card(GENERATOR).Config.tiny()},
    )
    ingest.run(small)
    masks.run(small)
    return small


def train_anew(params, seed):
    shutil.rmtree(model_folder(GENERATOR), ignore_errors=True)
    write_model(model_folder(GENERATOR), GENERATOR, seed)
    evaluate.run(params, GENERATOR)


def against(params, what, max_regression=None):
    given = {"suite": "", "partial": False, "open": False, "format": None}
    return report.main(params, Namespace(**given, against=what, max_regression=max_regression))


def run(*words):
    subprocess.run(words, check=True, capture_output=True)


def test_a_limit_needs_something_to_compare_with_and_both_are_for_the_main_suite():
    with pytest.raises(ReportError, match="--max-regression judges a comparison; name what to compare with: --against"):
        against(None, None, 1.0)
    given = {"suite": "thick", "open": False, "format": None, "max_regression": None}
    for words in ({"partial": True, "against": None}, {"partial": False, "against": "HEAD"}):
        with pytest.raises(ReportError, match=r"are for the suite of params\.yaml; leave thick out"):
            report.main(None, Namespace(**given, **words))


@pytest.mark.slow
def test_results_of_a_revision_are_compared_per_bin_and_judged(params, capsys):
    train_anew(params, 1)
    run("git", "init", "-q")
    run(sys.executable, "-m", "dvc", "init", "-q")
    run(sys.executable, "-m", "dvc", "add", "-q", f"results/{GENERATOR}")
    run("git", "add", ".dvc", f"results/{GENERATOR}.dvc")
    run("git", "-c", "user.name=a", "-c", "user.email=b", "commit", "-qm", "old")
    capsys.readouterr()
    assert against(params, "HEAD", 0.0) == 0
    assert "L1 in hole is worse by no more than 0 %" in capsys.readouterr().out
    train_anew(params, 2)
    capsys.readouterr()
    codes = [against(params, "HEAD", limit) for limit in (0.0, 1000.0)]
    text = capsys.readouterr().out
    assert codes[1] == 0
    assert codes[0] == int("L1 in hole is worse than allowed (0 %): " in text)
    assert "0.5-0.6" in text
    with pytest.raises(AgainstError, match="git knows no revision v1; name a commit, a tag or a branch"):
        against(params, "v1")
    run("git", "rm", "-q", f"results/{GENERATOR}.dvc")
    run("git", "-c", "user.name=a", "-c", "user.email=b", "commit", "-qm", "without results")
    with pytest.raises(AgainstError, match="revision HEAD has no results of unet that DVC can fetch"):
        against(params, "HEAD")
    other = dataclasses.replace(params, seed=params.seed + 1)
    masks.run(other)
    evaluate.run(other, GENERATOR)
    with pytest.raises(SuiteError, match=r"unet of HEAD~ was evaluated on suite [0-9a-f]{64}, unet on [0-9a-f]{64}"):
        against(other, "HEAD~")


@pytest.mark.slow
def test_a_registered_version_is_evaluated_on_the_suite(params, tmp_path, capsys):
    register(tmp_path / "registered", GENERATOR, 1)
    train_anew(params, 1)
    capsys.readouterr()
    assert against(params, f"models:/inpaint-{GENERATOR}/1", 0.0) == 0
    assert "unet: old is inpaint_unet_1 of models:/inpaint-unet/1" in capsys.readouterr().out
    assert not unfinished_folder("against").exists()
