"""--quiet and --verbose: before or after the verb, or by the variable for the stages that DVC starts."""

import argparse
import logging
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from pipeline.progress import Bar
from pipeline.verbosity import VARIABLE, add_options, say, set_verbosity

ROOT = Path(__file__).resolve().parent.parent.parent


def _command(*words: str, folder: Path = ROOT, level: str = "") -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), VARIABLE: level}
    command = [sys.executable, "-m", "pipeline", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], None),
        (["-q", "go"], "quiet"),
        (["go", "--quiet"], "quiet"),
        (["--verbose", "go"], "verbose"),
        (["--quiet", "go", "-v"], "verbose"),  # the last one counts
    ],
)
def test_the_options_are_read_before_and_after_the_verb(words, expected):
    parser = argparse.ArgumentParser()
    add_options(parser)
    verbs = parser.add_subparsers()
    add_options(verbs.add_parser("go"), default=argparse.SUPPRESS)
    assert parser.parse_args(words).verbosity == expected


def _speak() -> None:
    """Say something in every way in which a stage does."""
    say("trained it")
    with Bar("train it", 2, "steps") as bar:
        bar.at(2)
    warnings.warn("a library's", stacklevel=1)
    logging.getLogger("pipeline").info("a detail")
    for name in ("pipeline", "some_library"):
        logging.getLogger(name).setLevel(logging.INFO)
        logging.getLogger(name).warning("a warning of %s", name)
        logging.getLogger(name).error("an error of %s", name)
        logging.getLogger(name).setLevel(logging.NOTSET)


def _spoken(level: str) -> subprocess.CompletedProcess:
    code = f"from tests.pipeline.test_verbosity import _speak, set_verbosity\nwith set_verbosity({level!r}): _speak()"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)


def test_quiet_prints_errors_alone():
    spoken = _spoken("quiet")
    assert spoken.stdout == ""
    assert spoken.stderr.splitlines() == ["an error of pipeline", "an error of some_library"]


def test_normal_and_verbose_print_more():
    normal, verbose = _spoken("normal"), _spoken("verbose")
    assert normal.stdout == verbose.stdout == "trained it\n"
    assert "a warning of some_library" in normal.stderr
    assert "train it: 2 steps in" in normal.stderr
    assert "a detail" not in normal.stderr
    assert re.search(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} pipeline: a detail$", verbose.stderr, re.MULTILINE)


def test_quiet_prints_results_that_were_asked_for_and_no_deeds(tmp_path):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    assert _command("stop", folder=tmp_path).stdout.startswith("nothing is training")
    assert _command("stop", "--quiet", folder=tmp_path).stdout == ""
    assert _command("stop", folder=tmp_path, level="quiet").stdout == ""
    assert "edge_connect" in _command("--quiet", "generators", "--json").stdout


def test_an_unknown_value_of_the_variable_is_an_error():
    result = _command("generators", level="loud")
    assert result.returncode == 1
    assert result.stderr.startswith("generators: INPAINT_VERBOSITY is 'loud'; set it to one of quiet, normal, verbose")


def test_the_level_of_the_log_ends_with_the_command():
    with set_verbosity("quiet"):
        assert not logging.getLogger("pipeline").isEnabledFor(logging.WARNING)
    assert logging.getLogger("pipeline").isEnabledFor(logging.WARNING)
    with set_verbosity("verbose"):
        assert logging.getLogger("pipeline.stages").isEnabledFor(logging.DEBUG)
    assert not logging.getLogger("pipeline.stages").isEnabledFor(logging.INFO)
