"""The training stage in a process that is killed, stopped, watched or orphaned, and with another experiment."""

import contextlib
import dataclasses
import fcntl
import os
import random
import shutil
import signal
import time
from pathlib import Path

import mlflow
import pytest
from ruamel.yaml import YAML

from benchmarks.photographs import write_split
from files.durable import file_digest
from jobs.cluster.processes import start_fork_server
from jobs.generators import card
from jobs.runs.experiment import discard, find_unfinished
from jobs.runs.folder import RunFolder
from jobs.runs.stopping import RESUMABLE
from pipeline.__main__ import main
from pipeline.params import read_params
from tests.jobs.training.trainings import FORKS, Fault, watch_steps
from tests.pipeline.pictures import describe_shards

ROOT = Path(__file__).resolve().parent.parent.parent.parent
STEPS = 40


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_split(folder, 24, per_shard=5)
    return folder


@pytest.fixture
def checkout(shards, tmp_path):
    return make_checkout(shards, tmp_path)


def make_checkout(shards, folder):
    """Make a folder in which `python -m pipeline train context_encoder` takes 40 steps in one process."""
    shutil.copytree(shards, folder / "shards")
    tiny = dataclasses.asdict(card("context_encoder").Config.tiny())
    write_params(
        folder,
        generators={"context_encoder": {**tiny, "steps": STEPS}},
        train={"checkpoint_steps": 5, "log_steps": 5, "sample_steps": 1000},
        cluster={"num_workers": 0, "train_workers": 0, "max_failures": 0},
    )
    with contextlib.chdir(folder):
        describe_shards(read_params())
    return folder


def write_params(folder, **changes):
    path = folder / "params.yaml"
    yaml = YAML(typ="safe", pure=True)
    tree = yaml.load(path if path.is_file() else ROOT / "params.yaml")
    for block, values in changes.items():
        tree[block] = values if block == "generators" else {**tree.get(block, {}), **values}
    yaml.dump(tree, path)


def start(checkout, *faults):
    start_fork_server()
    process = FORKS.Process(target=_stage, args=(checkout, faults, dict(os.environ)))
    process.start()
    return process


def _stage(checkout, faults, environment):
    os.environ |= environment  # the fork server has the environment of its own start
    os.setsid()  # a process group of its own, as a shell gives to a command
    _stage_here(checkout, faults)


def _stage_here(checkout, faults):
    os.chdir(checkout)
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{checkout / 'mlflow.db'}"
    os.dup2(os.open("said", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    watch_steps(faults)
    os._exit(main(["train", "context_encoder"]))


def run(checkout, *faults):
    """Run the stage and return its exit code and its standard error."""
    (checkout / "said").unlink(missing_ok=True)
    process = start(checkout, *faults)
    process.join(180)
    return process.exitcode, (checkout / "said").read_text()


def weights(checkout):
    return file_digest(checkout / "models" / "context_encoder" / "weights.safetensors")


def storages(checkout):
    return sorted((checkout / "runs" / "context_encoder").glob("*"))


def newest(checkout):
    return max((int(path.name[5:]) for path in checkout.glob("runs/*/*/checkpoints/step-*")), default=0)


def is_free(lock):
    with lock.open() as file, contextlib.suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


@pytest.fixture(scope="module")
def quiet(shards, tmp_path_factory):
    """Digest of the weights of an undisturbed training."""
    folder = make_checkout(shards, tmp_path_factory.mktemp("quiet"))
    code, said = run(folder)
    assert code == 0, said
    assert not storages(folder)
    return weights(folder)


def test_the_stage_killed_with_its_whole_group_five_times_changes_nothing(checkout, quiet):
    for step in sorted(random.Random(2).sample(range(3, STEPS), 5)):
        code, _ = run(checkout, Fault(step, signal=signal.SIGKILL, whole_group=True))
        assert code == -signal.SIGKILL
        assert not (checkout / "models").exists()
    assert run(checkout)[0] == 0
    assert weights(checkout) == quiet
    runs = mlflow.MlflowClient(f"sqlite:///{checkout / 'mlflow.db'}").search_runs(["1"])
    assert [tracked.info.status for tracked in runs] == ["FINISHED"]


@pytest.mark.slow
def test_through_ray_the_stage_killed_with_its_group_changes_nothing(shards, tmp_path):
    """Ray's processes are in another group: a worker that lost its driver must not write beside the next one."""
    tiny = dataclasses.asdict(card("context_encoder").Config.tiny())
    for name, workers in {"quiet": 0, "killed": 1}.items():
        (tmp_path / name).mkdir()
        make_checkout(shards, tmp_path / name)
        write_params(tmp_path / name, generators={"context_encoder": {**tiny, "steps": 400}})
        write_params(tmp_path / name, cluster={"train_workers": workers})
    checkout = tmp_path / "killed"
    process = start(checkout)
    wait_for(lambda: newest(checkout) > 20, seconds=120)
    os.killpg(process.pid, signal.SIGKILL)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    (lock,) = checkout.glob("runs/*/*/writer.lock")
    wait_for(lambda: is_free(lock), seconds=60)  # Ray ends the worker after its driver
    assert newest(checkout) < 400
    damaged = sorted(checkout.glob("runs/*/*/checkpoints/step-*"))[-1]
    (damaged / "networks.safetensors").write_bytes(b"")
    for name in ("quiet", "killed"):
        code, said = run(tmp_path / name)
        assert code == 0, said
        assert (f"checkpoint {damaged} is damaged" in said) == (name == "killed")  # the worker itself has no terminal
    assert weights(checkout) == weights(tmp_path / "quiet")


@pytest.mark.slow
def test_through_ray_sigterm_saves_and_stops_however_long_that_takes(checkout):
    """Ray replaces the handler of SIGTERM by one that aborts the process after three seconds."""
    write_params(checkout, cluster={"train_workers": 1}, train={"checkpoint_steps": 1})
    tiny = dataclasses.asdict(card("context_encoder").Config.tiny())
    write_params(checkout, generators={"context_encoder": {**tiny, "steps": 4000}})
    process = start(checkout)
    wait_for(lambda: newest(checkout) > 20, seconds=120)
    os.kill(process.pid, signal.SIGTERM)
    process.join(60)
    assert process.exitcode == RESUMABLE
    assert "the same command goes on" in (checkout / "said").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_saves_and_stops_without_losing_a_step(shards, tmp_path, number):
    """Five times at random steps, with each signal."""
    rng, steps = random.Random(number), 100
    for name in ("quiet", "stopped"):
        (tmp_path / name).mkdir()
        make_checkout(shards, tmp_path / name)
        tiny = dataclasses.asdict(card("context_encoder").Config.tiny())
        write_params(tmp_path / name, generators={"context_encoder": {**tiny, "steps": steps}})
    checkout, reached = tmp_path / "stopped", 0
    for _ in range(5):
        step = reached + rng.randint(1, 5)
        code, said = run(checkout, Fault(step, signal=number))
        assert code == RESUMABLE, said
        assert f"context_encoder stops after step {newest(checkout)}, as asked" in said
        assert "the same command goes on" in said
        assert step <= newest(checkout) < steps
        reached = newest(checkout)
    assert run(checkout)[0] == run(tmp_path / "quiet")[0] == 0
    assert weights(checkout) == weights(tmp_path / "quiet")


def test_machines_without_a_lasting_disk_end_with_the_same_weights_curves_and_run(s3, checkout, quiet):
    """The first machine is stopped, the second killed. Only the store has their checkpoints."""
    write_params(checkout, cluster={"checkpoints": "s3://bucket/live"})
    code, said = run(checkout, Fault(12, signal=signal.SIGTERM))
    assert code == RESUMABLE, said
    stopped = newest(checkout)
    assert f"s3://bucket/live/context_encoder/{storages(checkout)[0].name} has step-{stopped:08d}; the same" in said
    shutil.rmtree(checkout / "runs")
    assert run(checkout, Fault(33, copied=30, signal=signal.SIGKILL, whole_group=True))[0] == -signal.SIGKILL
    shutil.rmtree(checkout / "runs")
    code, said = run(checkout)
    assert code == 0, said
    assert weights(checkout) == quiet
    (curve, *_) = (checkout / "curves").rglob("*.tsv")
    assert [int(line.split("\t")[0]) for line in curve.read_text().splitlines()[1:]] == list(range(5, STEPS + 1, 5))
    (tracked,) = mlflow.MlflowClient(f"sqlite:///{checkout / 'mlflow.db'}").search_runs(["1"])
    assert tracked.info.status == "FINISHED"
    assert tracked.data.metrics["restarts"] == 2
    assert not s3.find("bucket/live")
    assert not storages(checkout)


def test_a_store_that_takes_no_checkpoints_is_a_clear_stop(s3, checkout, monkeypatch):
    write_params(checkout, cluster={"checkpoints": "s3://nowhere/live"}, store={"attempts": 1})
    code, said = run(checkout)
    assert code == 1
    assert "s3://nowhere/live/context_encoder/" in said
    assert "bucket does not exist" in said
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    code, said = run(checkout)
    assert code == 1
    line, _ = said.splitlines()
    assert line.startswith("train: live checkpoints cannot be copied to s3://nowhere/live/context_encoder/")
    assert line.endswith("or set cluster.checkpoints to null")
    assert newest(checkout) == 0


def test_a_second_process_watches_and_takes_what_the_first_one_leaves(checkout, quiet):
    first = start(checkout, Fault(9, signal=signal.SIGSTOP))
    wait_for(lambda: is_stopped(first.pid))
    second = start(checkout)
    wait_for(lambda: f"process {first.pid} on" in (checkout / "said").read_text())
    os.kill(first.pid, signal.SIGCONT)
    first.join(60)
    second.join(60)
    assert (first.exitcode, second.exitcode) == (0, 0)
    assert (checkout / "said").read_text().count("registered") <= 1
    assert weights(checkout) == quiet
    assert not storages(checkout)


def test_a_watched_process_that_dies_is_followed_by_the_watcher(checkout, quiet):
    first = start(checkout, Fault(9, signal=signal.SIGSTOP))
    wait_for(lambda: is_stopped(first.pid))
    second = start(checkout)
    wait_for(lambda: "watching" in (checkout / "said").read_text())
    first.kill()
    second.join(60)
    assert second.exitcode == 0
    assert weights(checkout) == quiet


def test_a_lost_terminal_ends_nothing_and_the_next_start_takes_the_result(checkout, quiet):
    """The shell, or DVC, dies with its terminal. Its stage continues, and leaves the result in the storage."""
    start_fork_server()
    shell = FORKS.Process(target=_shell, args=(checkout,))
    shell.start()
    shell.join(60)
    assert shell.exitcode == -signal.SIGHUP
    wait_for(lambda: "the process that asked for it has ended" in (checkout / "said").read_text())
    assert not (checkout / "models").exists()
    assert run(checkout)[0] == 0
    assert weights(checkout) == quiet


def _shell(checkout):
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the process that runs the tests may ignore it
    stage = os.fork()
    if stage == 0:
        _stage_here(checkout, [Fault(9, signal=signal.SIGHUP, whole_group=True)])
    os.waitpid(stage, 0)


def test_another_experiment_is_not_resumed_and_its_differences_are_named(checkout):
    assert run(checkout, Fault(12, signal=signal.SIGKILL))[0] == -signal.SIGKILL
    (waiting,) = storages(checkout)
    write_params(checkout, train={"clip_norm": 1.0, "checkpoint_steps": 7})
    code, said = run(checkout)
    assert code == 1
    for words in (
        f"{waiting} holds an unfinished training",
        "another experiment: train.clip_norm was absent, is 1.0",
        "-S cluster.start_anew=true",
    ):
        assert words in said
    assert storages(checkout) == [waiting]
    write_params(checkout, cluster={"start_anew": True})
    assert run(checkout)[0] == 0
    assert storages(checkout) == [waiting]
    write_params(checkout, train={"clip_norm": None, "checkpoint_steps": 5}, cluster={"start_anew": False})
    code, said = run(checkout)
    assert code == 0
    assert not storages(checkout)


def wait_for(happened, seconds=60):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)


def is_stopped(process):
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_a_discarded_folder_is_no_training_any_more(tmp_path, monkeypatch):
    """A kill during the removal leaves nothing that looks like a training; the next removal removes the rest."""
    trainings = [RunFolder(tmp_path / "toy" / name) for name in ("0123", "4567")]
    for folder in trainings:
        (folder.checkpoints / "step-00000010").mkdir(parents=True)
        folder.experiment.write_text("{}")
    assert find_unfinished(tmp_path, "toy") == trainings
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda path, **options: None)  # killed before anything is gone
        discard(trainings[0])
    assert find_unfinished(tmp_path, "toy") == trainings[1:]
    assert len(list((tmp_path / "toy").iterdir())) == 2
    discard(trainings[1])
    assert not list((tmp_path / "toy").iterdir())
