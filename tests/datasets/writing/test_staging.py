"""Kills, full disks and changed parameters while a column is written: the next run gives the undisturbed bytes."""

import dataclasses
import os
import pickle
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.photographs import photograph
from datasets.ingest import IngestConfig
from datasets.maps.edges import EdgeConfig
from datasets.shards.column import Column, check_alignment
from datasets.shards.manifest import ManifestError, read_manifest
from datasets.shards.records import ShardError
from datasets.sources import source_config
from datasets.writing.shard_tasks import WritingError, read_done_note
from files.checkout import FOLDERS
from files.durable import file_digest
from masks.drawn import DrawnMasks
from pipeline import code
from pipeline.layout import column_folder, made_note
from pipeline.params import read_params
from pipeline.stages import edges, ingest, masks
from tests.faults import in_child
from tests.pipeline.pictures import write_gzip_tar

ROOT = Path(__file__).resolve().parent.parent.parent.parent


@pytest.fixture
def params(tmp_path, monkeypatch):
    """Twelve pictures of 24 pixels in two splits and six shards, and an empty file among them."""
    for number in range(12):
        path = tmp_path / "pictures" / ("val" if number % 3 == 0 else "train") / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph(number, 24)).save(path)
    (tmp_path / "pictures" / "train" / "empty.png").write_bytes(b"")
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    read = read_params(ROOT / "params.yaml")
    return dataclasses.replace(
        read,
        dataset=source_config(name="folder", root=str(tmp_path / "pictures")),
        ingest=IngestConfig(size=16, format="png", records_per_shard=2, max_rejected=0.2),
        cluster=dataclasses.replace(read.cluster, num_workers=0),
    )


def tree() -> dict[str, str]:
    """Return the digest of every file in shards/, hidden ones included, and "folder" for every folder."""
    return {str(p): file_digest(p) if p.is_file() else "folder" for p in sorted(Path("shards").rglob("*"))}


def finished_shards(column: str) -> dict[str, int]:
    """Return the inode of each shard with a done note, by split and name: those that an interrupted run finished."""
    staging = Path("shards", f".{column}.partial")
    inodes = {}
    for path in staging.glob("done/*/*.done"):
        note, split = read_done_note(path), path.parent.name
        if note and note.shard and (shard := staging / "column" / split / note.shard.name).is_file():
            inodes[f"{split}/{note.shard.name}"] = shard.stat().st_ino
    return inodes


def checkout(tmp_path: Path, monkeypatch) -> Path:
    """Copy the code, and let the stages take their code digests from the copy."""
    copy = tmp_path / "checkout"
    for name in (*FOLDERS, "dvc.yaml", "requirements.lock"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy)
    monkeypatch.setattr(code, "ROOT", copy)
    return copy


def edit(path: Path) -> None:
    before = path.read_text()
    path.write_text(f"{before}\n# edited\n")


def few_shards(params):
    return dataclasses.replace(params, ingest=dataclasses.replace(params.ingest, records_per_shard=4))


def kill_everywhere(monkeypatch, run, column: str, before: Path | None = None) -> int:
    """Kill a run before each of its changes of the disk, run it again, and compare. Returns the number of kills."""

    def reset() -> None:
        shutil.rmtree("shards", ignore_errors=True)
        if before:
            shutil.copytree(before, "shards")

    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # a kill loses nothing that was written; only power does
    reset()
    run()
    undisturbed = tree()
    num_reused = 0
    for number in range(1, 500):
        reset()
        code, said = in_child(run, kill_at=number)
        target = column_folder(column, "")
        if code == 0:
            assert tree() == undisturbed
            break
        assert code == -signal.SIGKILL, said
        after_kill = tree()
        if target.exists():  # in its place only when whole
            inside = {name: digest for name, digest in undisturbed.items() if name.startswith(f"{target}/")}
            assert {n: d for n, d in after_kill.items() if n.startswith(f"{target}/")} == inside
            run()
        else:
            kept = finished_shards(column)
            run()
            written = {f"{p.parent.name}/{p.name}": p.stat().st_ino for p in target.glob("*/*.tar")}
            assert kept.items() <= written.items()  # the very files, not equal ones
            num_reused += len(kept)
        assert tree() == undisturbed, f"killed at {number}"
    assert num_reused > number
    return number - 1


def test_a_kill_anywhere_in_ingest_changes_nothing_after_a_rerun(params, tmp_path, monkeypatch):
    archive = write_gzip_tar(tmp_path / "pictures", tmp_path / "pictures.tgz")  # one step more than a folder
    params = dataclasses.replace(params, dataset=source_config(name="folder", root=str(archive)))
    assert kill_everywhere(monkeypatch, partial(ingest.run, few_shards(params)), "image") > 40


@pytest.mark.slow  # the code is that of the test above; this one kills it in another stage
def test_a_kill_anywhere_in_a_column_changes_nothing_after_a_rerun(params, tmp_path, monkeypatch):
    ingest.run(few_shards(params))
    images = tree()
    shutil.copytree("shards", tmp_path / "images")
    assert kill_everywhere(monkeypatch, partial(edges.run, few_shards(params)), "edge", before=tmp_path / "images") > 40
    assert images.items() <= tree().items()  # and the images were not touched


@pytest.mark.parametrize("size", [300, 1500, 2500, 4000, 9000])
def test_a_full_disk_is_a_clear_stop_and_the_rerun_is_whole(params, size):
    params = dataclasses.replace(params, ingest=dataclasses.replace(params.ingest, records_per_shard=5))
    ingest.run(params)
    undisturbed = tree()
    shutil.rmtree("shards")
    code, said = in_child(partial(ingest.run, params), file_bytes=size)
    assert code == 1
    assert "File too large" in said.splitlines()[-1]
    assert not list(Path("shards").rglob("manifest.json"))
    assert not list(Path("shards").rglob(".*.partial/**/.*.partial"))
    ingest.run(params)
    assert tree() == undisturbed


def interrupted(run) -> None:
    """Kill a run when most shards are finished."""
    code, said = in_child(run, kill_at=45)
    assert code == -signal.SIGKILL, said
    assert len(finished_shards("image")) > 3


def test_shards_of_other_parameters_sources_or_content_are_not_reused(params, tmp_path):
    first = sorted((tmp_path / "pictures" / "val").iterdir())[0]
    original = first.read_bytes()

    def other_size():
        return dataclasses.replace(params, ingest=dataclasses.replace(params.ingest, size=20))

    def other_content():  # of the same length and name
        first.write_bytes(original[:-20] + original[-20:])
        os.utime(first, ns=(1, 1))
        return params

    def one_less():
        first.unlink()
        return params

    for change in (other_size, other_content, one_less):
        interrupted(partial(ingest.run, params))
        kept = finished_shards("image")
        changed = change()
        ingest.run(changed)
        written = {f"{p.parent.name}/{p.name}": p.stat().st_ino for p in Path("shards/image").glob("*/*.tar")}
        assert not kept.items() <= written.items()
        resumed = tree()
        shutil.rmtree("shards")
        ingest.run(changed)
        assert tree() == resumed
        shutil.rmtree("shards")


def test_masks_of_changed_code_are_not_mixed_with_those_of_the_code_before(params, tmp_path, monkeypatch):
    copy = checkout(tmp_path, monkeypatch)
    ingest.run(params)
    run_masks = partial(masks.run, params)
    for number in range(1, 100):
        killed, said = in_child(run_masks, kill_at=number)
        assert killed == -signal.SIGKILL, said
        if finished_shards("mask"):
            break
    assert len(finished_shards("mask")) == 1  # of two
    draw = DrawnMasks.draw_in_bin
    monkeypatch.setattr(DrawnMasks, "draw_in_bin", lambda *arguments: draw(*arguments)[:, ::-1].copy())
    edit(copy / "masks" / "collection.py")
    run_masks()
    resumed = tree()
    shutil.rmtree("shards/mask")
    run_masks()
    assert resumed == tree()


@pytest.mark.parametrize(
    "path", ["pipeline/planning/price.py", "pipeline/stages/report.py", "datasets/stream/proof.py", "masks/lama.py"]
)
def test_code_that_makes_no_shard_throws_no_finished_shard_away(params, tmp_path, monkeypatch, path):
    copy = checkout(tmp_path, monkeypatch)
    interrupted(partial(ingest.run, params))
    kept = finished_shards("image")
    edit(copy / path)
    ingest.run(params)
    written = {f"{p.parent.name}/{p.name}": p.stat().st_ino for p in Path("shards/image").glob("*/*.tar")}
    assert kept.items() <= written.items()


def test_a_damaged_shard_or_done_note_is_written_again(params):
    ingest.run(params)
    undisturbed = tree()
    assert [path.name for path in Path("shards").iterdir()] == ["image"]  # no staging folder
    assert not list(Path("shards").rglob(".*"))
    for damaged in ("column/*/image-000000.tar", "done/*/image-000000.done"):
        for change in (lambda b: b[:-1], lambda b: b[:700] + bytes([b[700] ^ 1]) + b[701:], lambda b: b""):
            shutil.rmtree("shards")
            interrupted(partial(ingest.run, params))
            path = next(Path("shards/.image.partial").glob(damaged))
            path.write_bytes(change(path.read_bytes()))
            Path("shards/.image.partial/column/train/foreign").write_text("left by somebody")
            ingest.run(params)
            assert tree() == undisturbed


def test_a_shard_without_any_usable_picture_leaves_a_gap_and_no_more(params, tmp_path):
    """Readers number shards by their place in the manifest, and derived columns have the same gap."""
    ingest.run(params)
    rows = Column(Path("shards/image/train")).table.to_pylist()
    for row in rows:
        if row["shard"] == 1:
            (tmp_path / "pictures" / row["source"]).write_bytes(b"")
    params = dataclasses.replace(params, ingest=dataclasses.replace(params.ingest, max_rejected=0.5))
    ingest.run(params)
    edges.run(params)
    images, maps = Column(Path("shards/image/train")), Column(Path("shards/edges/edge/train"))
    check_alignment(images, maps)
    assert [s.name for s in images.manifest.shards].count("image-000001.tar") == 0
    assert len(images.keys) == len(rows) - 2
    for record in range(len(images.keys)):
        assert images.read(record)
        assert maps.read(record)


def test_a_split_without_any_usable_picture_is_named(params, tmp_path):
    for path in (tmp_path / "pictures" / "val").iterdir():
        path.write_bytes(b"")
    params = dataclasses.replace(params, ingest=dataclasses.replace(params.ingest, max_rejected=0.9))
    with pytest.raises(WritingError, match="no record of split val is usable"):
        ingest.run(params)
    assert not Path("shards/image").exists()


def _files(column: str) -> dict[str, tuple[int, int]]:
    """Return the inode and the time of change of every file of a column."""
    files = (path for path in column_folder(column, "").rglob("*") if path.is_file())
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def _outputs() -> dict[str, str]:
    return {name: digest for name, digest in tree().items() if ".made" not in name}


def test_recomputing_one_column_of_edges_touches_no_other(params):
    fine, coarse = EdgeConfig(sigma=1.0), EdgeConfig(sigma=3.0)
    ingest.run(params)
    edges.run(dataclasses.replace(params, edges={"edge": EdgeConfig(), "other": fine}))
    before, digests = {name: _files(name) for name in ("edge", "other")}, _outputs()
    edges.run(dataclasses.replace(params, edges={"edge": EdgeConfig(), "other": coarse, "third": fine}))
    assert _files("edge") == before["edge"]
    assert not _files("other").items() & before["other"].items()
    edges.run(dataclasses.replace(params, edges={"edge": EdgeConfig(), "other": fine}))
    assert _files("edge") == before["edge"]
    assert _outputs() == digests  # and the third is gone


@pytest.mark.parametrize(
    "what",
    [
        "a damaged shard",
        "a cut shard",
        "a lost shard",
        "a lost table",
        "a foreign file",
        "a foreign shard",
        "a foreign folder",
        "other images",
        "other code",
        "another column",
    ],
)
def test_a_column_of_edges_that_would_get_other_bytes_is_written_again(params, tmp_path, monkeypatch, what):
    ingest.run(params)
    edges.run(params)
    before, digests = _files("edge"), _outputs()
    shard = Path("shards/edges/edge/train/edge-000000.tar")
    if what == "a damaged shard":
        content = bytearray(shard.read_bytes())
        content[600] ^= 1
        shard.write_bytes(content)
    elif what == "a cut shard":
        os.truncate(shard, shard.stat().st_size - 1)
    elif what == "a lost shard":
        shard.unlink()
    elif what == "a lost table":
        shard.with_name("records.parquet").unlink()
    elif what == "a foreign file":
        shard.with_name(".notes").write_text("left by somebody")
    elif what == "a foreign shard":
        shutil.copy(shard, shard.with_name("edge-000999.tar"))
    elif what == "a foreign folder":
        (shard.parent / "old").mkdir()
    elif what == "other images":
        params = dataclasses.replace(params, ingest=dataclasses.replace(params.ingest, size=20))
        ingest.run(params)
    elif what == "other code":
        edit(checkout(tmp_path, monkeypatch) / "datasets" / "maps" / "edges.py")
    else:  # DVC may check out a column that another machine made
        note = made_note("edge").read_bytes()
        edges.run(dataclasses.replace(params, edges={"edge": EdgeConfig(sigma=1.0)}))
        made_note("edge").write_bytes(note)
    edges.run(params)
    assert not _files("edge").items() & before.items()
    if what != "other images":
        assert _outputs() == digests
    Column(Path("shards/edges/edge/train")).verify()


def test_everything_else_among_the_columns_of_edges_is_removed(params, tmp_path):
    ingest.run(params)
    edges.run(params)
    before, digests = _files("edge"), _outputs()
    Path("shards/edges/notes.txt").write_text("left by somebody")
    shutil.copytree("shards/edges/edge", "shards/edges/copy")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "kept").touch()
    Path("shards/edges/link").symlink_to(tmp_path / "theirs")
    assert len(_outputs()) > len(digests) + 3
    edges.run(params)
    assert _outputs() == digests
    assert _files("edge") == before
    assert (tmp_path / "theirs" / "kept").exists()


def test_a_column_without_images_is_refused(params):
    with pytest.raises(ManifestError, match="has no complete split; run: dvc repro ingest"):
        edges.run(params)
    with pytest.raises(ManifestError, match="image/val is not complete; run: dvc repro ingest"):
        masks.run(params)


def test_a_column_of_a_changed_image_shard_is_refused_with_both_digests(params):
    ingest.run(params)
    path = Path("shards/image/train/image-000001.tar")
    expected = file_digest(path)
    content = bytearray(path.read_bytes())
    content[600] ^= 1
    path.write_bytes(content)
    with pytest.raises(ShardError, match=rf"image-000001\.tar has digest {file_digest(path)}, .* says {expected}; run"):
        edges.run(params)
    assert not Path("shards/edges/edge").exists()


def test_records_are_in_a_row_group_per_shard(params):
    import pyarrow.parquet as pq

    ingest.run(params)
    for split in ("train", "val"):
        manifest = read_manifest(Path("shards/image", split))
        groups = pq.ParquetFile(Path("shards/image", split, "records.parquet")).metadata
        assert [groups.row_group(n).num_rows for n in range(groups.num_row_groups)] == [
            s.records for s in manifest.shards
        ]


def _peak_bytes(params) -> int:
    """Return the peak memory, in the unit of ru_maxrss, of a process that ingests, its imports included."""
    code = (
        "import pickle, resource, sys\n"
        "from pipeline.stages import ingest\n"
        "ingest.run(pickle.load(sys.stdin.buffer))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, input=pickle.dumps(params), env=environment, capture_output=True, check=True)
    return int(result.stdout.split()[-1])


@pytest.mark.slow
def test_ten_times_the_pictures_take_the_same_memory(params, tmp_path):
    """Within a tenth, between 500 and 5,000 pictures. 5,000 pictures held in memory would be 150 MB."""
    picture = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (100, 100, 3), np.uint8)).save(picture)
    assert picture.stat().st_size > 30_000
    peaks = []
    for count in (500, 5000):
        for number in range(count):
            path = tmp_path / str(count) / ("val" if number % 10 == 0 else "train") / f"{number:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.hardlink_to(picture)
        config = IngestConfig(size=100, format="png", records_per_shard=500)
        dataset = source_config(name="folder", root=str(tmp_path / str(count)))
        peaks.append(_peak_bytes(dataclasses.replace(params, dataset=dataset, ingest=config)))
        assert Column(Path("shards/image/train")).manifest.records == count * 9 // 10
    assert peaks[1] <= 1.1 * peaks[0]
