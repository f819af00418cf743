"""Every model can be traced to its sources and every picture to its uses; every changed byte is named."""

import hashlib
import json
import re
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from datasets.shards.column import Column
from datasets.stream.plan import Plan, positions
from files.durable import file_digest
from jobs.runs.history import history_folder, list_versions
from jobs.runs.receipt import read_receipt
from pipeline.__main__ import main
from pipeline.lineage import page
from pipeline.lineage.checks import NOTHING, check_everything, list_unlisted
from pipeline.lineage.graph import Graph, Node
from pipeline.params import read_params
from pipeline.verbs import lineage, takedown, verify
from tests.pipeline.lineage.finished import GENERATOR, MODEL, prepare, run_all

VERSION = f"{MODEL}@candidate"


@pytest.fixture(scope="module")
def made(tmp_path_factory, empty_database):
    """The folder of a finished pipeline, as the working folder."""
    folder = tmp_path_factory.mktemp("made")
    prepare(folder, empty_database)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        run_all()
        yield folder


def flip(path):
    """Change one byte in the middle of a file."""
    content = bytearray(Path(path).read_bytes())
    content[len(content) // 2] ^= 1
    Path(path).write_bytes(content)


def first_broken():
    return next((check for check in check_everything() if check.is_broken), None)


LOCAL = (
    "shards/image/train/image-000001.tar",
    "shards/image/train/manifest.json",
    "shards/image/val/records.parquet",
    "shards/edges/edge/train/edge-000000.tar",
    "shards/mask/val/mask-000000.tar",
    "shards/mask/val/manifest.json",
    f"models/{GENERATOR}/weights.safetensors",
    f"models/{GENERATOR}/receipt.json",
    f"results/{GENERATOR}/summary.json",
    f"results/{GENERATOR}/per_image.parquet",
    "results/baselines/gallery/gallery-000000.tar",
    f"metrics/{GENERATOR}.json",
    "report/index.html",
    "tombstones.jsonl",
    "provenance/ingest.json",
    f"provenance/train/{GENERATOR}.json",
)


@pytest.mark.parametrize("name", LOCAL)
def test_a_flipped_byte_of_a_finished_pipeline_is_named(made, name):
    before, digest = Path(name).read_bytes(), file_digest(Path(name))
    try:
        flip(name)
        broken = first_broken()
        assert broken.link == name
        assert broken.found == file_digest(Path(name)) != digest
        assert broken.expected == digest
    finally:
        Path(name).write_bytes(before)


def test_what_is_missing_extra_or_set_otherwise_is_named(made):
    weights = Path("models", GENERATOR, "weights.safetensors")
    moved = weights.rename("kept")
    assert (first_broken().link, first_broken().found) == (str(weights), "missing")
    moved.rename(weights)
    extra = Path("shards/image/train/image-000009.tar")
    extra.write_bytes(b"more")
    assert (first_broken().link, first_broken().expected) == (str(extra), "no such file")
    extra.unlink()
    params = Path("params.yaml").read_text()
    Path("params.yaml").write_text(params.replace("sigma: 2.0", "sigma: 1.0"))
    broken = first_broken()
    assert (broken.link, broken.expected, broken.found) == ("params.yaml: edges.edge.sigma", "2.0", "1.0")
    Path("params.yaml").write_text(params)
    record = next(history_folder().glob("statements/edges-*.json"))
    kept = record.read_bytes()
    flip(record)
    assert first_broken().link == f"lineage/statements/{record.name}"
    record.write_bytes(kept)
    tables = list(history_folder().glob("pictures/*.parquet"))
    assert len(tables) == 2 * 2
    for table in tables:
        kept = table.read_bytes()
        flip(table)
        assert first_broken().link == f"lineage/pictures/{table.name}"
        table.write_bytes(kept)
    assert first_broken() is None


def test_a_changed_record_of_a_registration_is_named(made, capsys):
    (record,) = history_folder().glob(f"versions/{MODEL}-1-*.json")
    kept = record.read_bytes()
    try:
        record.write_bytes(kept.replace(b'"licence": "', b'"licence": "x'))
        (broken,) = verify.verify_model(VERSION).broken
        assert (broken.link, broken.by) == (f"{MODEL}@1: tag licence", f"lineage/versions/{record.name}")
        record.write_bytes(kept.replace(b":", b";", 1))
        assert main(["verify", "model", VERSION]) == 1
        assert f"lineage/versions/{record.name} is not a record of a registered version" in capsys.readouterr().err
    finally:
        record.write_bytes(kept)


def test_outputs_of_a_generator_that_is_listed_no_more_are_compared_with_their_records(made):
    params, weights = Path("params.yaml").read_text(), Path("models", GENERATOR, "weights.safetensors")
    tree, before = YAML(typ="safe", pure=True).load(params), weights.read_bytes()
    try:
        YAML(typ="safe", pure=True).dump(tree | {"generators": {"unet": {}}}, Path("params.yaml"))
        stale = {check.by for check in check_everything() if check.is_broken}
        assert not stale & {f"provenance/{stage}/{GENERATOR}.json" for stage in ("train", "evaluate")}
        assert list_unlisted() == [f"train@{GENERATOR}", f"evaluate@{GENERATOR}"]
        assert [note.partition(":")[0] for note in verify.verify_all().notes] == list_unlisted()
        flip(weights)
        assert str(weights) in [check.link for check in check_everything() if check.is_broken]
    finally:
        weights.write_bytes(before)
        Path("params.yaml").write_text(params)


REGISTERED = {
    "data/*/weights.safetensors": f"data/{GENERATOR}/weights.safetensors",
    "data/*/receipt.json": f"data/{GENERATOR}/receipt.json",
    "data/*/provenance.json": f"data/{GENERATOR}/provenance.json",
    "data/*/README.md": f"data/{GENERATOR}/README.md",
    "input_example.json": "input_example.json",
    "code/*/jobs/recipe/padding.py": "jobs/recipe/padding.py",
    "MLmodel": "MLmodel",
    "SHA256SUMS": "SHA256SUMS",
}
OF_THE_RUN = {
    "*/artifacts/params.json": "params.json of its run",
    "*/artifacts/code/code.zip": "code.zip of its run",
    "*/artifacts/model_card.md": "model_card.md of its run",
    "*/artifacts/evaluations/*/summary.json": "summary.json of the suite",
}


@pytest.mark.parametrize("pattern", [*REGISTERED, *OF_THE_RUN])
def test_a_flipped_byte_of_a_registered_version_is_named(made, pattern):
    models = pattern in REGISTERED
    folder = made / "mlartifacts"
    (path,) = folder.glob(f"models/*/artifacts/{pattern}") if models else (
        found for found in folder.glob(pattern)
        if any((parent / "requirements.txt").is_file() for parent in found.parents[:3])
    )  # fmt: skip
    before = path.read_bytes()
    try:
        flip(path)
        (first, *_) = verify.verify_model(VERSION).broken
        assert first.link.startswith(f"{MODEL}@1: ")
        assert {**REGISTERED, **OF_THE_RUN}[pattern] in first.link
        assert first.found == file_digest(path)
        assert first.expected == hashlib.sha256(before).hexdigest()
    finally:
        path.write_bytes(before)


def test_a_changed_tag_of_a_version_is_named(made):
    with sqlite3.connect("mlflow.db") as database:
        database.execute("update model_version_tags set value = 'x' || value where key = 'git_commit'")
    assert verify.verify_model(VERSION).broken[0].link == f"{MODEL}@1: tag git_commit"
    with sqlite3.connect("mlflow.db") as database:
        database.execute("update model_version_tags set value = substr(value, 2) where key = 'git_commit'")
    result = verify.verify_all()
    assert result.broken == ()
    assert result.notes == ()
    assert result.checks > 500


def test_a_version_is_traced_to_every_source_without_the_tracking_server(made, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    graph = lineage.trace("model", f"{MODEL}@1")
    kinds = {}
    for node in graph.nodes.values():
        kinds.setdefault(node.kind, {})[node.title] = node.digest
    sources = {f"{path.parent.name}/{path.name}": file_digest(path) for path in Path("pictures").rglob("*.png")}
    assert kinds["source"] == sources
    receipt = read_receipt(Path("models", GENERATOR))
    assert kinds["training"] == {GENERATOR: receipt.weights_sha256}
    assert kinds["images"]["folder, train"] == receipt.images
    assert kinds["column"]["folder, train, edge"] == receipt.columns["edge"]
    assert kinds["packages"] == {"requirements.lock": file_digest(Path("requirements.lock"))}
    assert {f"of the stage {name}" for name in ("ingest", "edges", f"train@{GENERATOR}")} <= kinds["code"].keys()
    (version,) = list_versions()
    assert version.tags["images_manifest"] == receipt.images
    is_dirty = version.tags["git_dirty"] == "True"
    assert any("differed from the commit" in problem for _, problem in graph.problems) == is_dirty


def test_the_uses_of_every_picture_are_those_of_a_walk_through_the_training(made):
    """Brute force: the batches of the whole training, step by step."""
    images = Column(Path("shards/image/train"))
    receipt = read_receipt(Path("models", GENERATOR))
    plan = Plan(tuple(images.shard_sizes), receipt.seed)
    read = {key: [] for key in images.keys.to_pylist()}
    for step in range(receipt.steps):
        for position in positions(step, receipt.config["batch_size"]):
            read[images.key(plan.locate(position)[1])].append(step + 1)
    assert sorted(map(bool, read.values()))[0] is False, "one picture is not read, and the others are"
    for row in images.table.to_pylist():
        graph = lineage.trace("image", row["key"])
        nodes = {node.kind: node for node in graph.nodes.values()}
        assert nodes["images"].facts["shard"] == f"image-{row['shard']:06d}.tar"
        assert nodes["column"].facts["shard"] == f"edge-{row['shard']:06d}.tar"
        for kind in ("training", "version"):
            assert nodes[kind].facts.get("steps that read it", []) == read[row["key"]]
            assert nodes[kind].facts["consumed"].startswith("yes" if read[row["key"]] else "no")
        assert "evaluation" not in nodes
        same = [lineage.trace("image", row[name].hex()).to_tree() for name in ("source_sha256", "sha256")]
        assert same == [graph.to_tree()] * 2
    several = lineage.trace("image", next(iter(read)), 64).nodes.values()  # of each picture its own steps
    assert {node.about: node.facts.get("steps that read it", []) for node in several if node.kind == "training"} == read


def test_an_unfinished_training_tells_which_checkpoints_read_a_picture(made):
    receipt = read_receipt(Path("models", GENERATOR))
    folder = Path("runs", GENERATOR, "0123456789abcdef")
    for step in (2, 4):
        (folder / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
    inputs = {"config": receipt.config, "train": receipt.train, "seed": receipt.seed, "data": {"image": receipt.images}}
    (folder / "experiment.json").write_text(json.dumps(inputs))
    for key in Column(Path("shards/image/train")).keys.to_pylist():
        nodes = lineage.trace("image", key).nodes.values()
        (steps,) = (node.facts.get("steps that read it", []) for node in nodes if node.kind == "training")
        read = {node.title: node.facts.get("steps that read it", []) for node in nodes if node.kind == "checkpoint"}
        assert read == {f"{GENERATOR}, step {end}": [step for step in steps if step <= end] for end in (2, 4)}
    shutil.rmtree(folder)


def test_in_a_clone_without_history_dvc_lock_vouches_for_the_records(made):
    record = Path("provenance/masks.json")
    moved = history_folder().rename("elsewhere")
    content = record.read_bytes()
    assert {check.by for check in check_everything() if check.link == str(record)} == {NOTHING}
    md5 = hashlib.md5(content).hexdigest()
    Path("dvc.lock").write_text(f"schema: '2.0'\nstages:\n  masks:\n    outs: [{{path: {record}, md5: {md5}}}]\n")
    assert first_broken() is None
    record.write_bytes(content.replace(b'"suite.split": "val"', b'"suite.split": "vam"'))
    broken = first_broken()
    assert (broken.link, broken.expected, broken.by) == (str(record), f"md5 {md5}", "dvc.lock")
    record.write_bytes(content)
    Path("dvc.lock").unlink()
    moved.rename(history_folder())


def test_a_picture_is_found_by_its_file_and_by_its_looks(made, tmp_path, capsys):
    from PIL import Image

    assert main(["lineage", "image", "pictures/val/000.png", "--json"]) == 0
    kinds = {node["kind"] for node in json.loads(capsys.readouterr().out)["nodes"]}
    assert {"evaluation", "column"} <= kinds
    assert "training" not in kinds
    copy = tmp_path / "copy.jpg"
    Image.open("pictures/train/001.png").resize((32, 32)).save(copy, quality=80)
    assert main(["lineage", "image", str(copy)]) == 1
    assert "no data set here ever had" in capsys.readouterr().err
    assert main(["lineage", "image", str(copy), "--near", "10"]) == 0
    assert "picture train/001" in capsys.readouterr().out


def test_a_page_needs_no_script_and_no_other_file_and_escapes_names(made, tmp_path):
    assert main(["lineage", "model", f"{MODEL}@1", "--html", str(tmp_path / "page.html")]) == 0
    html = (tmp_path / "page.html").read_text()
    assert not re.search(r"<script|<img|<iframe|(?:src|href)=\"(?!#|data:,)|url\(|@import", html)
    anchors = set(re.findall(r'href="#([\w-]+)"', html))
    assert anchors
    assert anchors == set(re.findall(r'id="([\w-]+)"', html))
    graph = Graph()
    graph.add(Node(kind="picture", title='<script>"x"</script>', facts={"<b>": "&"}, problems=("<i>",)))
    assert "<script>" not in page.render(graph)
    assert "<b>" not in page.render(graph)


def test_a_record_is_readable_without_this_code_and_says_nothing_of_the_machine(made, tmp_path):
    record = json.loads(Path("provenance/train", f"{GENERATOR}.json").read_bytes())
    assert record["_type"] == "https://in-toto.io/Statement/v1"
    assert record["predicateType"] == "https://slsa.dev/provenance/v1"
    definition = record["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["parameters"]["train.precision"] == "no"
    sums = "".join(f"{subject['digest']['sha256']}  {subject['name']}\n" for subject in record["subject"])
    (tmp_path / "sums").write_text(sums)
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", str(tmp_path / "sums")], check=True)
    assert f"models/{GENERATOR}/weights.safetensors" in sums
    by_name = {each["name"]: each for each in definition["resolvedDependencies"]}
    manifest = by_name["shards/image/train/manifest.json"]["annotations"]["manifest"]
    assert manifest == read_receipt(Path("models", GENERATOR)).images
    text = "".join(path.read_text() for path in Path("provenance").rglob("*.json"))
    assert str(made) not in text
    assert ".../pictures" in text
    assert "finishedOn" not in text


def test_a_stage_refuses_data_that_no_record_names(made, capsys):
    record = Path("provenance/edges.json")
    kept = record.read_bytes()
    record.unlink()
    assert main(["train", GENERATOR]) == 1
    assert "no record in provenance names shards/edges/edge/train/manifest.json" in capsys.readouterr().err
    tree = json.loads(kept)
    tree["subject"][0]["digest"]["sha256"] = "0" * 64
    record.write_text(json.dumps(tree, indent=1, sort_keys=True) + "\n")
    assert main(["train", GENERATOR]) == 1
    error = capsys.readouterr().err
    assert (
        f"shards/edges/edge/train/manifest.json has digest {file_digest(Path('shards/edges/edge/train/manifest.json'))}"
        in error
    )
    assert f"provenance/edges.json says {'0' * 64}" in error
    record.write_bytes(kept)


def test_after_a_takedown_the_records_hold_and_old_models_are_still_known(made):
    """Last, because it changes the shards."""
    key = Column(Path("shards/image/train")).key(0)
    before = lineage.trace("image", key)
    shutil.copytree("shards", "kept")
    assert [removed.key for removed in takedown.run(read_params(), [key], "asked").removed] == [key]
    stale = {check.by for check in check_everything() if check.is_broken}
    assert f"provenance/train/{GENERATOR}.json" in stale
    assert not {str(Path("provenance", f"{stage}.json")) for stage in ("ingest", "edges", "semantics", "masks")} & stale
    after = lineage.trace("image", key)
    titles = [(node.kind, node.title) for node in before.nodes.values()]
    assert [(node.kind, node.title) for node in after.nodes.values()] == titles
    (images,) = (node for node in after.nodes.values() if node.kind == "images")
    assert "shards/ has another or no such column now" in images.problems[0]
    other = Column(Path("shards/image/train")).key(0)
    assert sum(node.kind == "images" for node in lineage.trace("image", other).nodes.values()) == 2
