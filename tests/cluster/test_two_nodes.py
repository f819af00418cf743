"""A node lost in the middle of an epoch; the script says what is checked."""

import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("how", [[], ["--silent"]])
def test_a_training_completes_on_the_node_that_is_left(how):
    command = [sys.executable, "-m", "tests.cluster.two_nodes", *how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "exactly once" in done.stdout
