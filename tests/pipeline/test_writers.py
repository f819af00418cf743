"""Writers of one checkout keep out of each other's way, and a kill or a full disk leaves nothing half written."""

import dataclasses
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from datasets.shards.column import Column
from datasets.shards.manifest import read_manifest, write_manifest
from datasets.shards.records import ShardError, read_table
from files.durable import durable_file, file_digest
from files.locks import BusyError
from pipeline.removal import remove
from pipeline.stages import edges, evaluate, ingest, masks
from pipeline.verbs import audit
from pipeline.writing import hold_columns
from tests.faults import in_child
from tests.pipeline.pictures import ROOT, small_params, tree, write_pictures

HOLDER = """
import sys
from pipeline.writing import hold_columns
with hold_columns("image"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def params(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    read = small_params(write_pictures(tmp_path / "pictures", 20), records_per_shard=4)
    return dataclasses.replace(read, evaluate=dataclasses.replace(read.evaluate, baselines=("mean_colour",)))


def test_a_second_writer_is_refused_at_its_start(params):
    ingest.run(params)
    before = tree()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HOLDER]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "held\n"
        for work in (ingest.run, edges.run, masks.run, partial(remove, choose=lambda dataset, records: [])):
            with pytest.raises(BusyError, match=f"process {first.pid} on .* uses shards/image; wait until"):
                work(params)
        first.stdin.close()
    assert tree() == before
    with hold_columns("edges", read=["image"]):
        masks.run(params)  # reads the images as well


def test_a_killed_evaluation_leaves_no_part_of_its_outputs(params):
    ingest.run(params)
    masks.run(params)
    outputs = lambda: {**tree(Path("results")), **tree(Path("metrics"))}  # noqa: E731
    evaluate.run(params, "baselines")
    undisturbed = outputs()
    killed = 0
    for number in range(1, 40, 3):
        code, said = in_child(partial(evaluate.run, params, "baselines"), kill_at=number)
        if code == 0:
            break
        assert code < 0, said
        killed += 1
        assert set(outputs().items()) <= set(undisturbed.items())  # whole files of an evaluation, or none
    assert killed > 3
    evaluate.run(params, "baselines")
    assert outputs() == undisturbed
    assert not Path(".unfinished").exists()


def test_the_error_of_a_full_disk_names_the_file(tmp_path):
    def write():
        with durable_file(tmp_path / "folder" / "shard.tar") as file:
            file.write(bytes(100_000))

    code, said = in_child(write, file_bytes=4096)
    assert code == 1
    assert said.splitlines()[-1].endswith(f"File too large: '{tmp_path / 'folder' / 'shard.tar'}'")


def test_a_table_that_is_cut_short_while_it_is_read_is_named(params):
    ingest.run(params)
    table = Path("shards/image/train/records.parquet")

    def read_cut():
        column = Column(table.parent)
        os.truncate(table, 0)
        with pytest.raises(ShardError, match=r"records\.parquet is not a table of records"):
            column.keys_of(2)

    code, said = in_child(read_cut)
    assert (code, table.stat().st_size) == (0, 0), said  # -7 is SIGBUS


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda table: table.slice(1), "has 3 records of shard 0, its manifest says 4"),
        (lambda table: table.drop_columns(["source_sha256"]), "has no usable column source_sha256"),
        (lambda table: table.drop_columns(["width"]), "has no usable column width"),
        (lambda table: table.set_column(0, "key", [[None, *table["key"].to_pylist()[1:]]]), "lacks 1 values of key"),
    ],
)
def test_a_table_that_disagrees_with_its_manifest_is_a_finding(params, change, problem):
    ingest.run(params)
    folder = Path("shards/image/train")
    manifest = read_manifest(folder)
    pq.write_table(change(read_table(folder)), folder / "records.parquet")
    write_manifest(folder, dataclasses.replace(manifest, records_sha256=file_digest(folder / "records.parquet")))
    assert any(problem in finding.problem for finding in audit.run(params).findings)
