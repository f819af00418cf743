"""A configuration that runs passes every check, and each of its faults fails the check that is there for it."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from benchmarks.photographs import photograph, write_column, write_split
from datasets.shards.manifest import read_manifest, write_manifest
from datasets.writing.tars import NewRecord
from files.objects import StoreConfig
from files.pictures import encode_png
from jobs.cluster.settings import ClusterConfig
from jobs.generators import card
from jobs.training.settings import TrainConfig
from pipeline.planning import dry_run
from tests.pipeline.pictures import describe_shards, small_params

NAMES = ("context_encoder", "edge_connect")


@pytest.fixture
def params(tmp_path, monkeypatch):
    """Two tiny generators with batches of 64; 21 images and their edges."""
    monkeypatch.chdir(tmp_path)
    write_split(Path("shards"), 21, size=64)
    Path("shards/edges").mkdir()
    Path("shards/edge").rename("shards/edges/edge")
    params = small_params(tmp_path, size=64)
    describe_shards(params)
    configs = {name: dataclasses.replace(card(name).Config.tiny(), batch_size=64) for name in NAMES}
    return dataclasses.replace(params, generators=configs)


def failed(params, workers=64):
    """The checks that failed, by name."""
    found = dry_run.run(params, workers)
    assert found.passed == all(check.outcome != "failed" for check in found.checks)
    return {check.what: check.detail for check in found.checks if check.outcome == "failed"}


@pytest.fixture
def without_steps(monkeypatch):
    """Steps take a process each; the checks before them do not need any."""
    monkeypatch.setattr(
        dry_run, "_check_step", lambda params, footprint, *rest: dry_run._passed(f"step {footprint.generator}", "")
    )


def test_a_configuration_of_64_workers_passes(params):
    found = dry_run.run(params, 64)
    assert found.passed, dry_run.render(found, as_json=False)
    details = {check.what: check.detail for check in found.checks}
    assert details["batch edge_connect"] == "1 images per worker"
    assert "each of 21 records read once per epoch by 64 workers" in details["plan, batch 64"]
    assert "done by workers 0 and 63 with their 1 records of 64x64" in details["step edge_connect"]
    assert details["step edge_connect"].startswith("edges, image, inpaint, joint")
    assert not Path("runs").exists()  # nothing is left behind
    assert json.loads(dry_run.render(found, as_json=True))["passed"] is True
    assert "64 workers: no check failed" in dry_run.render(found, as_json=False)


def test_a_batch_that_cannot_be_shared(params, without_steps):
    assert failed(params, 48) == {
        f"batch {name}": "batch_size 64 cannot be shared equally by 48 workers; the next that can is 96"
        for name in NAMES
    }


def test_a_column_that_is_missing(params, without_steps):
    Path("shards/edges").rename("elsewhere")
    (detail,) = failed(params).values()
    assert "shards/edges/edge/train" in detail
    assert "run: dvc repro edges" in detail


def test_a_column_that_was_made_from_other_images(params, without_steps):
    folder = Path("shards/edges/edge/train")
    write_manifest(folder, dataclasses.replace(read_manifest(folder), made_from="0" * 64))
    assert failed(params).keys() == {"column edge"}
    assert "was made from images 000" in failed(params)["column edge"]


@pytest.mark.slow
def test_images_that_are_missing_leave_the_other_checks(params):
    Path("shards").rename("elsewhere")
    found = {check.what: check for check in dry_run.run(params, 64).checks}
    assert found["column image"].outcome == "failed"
    assert "run: dvc repro ingest" in found["column image"].detail
    assert "with 1 made-up images of 64x64" in found["step edge_connect"].detail


def test_images_of_several_sizes(params, without_steps):
    shutil.rmtree("shards")
    images = [
        NewRecord(
            key=f"{side}",
            members={"png": encode_png(photograph(side, side))},
            about={"source": "made", "width": side, "height": side},
        )
        for side in (64, 65)
    ]
    write_column(Path("shards/image/train"), "image", images)
    describe_shards(params)
    params = dataclasses.replace(params, generators={"context_encoder": params.generators["context_encoder"]})
    assert failed(params).keys() == {"column image"}
    assert "shards/image/train has images of 2 sizes (64 x 64 and others)" in failed(params)["column image"]
    samples = dataclasses.replace(params.train.samples, crop=64)
    assert failed(dataclasses.replace(params, train=dataclasses.replace(params.train, samples=samples))) == {}


def test_more_classes_than_a_generator_has(params, without_steps):
    folder = Path("shards/semantics/train")
    manifest = read_manifest(folder)
    write_manifest(folder, dataclasses.replace(manifest, parameters={**manifest.parameters, "classes": list("abcde")}))
    config = dataclasses.replace(card("sge_net").Config.tiny(), batch_size=64)
    found = failed(dataclasses.replace(params, generators={"sge_net": config}))
    assert found.keys() == {"column semantics"}
    assert "shards/semantics/train has 5 classes; set it to 5" in found["column semantics"]


def with_storage(params, storage):
    return dataclasses.replace(params, cluster=ClusterConfig(train_workers=64, storage=str(storage)))


def test_a_storage_that_cannot_be_written_to(params, without_steps):
    Path("file").touch()
    assert "nothing can be written to" in failed(with_storage(params, "file"))["storage"]
    assert "live checkpoints need a folder" in failed(with_storage(params, "s3://bucket/runs"))["storage"]
    assert failed(with_storage(params, "a/new/folder")) == {}
    assert not Path("a").exists()


def test_checkpoints_are_copied_to_a_store_that_takes_them_or_the_check_fails(s3, params, without_steps, monkeypatch):
    cluster = dataclasses.replace(params.cluster, checkpoints="s3://bucket/live")
    params = dataclasses.replace(params, cluster=cluster, store=StoreConfig(attempts=1))
    details = {check.what: check.detail for check in dry_run.run(params, 64).checks}
    assert details["checkpoint store"] == "s3://bucket/live can be written and cleared; every worker must reach it"
    assert "the machine of the command and that of rank 0 must see it" in details["storage"]
    assert details["checkpoints"].startswith("4 checkpoints of")
    assert not s3.find("bucket")
    s3.rmdir("bucket")
    assert "bucket does not exist" in failed(params)["checkpoint store"]


def test_checkpoints_that_have_no_room(params, without_steps, monkeypatch):
    counted = dry_run.footprints(params.generators, TrainConfig())
    needed = 3 * max(footprint.checkpoint_bytes for footprint in counted)
    usage = dry_run.shutil.disk_usage(".")
    for free, is_full in ((needed - 1, True), (needed, False)):
        monkeypatch.setattr(dry_run.shutil, "disk_usage", lambda path, free=free: usage._replace(free=free))
        assert ("checkpoints" in failed(params)) == is_full


@pytest.mark.slow
def test_a_step_that_raises(params):
    odd = dataclasses.replace(params.generators["context_encoder"], image_size=128)
    found = failed(dataclasses.replace(params, generators={"context_encoder": odd}))
    assert found.keys() == {"step context_encoder"}
    assert "change generators.context_encoder" in found["step context_encoder"]
