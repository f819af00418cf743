"""A takedown reaches DVC's cache and remotes, and `verify` names what DVC brings back damaged."""

import dataclasses
import fcntl
import hashlib
import json
import re
import shutil
from argparse import Namespace
from pathlib import Path

import pytest
from dvc.repo import Repo

from datasets.shards.column import Column
from files.durable import file_digest
from jobs.generators import card
from jobs.runs.folder import RunFolder
from jobs.runs.history import history_folder
from pipeline.aftermath import TrainingError, clear, keep_records
from pipeline.lineage.checks import check_everything
from pipeline.lineage.takedown_checks import check_takedowns
from pipeline.purging import PurgeError
from pipeline.verbs import takedown
from tests.pipeline.pictures import small_params, tree, write_pictures, write_shards

OUTS = ("shards/image", "shards/edges/edge", "shards/mask", "report", "gallery")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Shards, a gallery and a page with a picture, all of them in DVC's cache and in a remote."""
    folder = tmp_path_factory.mktemp("made") / "project"
    write_pictures(folder / "pictures", 20)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_shards(small_params(folder / "pictures"))
        _write_gallery(folder)
        with Repo.init(no_scm=True) as repo, repo.config.edit() as config:
            config["remote"] = {"disk": {"url": str(folder.parent / "remote")}}
            config["core"]["remote"] = "disk"
        with Repo() as repo:
            repo.add([str(out) for out in OUTS])
            repo.push()
    return folder


def _write_gallery(folder):
    """As an evaluation writes them: a tar with the member `<key>.<row>-composite-<bin>.png`, and a page."""
    from datasets.writing.tars import NewRecord, write_shard

    picture = Path("pictures/val/005.png").read_bytes()
    members = {"edge_connect-composite-0p1-0p2.png": picture}
    (folder / "gallery").mkdir()
    write_shard(folder / "gallery", "gallery", 0, [NewRecord(key="val/005", members=members, about={})])
    (folder / "report").mkdir()
    (folder / "report" / "index.html").write_text("<!DOCTYPE html><p>val/005</p>")


@pytest.fixture
def project(made, tmp_path, monkeypatch):
    shutil.copytree(made.parent, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "project"
    monkeypatch.chdir(folder)
    with Repo() as repo, repo.config.edit() as config:
        config["remote"]["disk"]["url"] = str(tmp_path / "remote")
    return folder


def files_with(folders, needles):
    """Files below some folders that hold one of some byte strings, or whose name has one of them."""
    return {
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and any(needle in path.read_bytes() for needle in needles)
    }


def options(*names, **changes):
    given = {"names": names, "list": None, "reason": "asked", "date": "2026-01-31", "dry_run": False, "probe": False}
    return Namespace(**{**given, "this_copy_only": False, "json": False, **changes})


def stored(split, key):
    column = Column(Path("shards/image", split))
    return column.read(column.keys.to_pylist().index(key), "png")


def test_the_bytes_of_a_picture_are_gone_from_checkout_cache_and_remote(project, tmp_path, capsys):
    params = small_params(project / "pictures")
    bytes_of = [stored("val", "val/005"), stored("train", "train/003")]
    where = [project / "shards", project / ".dvc", tmp_path / "remote"]
    before = files_with(where, bytes_of)
    assert len(before) == 2 * 3, "each of two shards in three places"
    md5s = {hashlib.md5(path.read_bytes()).hexdigest() for path in before}
    kept = {path for path in (project / ".dvc" / "cache").rglob("*") if path.is_file()}
    assert takedown.main(params, options("val/005", "train/003", dry_run=True, json=True, reason=None)) == 0
    told = json.loads(capsys.readouterr().out)
    assert files_with(where, bytes_of) == before, "a dry run changes nothing"
    assert [record["key"] for record in told["removed"]] == ["train/003", "val/005"]
    assert takedown.main(params, options("val/005", "train/003", json=True)) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["aftermath"]["objects"] == told["aftermath"]["objects"]
    assert files_with([project, tmp_path / "remote"], bytes_of) == set()
    places = [(each["place"], each["what"]) for each in done["aftermath"]["objects"]]
    assert {place: places.count(place) for place in places} == {
        ("cache", "shard"): 5, ("cache", "table"): 5, ("cache", "gallery"): 1, ("cache", "page"): 1,
        ("remote disk", "shard"): 5, ("remote disk", "table"): 5, ("remote disk", "gallery"): 1,
        ("remote disk", "page"): 1,
    }  # fmt: skip
    gone = kept - {path for path in (project / ".dvc" / "cache").rglob("*") if path.is_file()}
    assert len(gone) == 12, "nothing else is removed"
    names = {path.parent.name + path.name for folder in where for path in folder.rglob("*")}
    assert not names & md5s
    broken = [check.link for check in (*check_everything(), *check_takedowns()) if check.is_broken]
    assert [
        link for link in broken if link.startswith(("shards/image", "shards/edges", "shards/mask", "lineage"))
    ] == []
    assert takedown.main(params, options(json=True, reason=None)) == 0
    assert json.loads(capsys.readouterr().out)["aftermath"]["evidence"] is None, "nothing is left to do"


def test_verify_reads_the_evidence_again(project):
    params = small_params(project / "pictures")
    old = (project / ".dvc").rename(project / "kept")
    shutil.copytree(old, project / ".dvc")
    shards = shutil.copytree("shards", "shards-before")
    takedown.main(params, options("train/003"))
    (evidence,) = history_folder().glob("takedowns/*.json")
    tree = json.loads(evidence.read_bytes())
    assert [(each["key"], each["reason"]) for each in tree["pictures"]] == [("train/003", "asked")]
    assert all(check.is_broken is False for check in check_takedowns())
    shutil.rmtree(project / ".dvc")
    old.rename(project / ".dvc")
    broken = [check.link for check in check_takedowns() if check.is_broken]
    assert len(broken) == 4 == sum(each["place"] == "cache" for each in tree["purged"])
    assert all(re.fullmatch(r"\w{32} in DVC's cache", link) for link in broken)
    shutil.rmtree("shards")
    shutil.move(shards, "shards")
    broken = {check.link: check.found for check in check_takedowns() if check.is_broken}
    assert broken["shards/image/train: pictures that were taken down"] == "train/003"
    evidence.write_bytes(evidence.read_bytes().replace(b'"asked"', b'"other"'))
    assert f"lineage/takedowns/{evidence.name}" in [check.link for check in check_everything() if check.is_broken]


def test_a_killed_takedown_is_finished_by_the_next(project, monkeypatch):
    """Killed after the shards are rewritten, and before the caches are purged."""
    params = small_params(project / "pictures")
    bytes_of = [stored("train", "train/003")]
    keep_records()
    takedown.run(params, ["train/003"], "asked")
    assert len(files_with([project], bytes_of)) == 1, "the cache has it still"
    done = clear(params, "folder", {})
    assert len(done.objects) == 8
    assert files_with([project], bytes_of) == set()
    assert done.evidence


def test_an_unfinished_training_on_the_picture_is_removed_and_a_running_one_stops_the_takedown(project, capsys):
    params = small_params(project / "pictures")
    folder = params.cluster.storage_folder / "edge_connect" / "0123456789abcdef"
    (folder / "checkpoints" / "step-00000050").mkdir(parents=True)
    described = {
        "config": {"batch_size": 8}, "seed": 1, "train": {"samples": {"plan": {"window_shards": 2}}},
        "data": {"image": Column(Path("shards/image/train")).manifest.digest},
    }  # fmt: skip
    (folder / "experiment.json").write_text(json.dumps(described))
    before = tree()
    with RunFolder(folder).stage_lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("process 1 on here")
        lock.flush()
        with pytest.raises(TrainingError, match=r"process 1 on here trains in runs/edge_connect/.* stop edge_con"):
            takedown.main(params, options("train/003"))
    assert tree() == before
    capsys.readouterr()
    assert takedown.main(params, options("train/003", json=True)) == 0
    done = json.loads(capsys.readouterr().out)["aftermath"]
    assert done["trainings"] == ["runs/edge_connect/0123456789abcdef"]
    (use,) = done["exposure"]["uses"]
    assert (use["kind"], use["title"]) == ("checkpoint", "edge_connect, step 50")
    assert use["steps"]
    assert not folder.exists()


def test_a_remote_that_is_away_is_named_and_the_rest_waits(project):
    with Repo() as repo, repo.config.edit() as config:
        config["remote"]["away"] = {"url": "s3://bucket/prefix"}
    params = small_params(project / "pictures")
    with pytest.raises(
        PurgeError, match=r"remote away of DVC cannot be purged \(.*; make it available and run: python"
    ):
        takedown.main(params, options("train/003"))


@pytest.mark.parametrize("named", ["source", "stored", "file", "list"])
def test_a_picture_is_named_by_digest_file_or_list(project, named, tmp_path):
    digest = file_digest(Path("pictures/train/003.png"))
    names = {"source": digest, "stored": hashlib.sha256(stored("train", "train/003")).hexdigest()}
    copy = shutil.copy("pictures/train/003.png", tmp_path / "copy.png")
    (tmp_path / "names.txt").write_text("# of a letter\ntrain/003\n\n")
    words = {"file": options(str(copy)), "list": options(list=str(tmp_path / "names.txt"))}
    arguments = words.get(named) or options(names[named])
    outcome, _ = takedown.look(
        small_params(project / "pictures"), takedown.read_names(arguments.names, arguments.list), "asked"
    )
    assert [removed.key for removed in outcome.removed] == ["train/003"]


@pytest.mark.parametrize("place", ["cache", "remote"])
def test_a_damaged_object_of_dvc_is_named_by_verify(project, tmp_path, place):
    """Its mode is kept, so that DVC takes it for sound."""
    shard = Path("shards/image/train/image-000000.tar")
    sha256, md5 = file_digest(shard), hashlib.md5(shard.read_bytes()).hexdigest()
    root = project / ".dvc" / "cache" if place == "cache" else tmp_path / "remote"
    path = root / "files" / "md5" / md5[:2] / md5[2:]
    mode = path.stat().st_mode
    damaged = bytearray(path.read_bytes())
    damaged[1000] ^= 1
    path.chmod(0o644)
    path.write_bytes(damaged)
    path.chmod(mode)
    shutil.rmtree("shards/image")
    if place == "remote":
        shutil.rmtree(project / ".dvc" / "cache")
    with Repo() as repo:
        (repo.checkout if place == "cache" else repo.pull)(["shards/image.dvc"], force=True)
    assert shard.read_bytes() == bytes(damaged), "DVC brought the damaged bytes"
    broken = next(check for check in check_everything() if check.is_broken)
    assert (broken.link, broken.expected, broken.found) == (str(shard), sha256, file_digest(shard))
    assert path.stat().st_mode == mode


def test_a_new_training_has_a_price_in_words(project, monkeypatch):
    monkeypatch.setattr(takedown, "_PROBE_SECONDS", 0.1)
    params = small_params(project / "pictures")
    params = dataclasses.replace(params, generators={"unet": card("unet").Config.tiny()})
    price = takedown.price_retraining(params, ["gone", "unet"])
    assert price["gone"] == "not in params.yaml, so it has no price"
    assert re.fullmatch(r"\d+ s to \d+ s", price["unet"])
