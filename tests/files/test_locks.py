"""A lock is refused at once while another process holds it, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from files.locks import BusyError, hold_lock

ROOT = Path(__file__).resolve().parent.parent.parent
HOLDER = """
import sys
from pathlib import Path
from files.locks import hold_lock
with hold_lock(Path(sys.argv[1]), "shards/image", is_shared=sys.argv[2] == "shared"):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(path, kind):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, path, kind], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_process_is_refused_with_the_name_of_the_first(tmp_path):
    path = tmp_path / "shards" / ".image.lock"
    with holder(path, "alone") as first:
        for is_shared in (False, True):
            with (
                pytest.raises(BusyError, match=rf"process {first.pid} on .* uses shards/image; wait until"),
                hold_lock(path, "shards/image", is_shared=is_shared),
            ):
                pass
        os.kill(first.pid, signal.SIGKILL)
    with hold_lock(path, "shards/image"):  # the lock of a killed process is free
        assert path.read_text() == f"process {os.getpid()} on {os.uname().nodename}"
    assert not (tmp_path / "shards").exists()


def test_readers_share_a_lock_and_keep_a_writer_out(tmp_path):
    path = tmp_path / "lock"
    with holder(path, "shared") as first:
        with hold_lock(path, "it", is_shared=True):
            pass
        with pytest.raises(BusyError), hold_lock(path, "it"):
            pass
        first.stdin.close()
    assert not path.exists()
