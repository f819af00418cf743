"""Each stage's `deps` name all that can change its outputs; no name in params.yaml becomes a path or a command."""

import ast
import json
import os
import re
import shutil
import sys
from dataclasses import fields
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from datasets.shards.manifest import read_manifest
from files.checkout import FOLDERS
from jobs.evaluation.metrics.value import Value
from jobs.evaluation.results import OVERALL, Group, Summary
from jobs.evaluation.settings import EvaluateConfig, RowsConfig
from jobs.generators import card, names
from jobs.report.plots import plot_tables
from jobs.training.settings import WITHOUT_EFFECT, TrainConfig
from pipeline.code import stage_code
from pipeline.stages import evaluate
from tests.jobs.report.pages import full_page
from tests.pipeline.pictures import tree, write_pictures

ROOT = Path(__file__).resolve().parent.parent
STAGES = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text())["stages"]
MODULES = {"baselines": "evaluate", "others": "evaluate", "suites": "suite", "reports": "report"}
BASELINE_NAMES = ("telea", "mean_colour")

# Code that every stage imports and that cannot change what a stage writes, with the reason. Not followed further.
INERT = {
    "files/errors.py": "names a kind of error",
    "pipeline/code.py": "tells which code makes an output",
    "pipeline/inputs.py": "refuses to write outputs and changes none",
    "pipeline/browser.py": "opens a page",
    "pipeline/against.py": "compares results on the terminal, and writes nothing",
    "pipeline/partial.py": "describes an unfinished run, of which the stage writes nothing",
    "pipeline/params.py": "parses; the values it hands on are the stage's `params`",
    "pipeline/layout.py": "names of folders, which are the stage's `outs`",
    "pipeline/columns.py": "refuses columns and changes none",
    "pipeline/suite_files.py": "parses a file of conf/suite, which the stage declares",
    "pipeline/trained.py": "refuses receipts and changes none",
    "pipeline/lineage/card.py": "describes a version to the tracking server",
    "pipeline/lineage/evaluations.py": "carries the figures of a version to the tracking server",
    "pipeline/lineage/pictures.py": "indexes records, beside the outputs",
    "pipeline/lineage/records.py": "writes the record of a stage, which decides no other output",
    "pipeline/lineage/statement.py": "writes the record of a stage, which decides no other output",
    "pipeline/progress.py": "prints",
    "pipeline/start.py": "refuses what a later stage would refuse",
    "pipeline/verbosity.py": "prints",
    "pipeline/writing.py": "passes folders, workers and code digests to the room that writes columns",
    "jobs/checks/fitness.py": "refuses columns and changes none",
    "jobs/checks/footprint.py": "counts the steps and parameters of a recipe, which is declared",
    "jobs/runs/agreement.py": "finds the newest checkpoint; a training ends with the same weights from any",
    "jobs/runs/checkpoint_copier.py": "copies checkpoints to a store",
    "jobs/runs/checkpoint_store.py": "copies checkpoints to a store and back, the same bytes",
    "jobs/runs/checkpoint_writer.py": "writes checkpoints in a thread",
    "jobs/runs/claim.py": "lets one process at a time run a training",
    "jobs/runs/experiment.py": "finds the folder of a training, which is no output",
    "jobs/runs/folder.py": "names files in that folder",
    "jobs/runs/note.py": "tells other processes about a training",
    "jobs/runs/history.py": "keeps copies of records",
    "jobs/runs/roll_call.py": "names processes that others wait for",
    "jobs/runs/stopping.py": "decides after which step a training rests; it ends with the same weights",
    "jobs/tracking/address.py": "names the tracking server",
    "jobs/tracking/delivery.py": "carries what training wrote to the tracking server",
    "jobs/tracking/queue.py": "keeps trainings that wait for the tracking server",
    "jobs/tracking/staging.py": "writes what the tracking server gets",
    "jobs/tracking/sync.py": "carries what training wrote to the tracking server",
    "jobs/tracking/training_run.py": "describes a training to the tracking server",
    "jobs/tracking/mlflow_registry.py": "registers models at the tracking server",
    "jobs/tracking/mlflow_runs.py": "writes to the tracking server",
    "jobs/cluster/gpus.py": "refuses a machine without GPUs",
    "jobs/cluster/kept.py": "runs functions somewhere",
    "jobs/cluster/launch.py": "runs functions somewhere; how many processes train is a parameter",
    "jobs/cluster/work.py": "describes work and its failures",
    "jobs/cluster/network.py": "chooses network interfaces",
    "jobs/cluster/sharing.py": "chooses how many processes train, which changes weights by rounding only",
    "pipeline/workers.py": "applies jobs/cluster/sharing.py to one training",
    "jobs/cluster/settings.py": "declares parameters; their values are the stage's `params`",
    "jobs/training/settings.py": "declares parameters; their values are the stage's `params`",
    "jobs/evaluation/settings.py": "declares parameters; their values are the stage's `params`",
    "jobs/generators/__init__.py": "finds a folder by its name",
    "jobs/generators/context_encoder/__init__.py": "declares its own paper's values; neural_patch_synthesis passes all",
}


def sources(module: str) -> list[Path]:
    """The files that an import of a dotted name runs, of this repository."""
    found = []
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        base = ROOT.joinpath(*parts[:end])
        found += [path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()]
    return [path for path in found if path.read_text().strip()]


def imported(path: Path) -> set[Path]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {source for name in names for source in sources(name)}
    return found


def closure(paths: set[Path]) -> set[str]:
    seen: set[str] = set()
    waiting = list(paths)
    while waiting:
        path = waiting.pop()
        name = path.relative_to(ROOT).as_posix()
        if name not in seen and name not in INERT:
            seen.add(name)
            waiting += imported(path)
    return seen


def cases():
    for stage, body in STAGES.items():
        keys = {"${generators}": names(), "${suites}": ["photos"]}[body["foreach"]] if "foreach" in body else [""]
        for key in keys:
            yield pytest.param(stage, body.get("do", body), key, id=f"{stage}@{key}" if key else stage)


@pytest.mark.parametrize(("stage", "body", "key"), list(cases()))
def test_every_stage_declares_its_code_and_its_packages(stage, body, key):
    deps = [dep.replace("${key}", key).replace("${item}", key) for dep in body["deps"]]
    roots = {ROOT / "pipeline" / "stages" / f"{MODULES.get(stage, stage)}.py"}
    if key:
        roots |= set((ROOT / "jobs" / "generators" / key).glob("*.py"))
    missing = [
        name for name in sorted(closure(roots)) if not any(name == dep or name.startswith(f"{dep}/") for dep in deps)
    ]
    assert not missing, f"{stage} does not declare {missing}"
    assert "requirements.lock" in deps
    for dep in deps:
        assert dep.startswith(("$", "shards", "models", "results", "curves", "suites")) or (ROOT / dep).exists(), dep


def test_a_training_is_the_same_experiment_while_the_code_that_its_stage_declares_stays():
    code = set(stage_code("train", "csa"))
    assert {
        "jobs/recipe/losses.py",
        "jobs/generators/csa/networks.py",
        "masks/strokes.py",
        "datasets/stream/plan.py",
    } <= code
    assert not code & {
        "jobs/runs/stopping.py",
        "jobs/tracking/delivery.py",
        "jobs/cluster/launch.py",
        "pipeline/progress.py",
    }
    assert {name.split("/")[2] for name in code if name.startswith("jobs/generators/")} == {
        "build.py",
        "csa",
        "context_encoder",  # three files, for the generator that is built on it
    }
    assert closure({ROOT / "jobs/training/loop.py"}) <= code


@pytest.mark.parametrize("stage", ["baselines", "evaluate", "others", "report"])
def test_the_code_of_training_cannot_make_an_evaluation_stale(stage):
    """An edit in the loader's shared memory, for one, changes no metric."""
    generators = names() if "foreach" in STAGES[stage] else [""]
    assert not [name for key in generators for name in stage_code(stage, key) if name.startswith("jobs/training/")]


def test_a_paper_that_another_one_uses_is_declared_but_for_its_card():
    for name in names():
        for other in getattr(card(name), "USES", ()):
            files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "jobs/generators" / other).glob("*.py")}
            for stage in ("train", "evaluate"):
                assert files - set(stage_code(stage, name)) == {f"jobs/generators/{other}/__init__.py"}


def test_a_content_network_takes_no_default_of_context_encoder():
    """Hence its card is inert: only its own stages depend on the defaults."""
    from jobs.generators.neural_patch_synthesis import recipe

    tree = ast.parse(Path(recipe.__file__).read_text(encoding="utf-8"))
    (call,) = (n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "context_encoder.Config")
    assert {keyword.arg for keyword in call.keywords} == {f.name for f in fields(card("context_encoder").Config)}


def test_inert_code_exists():
    assert all((ROOT / path).is_file() for path in INERT)


def test_watched_paths_are_the_only_values_of_params_that_reach_dvc_beside_names():
    names = set(re.findall(r"\$\{([^}]*)\}", (ROOT / "dvc.yaml").read_text()))
    assert names == {"generators", "suites", "key", "item", "dataset.watch", "evaluate.rows.watch"}


def test_every_package_that_a_stage_imports_is_in_the_lock():
    """`packages_distributions` says which distribution a module comes from."""
    pinned = {line.split("==")[0] for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line}
    owners = packages_distributions()
    floors = set(FOLDERS)
    checked = set()
    for path in (path for floor in sorted(floors) for path in (ROOT / floor).rglob("*.py")):
        for module in modules(path) - floors - set(sys.stdlib_module_names):
            names = {re.sub(r"[-_.]+", "-", name).lower() for name in owners.get(module, [])}
            assert names & pinned, f"{path.relative_to(ROOT)} imports {module}, which no locked package provides"
            checked.add(module)
    assert {"torch", "numpy", "pyarrow", "webdataset"} <= checked


def modules(path: Path) -> set[str]:
    """First words of everything that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.split(".")[0])
    return found


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A DVC project of this code in a folder of its own, with something at every place that `train` depends on."""
    from dvc.repo import Repo

    folder = tmp_path / "project"
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".dvcignore", "dvc.yaml", "params.yaml", "requirements.lock", "tombstones.jsonl"):
        shutil.copy(ROOT / name, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    Repo.init(no_scm=True).close()
    return folder


HOSTILE = ("../../beside", "x; touch canary", "$(touch canary)", "`touch canary`", "a\nb", "../pipeline", "-h")


def _files(folder):
    return sorted(p for p in folder.rglob("*") if not {".dvc", "__pycache__", "dvc.lock"} & set(p.parts))


def test_names_in_params_become_no_path_and_no_command_of_dvc(project):
    """Neither with everything else still to be made, nor with all that `train` depends on in place."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    for folder in (Path("beside"), project.parent / "beside"):  # such that the paths of the first name exist
        folder.mkdir()
        (folder / "kept").touch()
    for dep in ("shards/image/train", "shards/edges", "shards/labels"):
        Path(dep).mkdir(parents=True)
        Path(dep, "file").touch()
    yaml = YAML(typ="safe", pure=True)
    tree = yaml.load(Path("params.yaml"))
    for name in HOSTILE:
        yaml.dump({**tree, "generators": {name: {}}}, Path("params.yaml"))
        before = _files(project.parent)
        # DVC looks for overlapping outputs first, which the paths of a name with .. always are. The others lead to
        # no folder in jobs/generators, without which their command does not run.
        with Repo() as repo, pytest.raises(DvcException) as error:
            repo.reproduce([f"train@{name}"], single_item=".." not in name)
        assert ".." in name or isinstance(error.value.__cause__, FileNotFoundError)
        assert _files(project.parent) == before
    shutil.rmtree("shards")
    with Repo() as repo, pytest.raises(DvcException, match="failed to reproduce 'ingest'"):
        repo.reproduce([f"train@{HOSTILE[-1]}"])
    assert not [path for path in project.parent.rglob("*") if path.name == "canary"]


def test_names_on_the_command_line_are_compared_and_no_more(tmp_path, monkeypatch, capsys):
    from pipeline.__main__ import main

    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.parent.rglob("*"))
    for name in HOSTILE:
        for words in (["train", "--", name], ["evaluate", "--", name], ["takedown", "--reason", "x", "--", name]):
            assert main(words) == 1
            lines = capsys.readouterr().err.splitlines()
            assert [line.startswith("see docs/") for line in lines] == [False, True]
    assert sorted(tmp_path.parent.rglob("*")) == before


def _small_data_set(project: Path) -> None:
    """Forty pictures of a folder, in this process."""
    write_pictures(project / "pictures")
    text = Path("params.yaml").read_text().replace("name: photos\n  root: null", "name: folder\n  root: pictures")
    text = text.replace("\n  size: 64", "\n  size: 32").replace("records_per_shard: 56", "records_per_shard: 7")
    Path("params.yaml").write_text(text.replace("num_workers: 2", "num_workers: 0"))


def test_every_setting_of_training_that_can_change_an_output_is_a_parameter_of_the_stage():
    """And the two that cannot are none, nor are they part of what makes two trainings the same."""
    declared = {key.partition(".")[2] for key in STAGES["train"]["do"]["params"] if key.startswith("train.")}
    assert declared == {each.name for each in fields(TrainConfig)} - set(WITHOUT_EFFECT)
    assert declared == set(TrainConfig().describe())
    written = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text())["train"]
    assert declared <= set(written), "DVC wants every declared parameter in the file"
    assert TrainConfig(sample_steps=1, checkpoint_steps=7).describe() == TrainConfig().describe()
    assert TrainConfig(log_steps=7).describe() != TrainConfig().describe()


@pytest.mark.parametrize("stage", ["evaluate", "baselines", "others"])
def test_every_setting_of_evaluation_is_a_parameter_of_the_stage_that_uses_it(stage):
    """And adding a row makes no other row stale."""
    declared = {key for key in STAGES[stage].get("do", STAGES[stage])["params"] if key.startswith("evaluate.")}
    own = {
        "evaluate": {"evaluate.rows.guided", "evaluate.rows.untrained", "evaluate.precision"},
        "baselines": {"evaluate.baselines", "evaluate.seconds_per_fill"},
        "others": {"evaluate.rows"},
    }
    names = {f"evaluate.{each.name}" for each in fields(EvaluateConfig)}
    assert declared == (names - {"evaluate.rows", "evaluate.precision"} - own["baselines"]) | own[stage]
    written = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text())["evaluate"]
    assert names == {f"evaluate.{name}" for name in written}, "DVC wants every declared parameter in the file"
    assert set(written["rows"]) == {each.name for each in fields(RowsConfig)}


def test_metrics_are_one_line_per_row_with_equal_columns(project, capsys):
    """With the real command, of files as the stage `evaluate` writes them."""
    from dvc.cli import main

    row = {"l1_hole_percent": 5.25, "psnr": 24.5, "ssim": 0.875}
    overall = {name: Value(mean) for name, mean in {**row, "l1_percent": 1.0, "tv_true_percent": 3.0}.items()}
    groups = {OVERALL: Group(6, overall), "0.1-0.2": Group(1, overall)}
    names = ("deepfill_v2", "edge_connect", "unet")
    for name in names:
        evaluate._write_metrics(Path("metrics"), name, Summary("", 1, {name: groups, f"{name}_untrained": groups}))
    evaluate._write_metrics(Path("metrics"), "baselines", Summary("", 1, {"telea": groups, "mean_colour": groups}))
    evaluate._write_metrics(Path("metrics"), "others", Summary("", 1, {}))  # no other row
    assert main(["metrics", "show"]) == 0
    heading, *lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert heading == ["Path", *row]
    paths = [*(f"metrics/{name}.json" for name in names), *(f"metrics/baselines/{n}.json" for n in BASELINE_NAMES)]
    assert sorted(lines) == sorted([path, "5.25", "24.5", "0.875"] for path in paths)


def test_the_charts_of_the_page_are_drawn_by_dvc_with_their_intervals(project):
    """With the real command, and the templates of this repository."""
    from dvc.cli import main

    shutil.copytree(ROOT / ".dvc" / "plots", project / ".dvc" / "plots")
    for name, table in plot_tables(full_page("x")).items():
        (project / "report" / "plots" / name).parent.mkdir(parents=True, exist_ok=True)
        (project / "report" / "plots" / name).write_text(table)
    for plot, x in {
        "report/plots/bins": "bin",
        "L1 in hole over images seen": "images_seen",
        "L1 in hole over parameters": "parameters",
    }.items():
        assert main(["plots", "show", plot, "-o", "drawn"]) == 0
        page = Path("drawn/index.html").read_text()
        chart, _ = json.JSONDecoder().raw_decode(page.partition("var spec = ")[2])
        assert chart["encoding"]["x"]["field"] == x
        assert {layer["encoding"]["y"]["field"] for layer in chart["layer"]} == {"mean", "low"}
        values = chart["data"]["values"]
        assert {"row", x, "mean", "low", "high", "rev"} <= set(values[0])
        assert "<DVC_" not in json.dumps(chart)


def test_label_maps_are_made_only_for_generators_that_read_them(project, monkeypatch, capsys):
    """A change of other generators makes none of the files change that trainings depend on."""
    from pipeline.__main__ import main

    def labels(generators: str) -> dict[str, str]:
        text = Path("params.yaml").read_text()
        Path("params.yaml").write_text(re.sub(r"generators:\n.*?(?=^seed)", generators, text, flags=re.S | re.M))
        assert main(["precompute", "semantics"]) == 0
        return {path.stem: path.read_text() for path in Path("shards/labels").iterdir()}

    _small_data_set(project)
    assert main(["ingest"]) == 0
    plain = labels("generators:\n  csa: {}\n  deepfill_v2: {width: 8}\n")
    assert plain == dict.fromkeys(("csa", "deepfill_v2"), "reads no label maps\n")
    assert [path.name for path in Path("shards/semantics").iterdir()] == ["README.txt"]
    assert "none of the generators reads label maps" in capsys.readouterr().out
    both = labels("generators:\n  csa: {}\n  sge_net: {width: 8}\n  saca: {supervision_weight: 0.1}\n")
    assert both["csa"] == plain["csa"]
    assert both["sge_net"] == both["saca"] == read_manifest(Path("shards/semantics/train")).digest + "\n"
    made = {path: path.stat().st_mtime_ns for path in Path("shards/semantics").rglob("*.tar")}
    again = labels("generators:\n  csa: {batch_size: 2}\n  sge_net: {width: 16}\n  saca: {}\n")
    assert again == {**both, "saca": plain["csa"]}
    assert {path: path.stat().st_mtime_ns for path in Path("shards/semantics").rglob("*.tar")} == made
    assert made


@pytest.mark.slow
def test_dvc_trains_again_only_what_a_change_can_change(project, monkeypatch):
    """Not for how often sample pictures are drawn, nor for label maps that another generator reads."""
    from dvc.repo import Repo

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/mlflow.db")
    plain = "  deepfill_v2: {width: 4, d_width: 4, batch_size: 4, steps: 2}\n"
    labelled = "  sge_net: {num_classes: 8, width: 4, d_width: 4, batch_size: 4, steps: 2}\n"
    _small_data_set(project)
    text = Path("params.yaml").read_text().replace("train_workers: 2", "train_workers: 0")
    text = re.sub(r"generators:\n.*?(?=^seed)", f"generators:\n{plain}", text, flags=re.S | re.M)

    def reproduce(content: str) -> set[str]:
        Path("params.yaml").write_text(content)
        with Repo() as repo:
            made = {stage.addressing for stage in repo.reproduce(["train"])}
            assert repo.status(["train"]) == {}
        return made

    assert reproduce(text) == {"ingest", "edges", "semantics", "train@deepfill_v2"}
    assert [path.name for path in Path("shards/semantics").iterdir()] == ["README.txt"]
    assert reproduce(text.replace("sample_steps: 200", "sample_steps: 7")) == set()
    assert reproduce(text.replace("checkpoint_steps: 500", "checkpoint_steps: 7")) == set()
    semantic = text.replace(plain, plain + labelled)
    assert reproduce(semantic) == {"semantics", "train@sge_net"}
    assert reproduce(semantic.replace("source: kmeans", "source: kmeans\n  num_clusters: 7")) == {
        "semantics", "train@sge_net"
    }  # fmt: skip
    assert reproduce(text) == {"semantics"}


@pytest.mark.slow
def test_dvc_leaves_the_columns_of_edges_alone_that_do_not_change(project):
    from dvc.repo import Repo

    def shards(column: str) -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in Path("shards/edges", column).rglob("*.tar")}

    _small_data_set(project)
    with Repo() as repo:
        repo.reproduce(["edges"])
    before, digests = shards("edge"), tree()
    text = Path("params.yaml").read_text()
    assert before
    Path("params.yaml").write_text(text.replace("edges:\n", "edges:\n  fine:\n    sigma: 1.0\n"))
    with Repo() as repo:
        assert [stage.name for stage in repo.reproduce(["edges"])] == ["edges"]
        assert repo.status(["edges"]) == {}
    assert shards("edge") == before
    assert len(shards("fine")) == len(before)
    Path("params.yaml").write_text(text)
    with Repo() as repo:
        repo.reproduce(["edges"])
    assert shards("edge") == before
    assert tree() == digests


@pytest.mark.slow
def test_after_a_takedown_and_its_commit_dvc_has_nothing_to_do(project):
    """And without the commit, ingest runs again and writes the very bytes that takedown left."""
    from dvc.repo import Repo

    from pipeline.params import read_params
    from pipeline.verbs import takedown

    _small_data_set(project)
    stages = ["ingest", "edges", "semantics", "masks"]
    with Repo() as repo:
        repo.reproduce(stages)
        assert repo.status(stages) == {}
    assert [each.key for each in takedown.run(read_params(), ["train/003"], "asked").removed] == ["train/003"]
    left = tree()
    with Repo() as repo:
        assert set(repo.status(stages)) == set(stages)
        for stage in stages:
            repo.commit(stage, force=True)
        assert repo.status(stages) == {}
        assert repo.reproduce(stages) == []
    assert tree() == left
    with Repo() as repo:
        repo.reproduce(["ingest"], force=True)
    assert {path: digest for path, digest in tree().items() if "/image/" in path} == {
        path: digest for path, digest in left.items() if "/image/" in path
    }
