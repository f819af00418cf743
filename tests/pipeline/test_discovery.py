"""Verbs are found by their files' names and declarations."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.discovery import _read_declaration, find_verbs

ROOT = Path(__file__).resolve().parent.parent.parent
STAGES = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text())["stages"]


def test_every_file_of_verbs_declares_one_and_runs_it():
    names = {path.stem for path in (ROOT / "pipeline" / "verbs").glob("[!_]*.py")}
    verbs = find_verbs()
    assert names <= verbs.keys()
    for verb in verbs.values():
        assert verb.help
        assert verb.example.split()[0] == verb.name
        text = (ROOT / f"{verb.module.replace('.', '/')}.py").read_text()
        assert f"def main(params: {'Params' if verb.reads_params else 'None'}, arguments: Namespace) -> int:" in text


def test_every_stage_of_dvc_is_a_verb():
    verbs = find_verbs()
    for stage in STAGES.values():
        python, option, package, name, *words = stage.get("do", stage)["cmd"].split()
        assert (python, option, package) == ("python", "-m", "pipeline")
        assert name in verbs
        options = [of_one for argument, of_one in verbs[name].arguments.items() if not argument.startswith("-")]
        assert sum(of_one.get("nargs") != "?" for of_one in options) <= len(words) <= len(options)


def test_precompute_offers_the_stages_that_have_no_verb_of_their_own():
    stages = {path.stem for path in (ROOT / "pipeline" / "stages").glob("[!_]*.py")}
    verbs = find_verbs()
    assert set(verbs["precompute"].arguments["column"]["choices"]) == stages - verbs.keys()


def test_a_declaration_is_read_and_not_run(tmp_path):
    path = tmp_path / "made.py"
    path.write_text('raise RuntimeError("imported")\nVERB = {"help": "made", "example": "made"}\n')
    assert _read_declaration(path) == {"help": "made", "example": "made"}
    path.write_text("VERB = print('run')\n")
    with pytest.raises(ValueError, match="malformed node"):
        _read_declaration(path)
    path.write_text("run = 1\n")
    assert _read_declaration(path) is None
