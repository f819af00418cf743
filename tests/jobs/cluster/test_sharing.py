"""How many processes train a generator, for the batches of all papers."""

import dataclasses

import pytest

from jobs.cluster.settings import ClusterConfig
from jobs.cluster.sharing import describe_fewer, divide, share_batch
from jobs.generators import card, names


@pytest.mark.parametrize(
    ("asked", "shares", "chosen"),
    [
        ((0, 0), 1, (0, 0)),
        ((1, 1), 1, (1, 1)),
        ((16, 16), 1, (1, 1)),
        ((16, 16), 6, (6, 6)),
        ((16, 16), 24, (12, 12)),
        ((16, 16), 64, (16, 16)),
        ((7, 7), 13, (1, 1)),
        ((4, 16), 6, (4, 6)),
        ((4, 16), 1, (1, 1)),
        ((4, 16), 10**6 + 3, (1, 1)),
    ],
)
def test_as_many_processes_as_divide_the_batch(asked, shares, chosen):
    assert divide(asked, shares) == chosen


@pytest.mark.parametrize("name", names())
def test_sixteen_workers_train_every_paper_and_a_smaller_number_is_said(name):
    batch = card(name).Config().batch_size
    config = ClusterConfig(train_workers=16)
    workers = share_batch(config, name, batch).max_processes
    assert batch % workers == 0
    assert not [larger for larger in range(workers + 1, 17) if batch % larger == 0]
    text = describe_fewer(config, name, batch)
    assert text == "" if workers == 16 else f"trained by {workers} process" in text and "instead of 16" in text


def test_a_worker_asks_a_cluster_for_the_cpus_of_its_threads_and_readers():
    assert ClusterConfig().cpus_per_worker == 1
    assert ClusterConfig(threads=4, loader_workers=4).cpus_per_worker == 8


def test_a_number_of_a_generators_own_counts_for_it_alone():
    config = ClusterConfig(train_workers=8, generator_workers={"csa": 0, "lama": (1, 4)})
    assert [share_batch(config, name, 16).worker_range for name in ("csa", "lama", "unet")] == [(0, 0), (1, 4), (8, 8)]
    assert describe_fewer(dataclasses.replace(config, train_workers=3), "unet", 16).startswith("trained by 2 processes")
    with pytest.raises(ValueError, match=r"generator_workers.csa must be a number or \[min, max\]"):
        ClusterConfig(generator_workers={"csa": (3, 2)})
