"""Train across two Ray nodes with addresses of their own, lose one in the middle of an epoch, and check what was read.

    python -m tests.cluster.two_nodes            # kill -9 of every process of the second node
    python -m tests.cluster.two_nodes --silent   # its network goes first, so that nobody hears of its end

The nodes are namespaces of this machine (network, processes, mounts), joined by a cable. Where the system allows none,
`ray.cluster_utils` starts two nodes that share an address. Exit code 0: the run completed on the node that was left,
every sample of every epoch was consumed exactly once, and the first new step came within 90 seconds.
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.cluster.recorded import BATCH, CHECKPOINT_STEPS, RECORDS, STEPS, Consumed, read_consumed, write_shards

KILL_AT = 9  # in the second epoch of 6 steps; the newest checkpoint is that of step 8
LIMIT_SECONDS = 90
HEAD, OTHER = "10.91.0.1", "10.91.0.2"
RAY = str(Path(sys.executable).with_name("ray"))
UNSHARE = ["unshare", *(["--map-root-user"] if os.geteuid() else []), "--net", "--pid", "--mount", "--mount-proc"]
UNSHARE += ["--fork", "--kill-child"]  # all that was started inside ends with it


class Namespaces:
    """Two machines: this process's own namespaces, made by `UNSHARE`, and one more; a node of one CPU on each."""

    address = f"{HEAD}:6379"

    def __init__(self, log: Path) -> None:
        self._log = log.open("w")
        holder = subprocess.Popen([*UNSHARE, "sleep", "infinity"])
        children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children")
        _until(lambda: children.read_text().strip(), 10, "the second machine does not start")
        self._first_process = int(children.read_text())
        enter = ["nsenter", f"--target={self._first_process}", "--net", "--pid", "--mount"]
        _run("ip", "link", "add", "net0", "type", "veth", "peer", "name", "net0", "netns", str(self._first_process))
        for inside, address in (([], HEAD), (enter, OTHER)):
            _run(*inside, "ip", "address", "add", f"{address}/24", "dev", "net0")
            _run(*inside, "ip", "link", "set", "lo", "up")
            _run(*inside, "ip", "link", "set", "net0", "up")
            for private in ("/tmp/ray", "/dev/shm"):
                _run(*inside, "mount", "-t", "tmpfs", "none", private)
        os.environ["GLOO_SOCKET_IFNAME"] = "net0"  # what the host's name stands for is on neither
        self._start("--head", "--port=6379", f"--node-ip-address={HEAD}", "--include-dashboard=false")
        _until(lambda: _nodes(self.address) == 1, 240, "the head node does not answer")
        self._start(f"--address={self.address}", f"--node-ip-address={OTHER}", inside=enter)

    def _start(self, *options: str, inside: tuple[str, ...] | list[str] = ()) -> None:
        command = [*inside, RAY, "start", "--block", "--num-cpus=1", "--num-gpus=0", "--object-store-memory=100000000"]
        subprocess.Popen([*command, *options], stdout=self._log, stderr=self._log)

    def lose_one(self, *, silently: bool) -> None:
        """End every process of the second machine at once; `silently`: without a last word to the first."""
        if silently:
            _run("ip", "link", "set", "net0", "down")
        os.kill(self._first_process, signal.SIGKILL)  # the kernel ends the rest of its namespace


class OneAddress:
    """Two nodes of `ray.cluster_utils`, which share this machine's address."""

    def __init__(self, log: Path) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        self._other = self._cluster.add_node(num_cpus=1)
        self.address = self._cluster.address

    def lose_one(self, *, silently: bool) -> None:
        """Kill the second node's raylet, whose processes follow it."""
        if silently:
            raise ValueError("without namespaces there is no cable to pull; leave out --silent")
        self._cluster.remove_node(self._other, allow_graceful=False)


def lose_a_node_and_complete(folder: Path, *, namespaces: bool, silently: bool) -> str:
    """What the module says, in one line of figures. Raises AssertionError, and TimeoutError where nothing moves."""
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    os.environ |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": "200",  # a busy machine needs more than the usual 30
    }
    write_shards(folder)
    nodes = (Namespaces if namespaces else OneAddress)(folder / "nodes.log")
    _until(lambda: _nodes(nodes.address) == 2, 240, "the second node does not join")
    assert _nodes(nodes.address, RAY_AUTH_TOKEN="0" * 64) == 0, "a wrong token was let in"

    driver = subprocess.Popen(
        [sys.executable, "-m", "tests.cluster.recorded", str(folder)], env={**os.environ, "RAY_ADDRESS": nodes.address}
    )
    _until(lambda: _ranks_at(folder, KILL_AT) == {0, 1} or driver.poll() is not None, 400, "no step is reached")
    assert driver.poll() is None, "the training ended before a node was lost"
    killed = time.time()
    nodes.lose_one(silently=silently)
    assert driver.wait(timeout=300) == 0, "the training failed"
    return _check(read_consumed(folder), killed)


def _check(consumed: list[Consumed], killed: float) -> str:
    first, *later = sorted({each.attempt for each in consumed})
    assert later, "the training was not interrupted"
    sizes = {each.attempt: each.world_size for each in consumed}
    assert (sizes[first], sizes[later[-1]]) == (2, 1), f"processes of each attempt: {sizes}"
    surviving = {each.step: each.attempt for each in sorted(consumed, key=lambda each: each.attempt)}
    assert sorted(surviving) == list(range(STEPS))
    resumed = min(each.step for each in consumed if each.attempt == later[-1])
    assert resumed == KILL_AT // CHECKPOINT_STEPS * CHECKPOINT_STEPS, f"resumed at step {resumed}"
    per_epoch = RECORDS // BATCH
    everything = {f"made/{number:04d}" for number in range(RECORDS)}
    for epoch in range(STEPS // per_epoch):
        steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
        keys = Counter(
            key for each in consumed if each.step in steps and each.attempt == surviving[each.step] for key in each.keys
        )
        assert keys == Counter(everything), f"epoch {epoch}: {keys - Counter(everything)}, {everything - keys.keys()}"
    seconds = min(each.seconds for each in consumed if each.seconds > killed and each.attempt == later[-1]) - killed
    assert seconds <= LIMIT_SECONDS, f"the first new step came {seconds:.0f} s after the node was lost"
    return (
        f"lost a node after step {KILL_AT}, resumed at step {resumed} on the other {seconds:.1f} s later; "
        f"{RECORDS} samples exactly once in each of {STEPS // per_epoch} epochs"
    )


def _ranks_at(folder: Path, step: int) -> set[int]:
    return {each.rank for each in read_consumed(folder) if each.step == step}


def _nodes(address: str, **environment: str) -> int:
    """How many nodes live in the cluster; 0 if it does not answer us."""
    command = [sys.executable, "-c", _COUNT, address]
    answer = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    return int(answer.stdout or 0)


_COUNT = """
import sys
from ray._raylet import GcsClient
print(sum(node.state == 0 for node in GcsClient(sys.argv[1]).get_all_node_info(timeout=5).values()))
"""


def _until(condition: Callable[[], object], seconds: float, otherwise: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{otherwise} in {seconds:.0f} s")
        time.sleep(0.2)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def main() -> int:
    """Run it, inside namespaces where they are allowed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--silent", action="store_true", help="the node's network goes before its processes do")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.inside:
        Path("/tmp/ray").mkdir(exist_ok=True)
        probe = [*UNSHARE, "mount", "-t", "tmpfs", "none", "/tmp/ray"]
        if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
            module = [sys.executable, "-m", "tests.cluster.two_nodes", "--inside", *sys.argv[1:]]
            os.execvp(UNSHARE[0], [*UNSHARE, *module])
        print("no namespaces here: two nodes with one address", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        try:
            print(lose_a_node_and_complete(Path(folder), namespaces=options.inside, silently=options.silent))
        except (AssertionError, TimeoutError) as error:
            print(Path(folder, "nodes.log").read_text(), error, sep="\n", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
