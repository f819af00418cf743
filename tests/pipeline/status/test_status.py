"""The verb status: what runs, waits, has failed and is finished, of real trainings, notes and a real dvc.lock."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.photographs import write_split
from files.errors import UserError
from jobs.runs.events import EventLog
from jobs.runs.folder import RunFolder
from jobs.runs.note import leave_note
from jobs.runs.state import read_state
from jobs.tracking.queue import park
from pipeline.__main__ import main
from pipeline.inputs import read_values
from pipeline.stage_notes import note_stage
from pipeline.status.overview import read_overview
from pipeline.status.recorded import Record
from pipeline.status.rendering import render_json, render_text
from pipeline.status.stages import _list_stages
from tests.jobs.runs.test_experiment import is_stopped, make_checkout, start, wait_for, write_params
from tests.jobs.training.trainings import Fault

ROOT = Path(__file__).resolve().parent.parent.parent.parent
HEAVY = {"torch", "ray", "mlflow", "numpy", "cv2", "pyarrow", "pandas", "pydantic", "dvc"}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_split(folder, 24, per_shard=5)
    return folder


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A folder with params.yaml alone."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_name_in_dvc_yaml_is_filled_in(job):
    stages = list(_list_stages({**read_values(), "suites": ["photos"]}))
    assert {stage.name for stage in stages} >= {"others", "suites", "reports"}
    assert not [path for stage in stages for path in (stage.command, *stage.deps, *stage.outs) if "$" in path]


def _status(folder: Path) -> tuple[dict, str]:
    """Run the verb in a process of its own, as JSON and as text, and check that it changes nothing."""
    before = _content(folder)
    answers = []
    for words in (["--json"], []):
        command = [sys.executable, "-m", "pipeline", "status", *words]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert (result.returncode, result.stderr) == (0, "")
        answers.append(result.stdout)
    assert _content(folder) == before
    return json.loads(answers[0]), answers[1]


def _content(folder: Path) -> dict[str, tuple[int, int]]:
    files = (path for path in folder.rglob("*") if path.name != "said")
    return {str(path): ((found := path.lstat()).st_size, found.st_mtime_ns) for path in files}


def _stage(overview: dict, name: str) -> dict:
    return next(stage for stage in overview["stages"] if stage["name"] == name)


def test_a_training_is_shown_while_it_runs_and_after_every_end(shards, tmp_path, monkeypatch):
    checkout = make_checkout(shards, tmp_path)
    process = start(checkout, Fault(22, signal=signal.SIGSTOP), Fault(33, raises=UserError("the disk is\nbroken")))
    wait_for(lambda: is_stopped(process.pid))
    overview, text = _status(checkout)
    (training,) = overview["trainings"]
    assert (training["state"], training["step"], training["steps"]) == ("running", 20, 40)
    assert f"process {process.pid} on" in training["holder"]
    assert training["losses"]
    assert training["images_per_second"] > 0
    assert training["seconds_left"] > 0
    assert training["next"] == "python -m pipeline stop context_encoder"
    assert _stage(overview, "train@context_encoder")["holder"] == training["holder"]
    assert "step 20 of 40 (50%), about" in text

    monkeypatch.chdir(checkout)
    (folder,) = map(RunFolder, (checkout / "runs" / "context_encoder").glob("*"))
    folder.stop_request.touch()
    assert _only_training()["state"] == "stopping"
    folder.stop_request.unlink()

    os.kill(process.pid, signal.SIGCONT)
    process.join(60)
    training = _only_training()
    assert (training["state"], training["step"]) == ("failed", 30)
    assert training["error"] == "UserError: the disk is broken"
    assert training["next"] == "dvc repro train@context_encoder"
    assert _stage(json.loads(render_json(read_overview(read_values()))), "train@context_encoder")["state"] == "failed"

    write_params(checkout, train={"clip_norm": 1.0})
    training = _only_training()
    assert training["differences"] == ["train.clip_norm"]
    assert training["next"] == f"python -m pipeline restore {json.loads(folder.run.read_text())['training']}"


def _only_training() -> dict:
    (training,) = json.loads(render_json(read_overview(read_values())))["trainings"]
    return training


def test_nothing_heavy_is_imported(job):
    code = "import sys; from pipeline.__main__ import main; main(['status']); print(*sys.modules, file=sys.stderr)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=job, env=environment, capture_output=True, text=True, check=True
    )
    modules = set(result.stderr.split())
    assert "pipeline.status.overview" in modules
    assert not modules & HEAVY


def test_a_training_of_another_host_is_shown_with_it(job):
    """Its lock is held through the shared storage; its stage has left no note in this checkout."""
    folder = RunFolder(job / "runs" / "edge_connect" / "0123456789abcdef")
    with leave_note(folder.note, steps=1400):
        log = EventLog(folder.events)
        log.segment(from_step=0, world_size=2, nodes=["node7", "node8"], devices=["cpu", "cpu"])
        for step in range(20, 660, 20):
            log.log(step, {"edges/l1": 0.25}, images_per_second=35.2)
        log.close()
        with _held(folder.stage_lock, "process 12 on node7"):
            overview = read_overview(read_values())
    assert [(training.state.state, training.state.holder) for training in overview.trainings] == [
        ("running", "process 12 on node7")
    ]
    assert {stage.name: stage.holder for stage in overview.stages if stage.state == "running"} == {
        "train@edge_connect": "process 12 on node7"
    }
    text = render_text(overview)
    for words in ("step 640 of 1,400 (46%), about", "35.2 images/s, edges/l1 0.25", "process 12 on node7", "stop"):
        assert words in text
    assert overview.next[0].command == "python -m pipeline stop"


def test_time_left_counts_the_newest_segment_alone(tmp_path):
    folder = RunFolder(tmp_path / "toy" / "0123")
    folder.path.mkdir(parents=True)
    lines = [{"segment": {}}, *({"step": step, "seconds": 9.0 * step} for step in (10, 20))]
    lines += [{"segment": {}}, *({"step": step, "seconds": 0.5 * (step - 20)} for step in range(30, 4000, 10))]
    blank = {"losses": {"l1": 0.0}, "speed": {}, "system": {}, "time": 0.0}
    folder.events.write_text(
        "".join(json.dumps({**blank, **line} if "step" in line else line) + "\n" for line in lines)
    )
    with leave_note(folder.note, steps=5000), _held(folder.stage_lock, "process 1 on here"):
        state = read_state(folder)
    assert (state.step, state.seconds_left) == (3990, pytest.approx(0.5 * (5000 - 3990)))
    assert read_state(folder).state == "stopped"


def test_what_waits_for_the_tracking_server_is_told(job):
    folder = RunFolder(job / "runs" / "edge_connect" / "0123")
    folder.path.mkdir(parents=True)
    park(folder.path, job / "runs" / "undelivered", "no answer")
    overview = read_overview(read_values())
    assert "0001-edge_connect-0123: no answer" in overview.undelivered
    assert overview.next[-1].command == "python -m pipeline deliver"
    assert overview.undelivered in render_text(overview)
    assert not overview.trainings


def test_a_stage_that_fails_leaves_its_error_until_it_ends_well(job, capsys):
    def state() -> tuple[str, str]:
        stage = next(stage for stage in read_overview(read_values()).stages if stage.name == "masks")
        return stage.state, stage.why

    assert main(["precompute", "masks"]) == 1
    error = capsys.readouterr().err.splitlines()[0].removeprefix("precompute: ")
    assert state() == ("failed", f"ManifestError: {error}")
    with note_stage(["precompute", "masks"]):
        assert state()[0] == "running"
    assert state() == ("waits", "comes after ingest")
    with pytest.raises(KeyboardInterrupt), note_stage(["precompute", "masks"]):
        raise KeyboardInterrupt
    assert state() == ("stopped", "")


def test_a_name_that_is_no_generator_becomes_no_path(job):
    assert main(["train", "../../x"]) == 1
    assert [path.name for path in job.iterdir()] == ["params.yaml"]


def test_params_that_cannot_be_read_are_a_named_error(job, capsys):
    (job / "params.yaml").write_text("seed: [")
    assert main(["status"]) == 1
    assert "params.yaml is not valid YAML" in capsys.readouterr().err


_PIPELINE = """
stages:
  make:
    cmd: mkdir -p data/a data/b report && tee data/a/one data/b/two report/index.html < number.txt
    deps: [number.txt]
    outs: [data, report]
  use:
    cmd: cp data/b/two copied
    deps: [data/b, files]
    params: [seed, part.rate, part.word]
    outs: [copied]
"""


def test_the_record_knows_what_dvc_would_run_again(tmp_path, monkeypatch):
    """A real `dvc repro` writes dvc.lock; then each kind of input is changed alone."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text(_PIPELINE)
    (tmp_path / "params.yaml").write_text('seed: 1\npart: {rate: 1e-4, word: "no", other: null}\n')
    (tmp_path / "number.txt").write_text("1\n")
    (tmp_path / "files" / "deep").mkdir(parents=True)
    for name in ("code.py", "deep/more.py", "deep-er.py"):
        (tmp_path / "files" / name).write_text(name)
    for words in (["init", "--quiet", "--no-scm"], ["repro", "--quiet"]):
        subprocess.run([sys.executable, "-m", "dvc", *words], check=True)
    shutil.copy(ROOT / ".dvcignore", tmp_path)
    (tmp_path / "report" / "partial.html").write_text("of an unfinished run")
    status = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "--json"], capture_output=True, text=True, check=True
    )
    assert json.loads(status.stdout) == {}  # DVC ignores the partial page
    command, deps = "cp data/b/two copied", ["data/b", "files"]
    params = {"seed": 1, "part.rate": 1e-4, "part.word": "no"}

    def changes(**changed) -> list[str]:
        call = {"name": "use", "command": command, "deps": deps, "params": params} | changed
        return list(Record.read().find_changes(**call))

    assert changes() == []
    assert changes(command="cp data/b/two other") == ["its command"]
    assert changes(params={**params, "part.rate": 2e-4, "new": 1}) == ["part.rate", "new"]
    assert changes(deps=[*deps, "number.txt"]) == ["number.txt"]
    with (tmp_path / "files" / "deep" / "more.py").open("a") as file:
        file.write("#")
    assert changes() == ["files"]
    (tmp_path / "files" / "deep" / "more.py").write_text("deep/more.py")
    (tmp_path / "number.txt").write_text("2\n")
    assert list(Record.read().find_changes("make", "x", ["number.txt"], {})) == ["its command", "number.txt"]
    subprocess.run([sys.executable, "-m", "dvc", "repro", "--quiet", "--single-item", "make"], check=True)
    assert changes() == ["data/b"]
    assert Record.read().find_missing("use") == []
    (tmp_path / "copied").unlink()
    assert Record.read().find_missing("use") == ["copied"]


@contextlib.contextmanager
def _held(lock: Path, holder: str):
    """Hold a lock as another process would: through an open file of its own."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(holder)
        file.flush()
        yield
