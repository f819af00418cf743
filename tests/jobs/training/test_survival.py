"""Faults of real clusters: trainings are killed and frozen, change their size, and get losses that are not finite."""

import random
import re
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.photographs import write_split
from jobs.runs.checkpoints import NETWORKS, newest_whole_checkpoint, read_progress
from jobs.runs.events import losses_by_step
from tests.jobs.training.trainings import Fault, batches_seen, checkpointed, make_job, run_group, weights_digest

KILL = signal.SIGKILL


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return write_split(tmp_path_factory.mktemp("s"), 24, size=32, per_shard=5)


def finish(job, world_size=1, **how):
    ended = run_group(job, world_size, **how)
    assert ended.codes == [0] * world_size, ended.said
    return weights_digest(job)


@pytest.fixture(scope="module")
def undisturbed(folders, tmp_path_factory):
    """Number of processes -> the job of an undisturbed training."""
    jobs = {size: make_job(folders, tmp_path_factory.mktemp(f"quiet-{size}")) for size in (1, 2)}
    for size, job in jobs.items():
        finish(job, size)
    return jobs


def test_workers_killed_anywhere_lose_an_interval_at_most_and_change_nothing(folders, undisturbed, tmp_path):
    """A group of two is killed 20 times at random (rank, step), in four trainings."""
    rng, kills = random.Random(1), 0
    for number in range(4):
        job = make_job(folders, tmp_path / str(number))
        seen = tmp_path / f"seen-{number}"
        seen.mkdir()
        for step in sorted(rng.sample(range(2, 41), 5)):
            ended = run_group(job, 2, [Fault(step, rank=rng.randrange(2), signal=KILL)], seen)
            assert -KILL in ended.codes
            kills += 1
            newest = checkpointed(job)[-1] if checkpointed(job) else 0
            # The next steps run while a checkpoint is written; a few may pass before it is committed.
            assert step - 1 - newest <= 5 + 4
        assert finish(job, 2, seen=seen) == weights_digest(undisturbed[2])
    assert kills == 20


def test_the_number_of_processes_changes_neither_the_order_nor_the_losses(folders, undisturbed, tmp_path):
    job = make_job(folders, tmp_path / "job", log_steps=1)
    alone = make_job(folders, tmp_path / "alone", log_steps=1)
    for folder in ("seen", "seen-alone"):
        (tmp_path / folder).mkdir()
    finish(alone, seen=tmp_path / "seen-alone")
    run_group(job, 1, [Fault(13, signal=KILL)], tmp_path / "seen")
    run_group(job, 2, [Fault(27, signal=KILL)], tmp_path / "seen")
    finish(job, 1, seen=tmp_path / "seen")
    assert keys_by_step(tmp_path / "seen") == keys_by_step(tmp_path / "seen-alone")
    segments = read_progress(newest_whole_checkpoint(Path(job.storage, "checkpoints")))["segments"]
    assert [segment["world_size"] for segment in segments] == [1, 2, 1]
    assert 0 < segments[1]["from_step"] <= 12 < segments[2]["from_step"] <= 26
    losses, expected = (losses_by_step(Path(one.storage, "events.jsonl")) for one in (job, alone))
    for step in range(segments[1]["from_step"] + 1, segments[1]["from_step"] + 11):
        assert losses[step] == pytest.approx(expected[step], rel=1e-4, abs=1e-4), step


def keys_by_step(folder):
    """Return step -> keys of its global batch of four, in order. A repeated step must have the same batch."""
    shares = {}
    for step, rank, keys, digest in batches_seen(folder):
        place = step, 4 // len(keys), rank
        assert shares.setdefault(place, (keys, digest)) == (keys, digest)
    whole = {}
    for step, size, _ in shares:
        ranks = [shares[step, size, rank][0] for rank in range(size) if (step, size, rank) in shares]
        if len(ranks) == size:  # a killed group may leave a step to some of its ranks
            batch = [key for keys in zip(*ranks, strict=True) for key in keys]
            assert whole.setdefault(step, batch) == batch
    return whole


@pytest.mark.parametrize("workers", [0, *(pytest.param(number, marks=pytest.mark.slow) for number in (1, 2))])
def test_the_samples_of_a_killed_training_are_those_of_a_quiet_one(folders, tmp_path, workers):
    (tmp_path / "quiet").mkdir()
    (tmp_path / "killed").mkdir()
    steps = 12  # two epochs of 24 records
    finish(make_job(folders, tmp_path / "a", steps=steps), seen=tmp_path / "quiet")
    job = make_job(folders, tmp_path / "b", steps=steps, loader_workers=workers, checkpoint_steps=2)
    for step in (4, 7, 11):
        assert run_group(job, 1, [Fault(step, signal=KILL)], tmp_path / "killed").codes == [-KILL]
    finish(job, seen=tmp_path / "killed")
    quiet, killed = ({step: rest for step, *rest in batches_seen(tmp_path / name)} for name in ("quiet", "killed"))
    assert killed == quiet
    epochs = [[key for step in range(first, first + 6) for key in quiet[step][1]] for first in (1, 7)]
    assert epochs[0] != epochs[1]
    assert sorted(epochs[0]) == sorted(epochs[1])
    assert len(set(epochs[0])) == 24


def test_memory_that_a_gpu_lacks_ends_the_training_with_the_remedy(folders, tmp_path):
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    ended = run_group(make_job(folders, tmp_path), 1, [Fault(2, raises=error)])
    assert ended.said[0].startswith(
        "TrainingError: toy: CUDA out of memory. Tried to allocate 2.00 GiB. Set train.accum"
    )
    assert "train.accumulate to 2 in params.yaml" in ended.said[0]


def test_two_processes_without_use_gpu_train_on_the_cpu_of_a_machine_with_a_gpu(folders, tmp_path, monkeypatch):
    """PyTorch sees the GPU in them, as in workers that were given none and whose cluster hides none."""
    job = make_job(folders, tmp_path, steps=2)
    ended = run_group(job, 2, [Fault(1, rank, claims_gpu=True) for rank in range(2)])
    assert ended.codes == [0, 0], ended.said
    assert weights_digest(job)


@pytest.mark.parametrize("network", ["generator", "generator_d"])
def test_a_loss_that_is_not_finite_on_one_rank_is_applied_on_none(folders, tmp_path, network):
    job = make_job(folders, tmp_path, checkpoint_steps=1)
    end = [Fault(8, rank, raises=RuntimeError("enough")) for rank in range(2)]
    ended = run_group(job, 2, [Fault(7, rank=1, nan=network), *end])
    assert ended.codes == [1, 1]
    assert all("enough" in text for text in ended.said)
    assert checkpointed(job) == [6, 7]
    before, after = (
        load_file(Path(job.storage, "checkpoints", f"step-{step:08d}", NETWORKS)) for step in checkpointed(job)
    )
    moved = {name.split("/")[0] for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    # The discriminator is updated first: if that is skipped, the generator's update is not tried; if not, it is kept.
    assert moved == ({"generator_d"} if network == "generator" else set())
    assert all(tensor.isfinite().all() for tensor in after.values())


def test_losses_that_stay_not_finite_end_the_training_with_its_weights_kept(folders, tmp_path):
    job = make_job(folders, tmp_path, max_skipped=3)
    ended = run_group(job, 2, [Fault(13, rank=1, nan="generator", steps=9)])
    assert ended.codes == [1, 1]
    for text in ended.said:
        assert "TrainingError: toy, step 15 of phase joint" in text
        assert "3 updates in a row were not applied" in text
    assert "l1 is nan" in ended.said[1]
    assert checkpointed(job) == [5, 10]
    weights = load_file(Path(job.storage, "checkpoints", "step-00000010", NETWORKS))
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_updates_that_were_not_applied_in_a_row_count_across_a_kill(folders, tmp_path):
    """The updates of steps 20 to 29 are not finite, five in a row are too many, and a kill comes between them."""
    job = make_job(folders, tmp_path, checkpoint_steps=1, max_skipped=5)
    faults = [Fault(20, nan="generator", steps=10), Fault(23, signal=KILL)]
    assert run_group(job, 1, faults).codes == [-KILL]
    newest = checkpointed(job)[-1]
    assert newest in (21, 22)  # the last one may not have been committed before the kill
    ended = run_group(job, 1, [Fault(1, nan="generator", steps=10)])
    assert ended.codes == [1]
    assert "step 24 of phase joint" in ended.said[0]


def test_a_batch_that_the_processes_cannot_share_is_refused_by_all(folders, tmp_path):
    for changes, parts in ({"batch_size": 3}, ""), ({"accumulate": 4}, ", each in 4 micro-batches"):
        ended = run_group(make_job(folders, tmp_path, **changes), 2)
        assert ended.codes == [1, 1]
        for text in ended.said:
            assert f"cannot be shared equally by 2 workers{parts}; the next that can is " in text


def test_a_stuck_rank_is_named_with_its_place_though_the_other_waits_without_end(folders, tmp_path):
    """As on GPUs: the threads that train wait in C, one for its own GPU and one for the exchange of gradients."""
    job = make_job(folders, tmp_path, collective_seconds=1.5)
    ended = run_group(job, 2, [Fault(9, 1, stuck=600)], exchange_seconds=600)
    assert (tmp_path / "stuck-1").is_file()
    assert ended.codes == [1, -KILL]  # the stuck rank until `run_group` killed it
    expected = r"rank 1 computes step 9 at jobs/training/loop\.py:\d+, for \d+ s now"
    assert re.fullmatch(f"PeerError: rank 0 lost another process; {expected}", ended.said[0])


@pytest.mark.slow
def test_ranks_that_are_slow_together_are_not_given_up(folders, tmp_path):
    job = make_job(folders, tmp_path, collective_seconds=1.5)
    finish(job, 2, faults=[Fault(9, rank, stuck=6) for rank in range(2)], exchange_seconds=600)
    assert sorted(path.name for path in tmp_path.glob("stuck-*")) == ["stuck-0", "stuck-1"]


@pytest.mark.slow
def test_a_killed_rank_is_named_by_the_other(folders, tmp_path):
    ended = run_group(make_job(folders, tmp_path), 2, [Fault(9, 1, signal=KILL)], grace=20)
    assert ended.codes == [1, -KILL]
    assert ended.said[0] == "PeerError: rank 0 lost another process; rank 1 does not answer"


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_stands_still_is_named_by_the_other(folders, tmp_path, rank):
    job = make_job(folders, tmp_path, collective_seconds=1.5)
    ended = run_group(job, 2, [Fault(9, rank, signal=signal.SIGSTOP)], exchange_seconds=600)
    assert ended.codes[rank] == -KILL  # it stood still until `run_group` killed it
    assert ended.codes[1 - rank] == 1
    assert ended.seconds < 1.5 + 12.5
    assert f"PeerError: rank {1 - rank} lost another process" in ended.said[1 - rank]
    assert ended.said[1 - rank].split("; ")[1] == f"rank {rank} does not answer"
