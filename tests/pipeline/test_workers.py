"""The workers of one training."""

import dataclasses

import pytest

from jobs.checks.footprint import footprint
from jobs.generators import card
from jobs.training.settings import TrainConfig
from pipeline.params import ParamsError
from pipeline.workers import choose_workers
from tests.pipeline.pictures import small_params


def test_a_training_with_a_small_batch_has_fewer_workers_and_says_so(tmp_path, caplog):
    params = small_params(tmp_path)
    params = dataclasses.replace(params, cluster=dataclasses.replace(params.cluster, train_workers=16))
    counts = footprint("csa", dataclasses.replace(card("csa").Config.tiny(), batch_size=6))
    assert choose_workers(params, counts).worker_range == (6, 6)
    assert "csa is trained by 6 processes instead of 16, since its batch is divided into at most 6" in caplog.text
    halved = dataclasses.replace(params, train=TrainConfig(accumulate=2))
    assert choose_workers(halved, counts).worker_range == (3, 3)
    with pytest.raises(
        ParamsError, match=r"each in 4 micro-batches; .* change generators.csa.batch_size or train.accum"
    ):
        choose_workers(dataclasses.replace(params, train=TrainConfig(accumulate=4)), counts)
