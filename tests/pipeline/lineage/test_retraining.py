"""After a takedown and a new training, a picture is in no shard, cache or remote, and everything else stays."""

import hashlib
import json
import sys

import pytest

from datasets.shards.column import Column
from datasets.shards.records import read_table
from files.durable import file_digest
from tests.pipeline.lineage.clones import git, prepare_clone, run
from tests.pipeline.lineage.finished import GENERATOR, MODEL

PIPELINE = (sys.executable, "-m", "pipeline")
COLUMNS = ("image", "edges/edge")


def files_with(folders, needles):
    """Relative paths of the files below some folders that hold one of some byte strings."""
    return sorted(
        path.relative_to(folder).as_posix()
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and any(needle in path.read_bytes() for needle in needles)
    )


def members(shards):
    """Digest of every member of every column, by folder, key and field."""
    return {
        (str(path.parent.relative_to(shards)), row["key"], row["field"]): row["sha256"]
        for path in shards.rglob("manifest.json")
        if path.parent.parent.name != "gallery"
        for row in read_table(path.parent).to_pylist()
    }


def archives(shards):
    return {path.relative_to(shards).as_posix(): file_digest(path) for path in shards.rglob("*.tar")}


@pytest.mark.slow
def test_one_picture_is_taken_down_and_the_model_is_trained_again_without_it(tmp_path, empty_database):
    folder, remote = tmp_path / "project", tmp_path / "remote"
    prepare_clone(folder, empty_database)
    run(folder, "dvc", "remote", "add", "--default", "disk", str(remote))
    run(folder, "dvc", "repro")
    run(folder, "dvc", "push", "--quiet")
    git(folder, "add", "dvc.lock", ".dvc/config")
    git(folder, "commit", "--quiet", "--message", "a run")

    shards, weights = folder / "shards", folder / "models" / GENERATOR / "weights.safetensors"
    column = Column(shards / "image/train")
    key = column.key(0)
    row = next(row for row in column.table.to_pylist() if row["key"] == key)
    held = [Column(shards / name / "train").read(0, "png") for name in COLUMNS]
    digests = [
        form for each in held for form in (hashlib.sha256(each).hexdigest().encode(), hashlib.sha256(each).digest())
    ]
    old_tars, old_members, old_weights = archives(shards), members(shards), file_digest(weights)
    touched = {f"{name}/train/{name.rpartition('/')[2]}-{row['shard']:06d}.tar" for name in COLUMNS}
    md5s = {hashlib.md5((shards / name).read_bytes()).hexdigest() for name in touched}
    assert len(files_with([folder, remote], held)) == 2 * 3, "two shards, each here, in the cache and in the remote"

    words = ("takedown", key, "--reason", "asked", "--json")
    told = json.loads(run(folder, *PIPELINE, *words, "--dry-run"))["aftermath"]
    done = json.loads(run(folder, *PIPELINE, *words))["aftermath"]
    assert told["objects"] == done["objects"]
    places = [(each["place"], each["what"]) for each in done["objects"]]
    assert {place: places.count(place) for place in places} == {
        (place, what): 2 for place in ("cache", "remote disk") for what in ("shard", "table")
    }
    assert {(use["kind"], use["title"], use["key"]) for use in done["exposure"]["uses"] if use["steps"]} == {
        ("training", GENERATOR, key), ("version", f"{MODEL}@1", key)
    }  # fmt: skip
    assert done["versions"] == [f"{MODEL}@1"]

    run(folder, "dvc", "commit", "-f", "ingest", "edges", "semantics", "masks")
    git(folder, "commit", "--quiet", "--all", "--message", "a takedown")
    assert f"> python -m pipeline train {GENERATOR}" in run(folder, "dvc", "repro")
    run(folder, "dvc", "push", "--quiet")
    assert "up to date" in run(folder, "dvc", "status")
    assert file_digest(weights) != old_weights

    tars = archives(shards)
    assert tars.keys() == old_tars.keys()
    assert {name for name in tars if tars[name] != old_tars[name]} == touched
    gone = {place for place in old_members if place[1] == key}
    assert members(shards) == {place: digest for place, digest in old_members.items() if place not in gone}
    assert len(gone) == len(COLUMNS)

    everywhere = [folder, remote]
    assert files_with(everywhere, held) == []
    named = files_with(everywhere, digests)
    assert named, "the history can still say which models had the picture"
    assert {name.rpartition("/")[0] for name in named} == {"lineage/pictures", "lineage/takedowns"}
    assert not md5s & {path.parent.name + path.name for root in everywhere for path in root.rglob("*")}

    assert "verified: " in run(folder, *PIPELINE, "verify", "all")
    nodes = json.loads(run(folder, *PIPELINE, "lineage", "image", key, "--json"))["nodes"]
    assert [node["title"] for node in nodes if node["kind"] == "version"] == [f"{MODEL}@1"]
    nodes = json.loads(run(folder, *PIPELINE, "lineage", "model", f"{MODEL}@2", "--json"))["nodes"]
    assert old_weights not in [node["digest"] for node in nodes]
