"""The command line: errors that a user can mend are one line, defects keep their traceback."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from datasets.maps.edges import EdgeConfig, canny_edges
from files.errors import UserError
from pipeline.__main__ import main
from pipeline.stages import ingest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def fails(tmp_path, monkeypatch):
    """Run the verb ingest with an error in it."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)

    def run(work) -> int:
        monkeypatch.setattr(ingest, "run", lambda params: work())
        return main(["ingest"])

    return run


def _raised(error: Exception):
    def work():
        raise error

    return work


@pytest.mark.parametrize("error", [UserError("such a disk"), OSError(errno.ENOSPC, "such a disk")])
def test_an_error_that_a_user_can_mend_is_one_line_and_a_page(fails, capsys, error):
    assert fails(_raised(error)) == 1
    said, page = capsys.readouterr().err.splitlines()
    assert said.startswith("ingest: ")
    assert "such a disk" in said
    assert page.startswith("see docs/")


@pytest.mark.parametrize(
    "work",
    [
        lambda: canny_edges(np.zeros(3), EdgeConfig()),  # raised by code of ours, on purpose, for a caller's mistake
        lambda: list(zip([1], [], strict=True)),
        _raised(RuntimeError("a defect")),
        _raised(FileNotFoundError(errno.ENOENT, "a file that we forgot to write")),
        _raised(BrokenPipeError(errno.EPIPE, "a worker that has died")),  # not the reader of the output
    ],
)
def test_a_defect_keeps_its_traceback(fails, work):
    with pytest.raises((ValueError, RuntimeError, FileNotFoundError, BrokenPipeError)) as error:
        fails(work)
    assert not isinstance(error.value, UserError)


def test_a_reader_that_goes_away_is_no_defect():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "pipeline", "datasets", "--json"]
    result = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (result.returncode, result.stderr) == (141, "")
