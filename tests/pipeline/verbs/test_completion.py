"""The printed script completes command lines in a real bash."""

import shlex
import subprocess
from pathlib import Path

import pytest

from jobs.generators import names
from pipeline.discovery import find_verbs
from pipeline.verbs.completion import render

ROOT = Path(__file__).resolve().parent.parent.parent.parent
PRESETS = [path.stem for path in sorted((ROOT / "conf" / "dataset").glob("*.yaml"))]

# The words that bash has split the command line into -> the completions of the last one. bash splits at "=".
CASES = {
    "python -m pipeline ''": sorted(find_verbs()),
    "python -m pipeline sta": ["status"],
    "python3 -m pipeline -q trai": ["train"],
    "python -m pipeline train edge": ["edge_connect"],
    "python -m pipeline stop ''": list(names()),
    "python -m pipeline evaluate base": ["baselines"],
    "python -m pipeline configure dataset = fol": ["folder"],
    "python -m pipeline configure dataset =": PRESETS,
    "python -m pipeline configure scale = demo generators = edge": ["edge_connect"],
    "python -m pipeline datasets pla": ["places2"],
    "python -m pipeline report --": [
        "--help",
        "--partial",
        "--format",
        "--open",
        "--against",
        "--max-regression",
        "--quiet",
        "--verbose",
    ],
    "python -m pipeline inpaint photo.png hole.png --hole ''": ["white", "black"],
    "python -m pipeline inpaint photo.png pyproj": ["pyproject.toml"],
    "python -m pytest sta": [],
    "python sta": [],
}


def test_bash_completes_command_lines(tmp_path):
    script = tmp_path / "script.bash"
    script.write_text(render("bash"))
    lines = [f"source {script}", "complete -p python python3"]
    for words in CASES:
        number = len(shlex.split(words)) - 1
        lines.append(f"COMP_WORDS=({words}); COMP_CWORD={number}; COMPREPLY=(); _inpaint_foundry")
        lines.append('echo "${COMPREPLY[@]}"')
    command = ["bash", "--norc", "--noprofile", "-c", "\n".join(lines)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stderr == ""
    *registered, rest = result.stdout.split("\n", 2)
    assert all("-F _inpaint_foundry python" in line for line in registered)
    found = dict(zip(CASES, (line.split() for line in rest.splitlines()), strict=True))
    assert found == CASES


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_every_script_knows_verbs_generators_and_presets(shell):
    script = render(shell)
    for word in ("takedown", "edge_connect", "dataset=folder", "generators=all", "partial"):
        assert word in script
    assert "python" in script.splitlines()[-1]
