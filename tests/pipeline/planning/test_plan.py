"""What `plan` says of shards, generators and numbers of workers."""

import dataclasses
import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from benchmarks.photographs import photograph, write_column, write_split
from datasets.maps.edges import EdgeConfig
from datasets.shards.manifest import ManifestError, read_manifest
from datasets.writing.tars import NewRecord
from files.pictures import encode_grey_png
from jobs.checks.footprint import footprint
from jobs.generators import card, names
from jobs.generators.build import build_recipe
from jobs.recipe.contract import is_discriminator
from jobs.runs.checkpoints import NETWORKS, OPTIMIZERS, take_snapshot, write_checkpoint
from jobs.training.settings import TrainConfig
from pipeline.layout import column_folder
from pipeline.params import ParamsError
from pipeline.planning import plan
from tests.pipeline.pictures import describe_shards, small_params


@pytest.fixture
def params(tmp_path, monkeypatch):
    """A few tiny generators, with and without other columns; shards of 21 images in the working folder."""
    monkeypatch.chdir(tmp_path)
    write_split(Path("shards"), 21, size=32)
    Path("shards/edges").mkdir()
    Path("shards/edge").rename("shards/edges/edge")
    params = small_params(tmp_path)
    describe_shards(params)
    few = ("context_encoder", "edge_connect", "global_local", "sge_net")
    return dataclasses.replace(params, generators={name: card(name).Config.tiny() for name in few})


def test_figures_are_those_of_the_manifests_and_recipes(params):
    planned = plan.run(params, workers=1, images_per_second=10)
    assert (planned.records, planned.shards, planned.smallest_shard, planned.largest_shard) == (21, 3, 7, 7)
    sizes = {
        c: sum(s.bytes for s in read_manifest(column_folder(c, "train")).shards) for c in ("image", "edge", "semantics")
    }
    assert (
        planned.disk_bytes == sum(path.stat().st_size for path in Path("shards").rglob("*.tar")) == sum(sizes.values())
    )
    assert [reading.name for reading in planned.readings] == list(params.generators)
    for reading in planned.readings:
        recipe = build_recipe(reading.name, params.generators[reading.name], 0)
        assert (reading.steps, reading.batch_size) == (recipe.steps, recipe.batch_size)
        assert reading.epochs == recipe.steps * recipe.batch_size / 21
        assert reading.bytes_per_epoch == sizes["image"] + sum(sizes[column] for column in recipe.columns)
        assert reading.megabytes_per_second == pytest.approx(reading.bytes_per_epoch / 21 * 10 / 1e6)
    assert {proof.batch_size for proof in planned.proofs} == {reading.batch_size for reading in planned.readings}
    assert json.loads(plan.render(planned, as_json=True))["records"] == 21
    assert "each read once" in plan.render(planned, as_json=False)


def test_of_several_columns_of_edges_the_one_that_is_trained_with_counts(params):
    before = {reading.name: reading.bytes_per_epoch for reading in plan.run(params, workers=1).readings}
    params = dataclasses.replace(params, edges={**params.edges, "coarse": EdgeConfig(sigma=3.0)})
    maps = [
        NewRecord(key=f"{n}", members={"png": encode_grey_png(photograph(n, 256)[..., 0])}, about={}) for n in range(21)
    ]
    write_column(Path("shards/edges/coarse/train"), "coarse", maps)
    describe_shards(params)
    assert {reading.name: reading.bytes_per_epoch for reading in plan.run(params, workers=1).readings} == before
    train = dataclasses.replace(params.train, edges="coarse")
    after = {r.name: r.bytes_per_epoch for r in plan.run(dataclasses.replace(params, train=train), workers=1).readings}
    images = sum(shard.bytes for shard in read_manifest(Path("shards/image/train")).shards)
    edges = sum(shard.bytes for shard in read_manifest(Path("shards/edges/coarse/train")).shards)
    assert after["edge_connect"] == images + edges != before["edge_connect"]
    assert {name for name in after if after[name] != before[name]} == {"edge_connect"}


@pytest.mark.parametrize("name", ["context_encoder", "global_local", "edge_connect"])
def test_a_checkpoint_has_the_size_that_is_planned(tmp_path, name):
    """Against the files of a real one, whose optimizers have stepped."""
    config = card(name).Config.tiny()
    recipe = build_recipe(name, config, 0)
    for network, optimizer in recipe.optimizers.items():
        for parameter in recipe.networks[network].parameters():
            parameter.grad = parameter.detach().clone()
        optimizer.step()
    folder = write_checkpoint(tmp_path, take_snapshot(1, recipe.networks, recipe.optimizers))
    written = [
        sum(t.numel() * t.element_size() for t in load_file(folder / f).values()) for f in (NETWORKS, OPTIMIZERS)
    ]
    planned = footprint(name, config)
    averaged = footprint(name, config, TrainConfig(ema_decay=0.9))
    generators = [net for key, net in recipe.networks.items() if not is_discriminator(key)]
    average = sum(t.numel() * t.element_size() for net in generators for t in net.state_dict().values())
    assert averaged.checkpoint_bytes == planned.checkpoint_bytes + average
    assert (planned.weights_bytes, planned.checkpoint_bytes) == (written[0], sum(written))


def test_every_generator_has_a_footprint_at_the_papers_size_without_its_feature_weights():
    for name in names():
        found = footprint(name, card(name).Config())
        assert found.steps > 0
        assert 2.9 * found.weights_bytes < found.checkpoint_bytes < 3.1 * found.weights_bytes


def test_workers_that_cannot_share_a_batch_are_named(params):
    planned = plan.run(params, workers=3)
    for reading in planned.readings:
        shared = reading.batch_size % 3 == 0
        assert bool(reading.problem) != shared
        assert reading.per_rank == (reading.batch_size // 3 if shared else None)
    assert any("cannot be shared equally by 3 workers; the next that can is 3" in r.problem for r in planned.readings)


def test_without_a_number_each_generator_is_planned_for_the_workers_that_would_train_it(params):
    cluster = dataclasses.replace(params.cluster, train_workers=3)
    planned = plan.run(dataclasses.replace(params, cluster=cluster))
    assert planned.workers == max(reading.workers for reading in planned.readings)
    for reading in planned.readings:
        assert not reading.problem
        assert reading.workers == max(number for number in (1, 2, 3) if reading.batch_size % number == 0)
        assert reading.per_rank * reading.workers == reading.batch_size


def test_numbers_alone_make_a_plan(params):
    planned = plan.run(params, records=1000, shards=16, workers=8, batch=64)
    assert (planned.records, planned.shards, planned.smallest_shard, planned.largest_shard) == (1000, 16, 62, 63)
    (reading,) = planned.readings
    assert (reading.per_rank, reading.steps_per_epoch, reading.steps, reading.bytes_per_epoch) == (
        8,
        15.625,
        None,
        None,
    )
    assert [each.ranks for each in planned.proofs[0].passes][:3] == [((0, 1),), ((0, 2),), ((0, 8),)]
    assert plan.run(params, records=100).largest_shard <= params.ingest.records_per_shard


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"records": 0}, "--records must be at least 1, got 0"),
        ({"records": 5, "shards": 6}, "--shards must not exceed --records, got 6 and 5"),
        ({"workers": -1}, "--workers must be at least 1"),
        ({"batch": 4}, "--shards and --batch go with --records"),
    ],
)
def test_numbers_that_make_no_plan_are_named(params, numbers, message):
    with pytest.raises(ParamsError, match=message):
        plan.run(params, **numbers)


def test_without_shards_it_says_what_to_do(params, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(ManifestError, match="run: dvc repro ingest, or pass --records"):
        plan.run(params)
