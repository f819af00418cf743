"""One evaluation gives the same bytes on any number of workers and cores, and after a kill."""

import dataclasses
import os
import time
from pathlib import Path

import numpy as np
import pytest

from jobs.cluster.settings import ClusterConfig
from jobs.evaluation.job import EvaluationJob
from jobs.evaluation.loop import Evaluation
from jobs.evaluation.results import read_scores, read_summary
from jobs.evaluation.settings import EvaluateConfig, RowsConfig
from jobs.generators import card
from pipeline.layout import SCORES_NAME, SUMMARY_NAME, column_folder, model_folder, results_folder, unfinished_folder
from pipeline.stages import evaluate, ingest, masks
from tests.jobs.tracking.models import write_model
from tests.jobs.training.trainings import FORKS
from tests.pipeline.pictures import small_params, tree, write_pictures

GENERATOR = "edge_connect"  # it needs edges, and its own edges are scored


@pytest.fixture(scope="module")
def params(tmp_path_factory):
    """Parameters of an evaluation of 20 images; the working folder has its images, masks and weights."""
    folder = tmp_path_factory.mktemp("run")
    write_pictures(folder / "pictures", 100)
    small = small_params(folder / "pictures")
    small = dataclasses.replace(
        small,
        evaluate=EvaluateConfig(gallery_images=5, bootstrap_samples=50, rows=RowsConfig(untrained=True)),
        generators={GENERATOR: card(GENERATOR).Config.tiny()},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        ingest.run(small)
        masks.run(small)
        write_model(model_folder(GENERATOR), GENERATOR)
        yield small


def results(params, num_workers=0):
    """Digests of the results of one evaluation."""
    cluster = ClusterConfig(num_workers=num_workers, train_workers=0)
    evaluate.run(dataclasses.replace(params, cluster=cluster), GENERATOR)
    return tree(results_folder(GENERATOR)) | tree(Path("metrics"))


def evaluate_in(folder, params):
    os.chdir(folder)
    evaluate.run(params, GENERATOR)


def test_without_declared_rows_the_others_are_an_empty_table(params):
    evaluate.run(params, "others")
    assert read_scores(results_folder("others") / SCORES_NAME) == []
    assert read_summary(results_folder("others") / SUMMARY_NAME).rows == {}


def test_results_are_the_same_bytes_on_any_number_of_workers_and_after_a_kill(params, caplog):
    in_this_process = results(params)
    assert in_this_process
    assert results(params, num_workers=1) == in_this_process
    assert results(params, num_workers=2) == in_this_process

    killed = FORKS.Process(target=evaluate_in, args=(Path.cwd(), params))
    killed.start()
    notes = unfinished_folder(GENERATOR) / "parts"
    while not list(notes.glob("*/*/part.json")):
        assert killed.is_alive()
        time.sleep(0.01)
    killed.kill()
    killed.join()
    finished = len(list(notes.glob("*/*/part.json")))
    assert 1 <= finished < 3
    caplog.clear()
    assert results(params) == in_this_process
    assert f"{GENERATOR}: {8 * finished} of 20 images were evaluated before" in caplog.text
    assert not notes.exists()


@pytest.mark.parametrize("batch_size", [1, 3])
def test_threads_that_read_ahead_and_score_change_nothing(params, batch_size):
    config = dataclasses.replace(params.evaluate, batch_size=batch_size)
    images, masks_ = (str(column_folder(column, "val")) for column in ("image", "mask"))
    job = EvaluationJob(name=GENERATOR, images=images, masks=masks_, model=str(model_folder(GENERATOR)), config=config)
    one, several = (Evaluation(job, cores)(range(3, 11)) for cores in (1, 4))
    assert len(one.scores) == 2 * 8 * 6
    assert one.costs.keys() == several.costs.keys()
    for result in (one, several):
        result.costs.clear()
    assert one == several
    assert np.isfinite([value for score in one.scores for value in score.values.values()]).all()
