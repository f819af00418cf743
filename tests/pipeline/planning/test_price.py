"""A probe of a tiny generator and its price, from end to end."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest

from benchmarks.photographs import write_split
from jobs.checks.footprint import footprint
from jobs.generators import card
from pipeline.__main__ import main
from pipeline.params import ParamsError
from pipeline.planning import plan, price
from tests.pipeline.pictures import ROOT, describe_shards, small_params


@pytest.fixture
def params(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    write_split(Path("shards"), 21, size=64)
    Path("shards/edges").mkdir()
    Path("shards/edge").rename("shards/edges/edge")
    params = small_params(tmp_path, size=64)
    describe_shards(params)
    return dataclasses.replace(params, generators={"edge_connect": card("edge_connect").Config.tiny()})


def test_a_generator_is_probed_with_the_shards_that_are_here(params):
    found = price.run(params, workers=2, seconds=2.0, price_per_hour=3.0)
    (each,) = found.generators
    assert found.is_good, each
    assert (each.images_per_worker, each.pixels) == (params.generators["edge_connect"].batch_size // 2, (64, 64))
    assert each.reading_seconds.middle > 0
    assert 0 < each.hours.low <= each.hours.middle <= each.hours.high
    assert found.cost.middle == pytest.approx(found.hours.middle * 2 * 3.0)
    shards = sum(path.stat().st_size for path in Path("shards").rglob("*.tar"))
    taken = footprint("edge_connect", params.generators["edge_connect"])
    assert [disk.needed_bytes for disk in found.disks] == [
        shards + 3 * taken.checkpoint_bytes + 3 * taken.weights_bytes
    ]
    assert found.disks[0].free_bytes == pytest.approx(shutil.disk_usage(".").free, rel=0.1)
    planned = plan.run(params, workers=2)
    text = price.render(planned, found, as_json=False)
    assert re.search(r"edge_connect/joint +\d+ of 64x64", text)
    assert "every worker is as fast as this one" in text
    assert json.loads(price.render(planned, found, as_json=True))["price"]["generators"][0]["fits"] is True


def test_parts_that_a_batch_does_not_have_are_said_before_anything_is_probed(params):
    params = dataclasses.replace(params, train=dataclasses.replace(params.train, accumulate=64))
    found = price.run(params, workers=1, seconds=0.1)
    assert found.device == "nothing"
    for each in found.generators:
        assert "cannot be shared equally by 1 workers, each in 64 micro-batches" in each.problem


@pytest.mark.slow
def test_what_cannot_be_trained_is_said_and_the_others_are_priced(params):
    odd = dataclasses.replace(card("context_encoder").Config.tiny(), image_size=128)
    params = dataclasses.replace(params, generators={**params.generators, "context_encoder": odd})
    found = price.run(params, workers=2, seconds=0.1)
    connect, encoder = found.generators
    assert connect.problem == ""
    assert "64" in encoder.problem
    assert not found.is_good
    assert found.hours is None
    three = price.run(params, workers=3, seconds=0.1)
    assert all("cannot be shared equally by 3 workers" in each.problem for each in three.generators)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--generators", "edge_connect,lama"], "params.yaml: generators has no 'lama'; it lists"),
        (["--probe", "--seconds", "0", "--records", "100"], "--seconds must be more than 0, got 0"),
        (["--price-per-hour", "2"], "--price-per-hour goes with --probe"),
        (["--dry-run", "--records", "5"], "--dry-run goes with --workers and --generators alone"),
        (["--dry-run", "--workers", "0"], "--workers must be at least 1, got 0"),
    ],
)
def test_words_that_make_no_sense_are_named(params, capsys, words, message):
    shutil.copy(ROOT / "params.yaml", "params.yaml")
    assert main(["plan", *words]) == 1
    assert message in capsys.readouterr().err


def test_numbers_alone_are_not_held_against_parameters(params):
    with pytest.raises(ParamsError, match="--gigabits-per-second must be more than 0"):
        price.run(params, gigabits_per_second=-1.0)
