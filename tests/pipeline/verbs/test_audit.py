"""Every kind of damage to shards is found, by file and key; sound shards are found sound."""

import io
import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.photographs import photograph
from datasets.shards.column import Column
from datasets.shards.manifest import Shard, read_manifest, write_manifest
from datasets.shards.records import read_table, shard_name, write_table
from datasets.writing.tars import NewRecord, write_shard
from files.durable import file_digest
from files.pictures import encode_grey_png, encode_png
from pipeline.__main__ import main
from pipeline.layout import column_folder
from pipeline.stages import ingest
from pipeline.verbs import audit
from pipeline.verbs.audit import AuditError
from tests.pipeline.pictures import ROOT, small_params, tree, write_pictures, write_shards


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    write_pictures(folder / "pictures", 20)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_shards(small_params(folder / "pictures", records_per_shard=4, max_rejected=0.2))
    return folder


@pytest.fixture
def params(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return small_params(tmp_path / "pictures", records_per_shard=4, max_rejected=0.2)


def found(params):
    return {(Path(f.file).name, f.key, f.problem) for f in audit.run(params).findings}


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def rewrite(folder, change, number=1):
    """Write a shard anew with other members, and its records and manifest as if that were right."""
    folder = Path(folder)
    column = Column(folder)
    name = column.manifest.column
    rows = {(row["key"], row["field"]): row for row in column.table.to_pylist()}
    samples = []
    for record in column.records_of(number):
        key = column.keys[record].as_py()
        members = {field: column.read(record, field) for field in column.fields}
        row = rows[key, column.fields[0]]
        about = {n: v for n, v in row.items() if n not in ("key", "field", "shard", "offset", "length", "sha256")}
        samples.append(NewRecord(key=key, members=members, about=about))
    samples = change(samples)
    shard, fields = write_shard(folder, name, number, samples)
    new = [{**vars(field), **field.about} for field in fields]
    table = read_table(folder).to_pylist()
    first = next(i for i, row in enumerate(table) if row["shard"] == number)
    others = [row for row in table if row["shard"] != number]
    table = others[:first] + [{n: v for n, v in row.items() if n != "about"} for row in new] + others[first:]
    shards = tuple(shard if each.name == shard_name(name, number) else each for each in column.manifest.shards)
    digest = write_table(folder, pa.Table.from_pylist(table))
    write_manifest(folder, replace(column.manifest, shards=shards, records_sha256=digest))
    return samples[0].key


def with_first(members):
    """Replace members of the first record."""
    return lambda samples: [replace(samples[0], members={**samples[0].members, **members}), *samples[1:]]


def belong(*columns):
    """Make columns say that they were made from the images as they are."""
    digest = read_manifest(Path("shards/image/train")).digest
    for column in columns or ("edge", "semantics"):
        folder = column_folder(column, "train")
        write_manifest(folder, replace(read_manifest(folder), made_from=digest))


def test_sound_shards_are_read_whole_and_left_alone(params):
    before = tree()
    result = audit.run(params)
    assert not result.findings
    assert result.records == 20
    tars = sum(path.stat().st_size for path in Path("shards").rglob("*.tar"))
    assert result.bytes == tars
    assert tree() == before


def test_each_flipped_bit_of_each_column_is_found_with_its_shard(params):
    draw = np.random.default_rng(0)
    tars = sorted(Path("shards").rglob("*.tar"))
    for _ in range(12):
        path = tars[draw.integers(len(tars))]
        place = int(draw.integers(path.stat().st_size))
        flip(path, place)
        problems = found(params)
        assert any(name == path.name and "digest" in problem for name, _, problem in problems), (path, place)
        assert {name for name, _, _ in problems} == {path.name}
        inside = [
            row["key"]
            for row in read_table(path.parent, shard=int(path.stem[-6:])).to_pylist()
            if row["offset"] <= place < row["offset"] + row["length"]
        ]
        assert {key for _, key, problem in problems if problem.endswith("differs from its digest")} == set(inside)
        flip(path, place)


def test_missing_foreign_and_cut_files_are_found(params):
    Path("shards/edges/edge/train/edge-000001.tar").unlink()
    Path("shards/image/train/image-000009.tar").write_bytes(b"")
    cut = Path("shards/mask/val/mask-000000.tar")
    cut.write_bytes(cut.read_bytes()[:-3000])
    Path("shards/semantics/val/manifest.json").unlink()
    problems = found(params)
    assert ("edge-000001.tar", "", "is missing") in problems
    assert ("image-000009.tar", "", "belongs to no column") in problems
    assert any(name == "mask-000000.tar" and "bytes, its manifest says" in problem for name, _, problem in problems)
    assert any(name == "val" and "manifest.json is missing" in problem for name, _, problem in problems)


@pytest.mark.parametrize("name", ["other/1.png", "train/.hidden.png", "x.pyd", "__meta__.json"])
def test_a_member_that_is_in_no_record_is_found(params, name):
    """Signed or not: the manifest lists the digest of the tar with the foreign member."""
    folder = Path("shards/image/train")
    path = folder / "image-000001.tar"
    with tarfile.open(path, "a") as tar:
        member = tarfile.TarInfo(name)
        member.size = 5
        tar.addfile(member, io.BytesIO(b"12345"))
    manifest = read_manifest(folder)
    shard = Shard(name=path.name, records=4, bytes=path.stat().st_size, sha256=file_digest(path))
    shards = tuple(shard if each.name == path.name else each for each in manifest.shards)
    write_manifest(folder, replace(manifest, shards=shards))
    belong()
    assert found(params) == {(path.name, "", f"holds {name!r}, which is in no record")}


def test_images_that_are_not_what_their_records_say_are_found(params):
    cases = {
        b"no picture": "png does not decode: not a JPEG or PNG image",
        encode_png(photograph(1, 32))[:-60]: "png does not decode: damaged or cut short",
        encode_png(photograph(1, 24)): "png is 24 x 24, its record says 32 x 32",
    }
    for content, problem in cases.items():
        key = rewrite("shards/image/train", with_first({"png": content}))
        belong()
        assert found(params) == {("image-000001.tar", key, problem)}


def test_maps_that_do_not_fit_are_found(params):
    grey, wide = np.full((32, 32), 7, np.uint8), np.zeros((32, 30), np.uint8)
    full = np.full((32, 32), 255, np.uint8)
    cases = [
        ("edges/edge/train", {"png": encode_grey_png(grey)}, "png has values other than 0 and 255"),
        ("edges/edge/train", {"png": encode_grey_png(wide)}, "png is 30 x 32, its image 32 x 32"),
        ("edges/edge/train", {"png": encode_png(photograph(1, 32))}, "not a label map of 8 bits in one channel"),
        ("semantics/train", {"png": encode_grey_png(grey)}, "png has label 7, but there are 4 classes"),
        ("mask/val", {"mask-0p1-0p2.png": encode_grey_png(full)}, "hole ratio 1.0000, which is not in its bin"),
        ("mask/val", {"mask-0p3-0p4.png": encode_grey_png(grey)}, "0p4.png has values other than 0 and 255"),
    ]
    for folder, members, problem in cases:
        number = 0 if folder == "mask/val" else 1
        saved = shutil.copytree(Path("shards") / folder, "saved")
        key = rewrite(Path("shards") / folder, with_first(members), number)
        ((name, where, said),) = found(params)
        assert (Path(name).suffix, where) == (".tar", key)
        assert problem in said
        shutil.rmtree(Path("shards") / folder)
        shutil.move(saved, Path("shards") / folder)


def test_keys_that_a_column_lacks_or_orders_otherwise_are_found(params):
    saved = shutil.copytree("shards/edges/edge/train", "saved")
    rewrite("shards/edges/edge/train", lambda samples: samples[::-1])
    assert found(params) == {("edge-000001.tar", "", "its records are in another order than the images")}
    shutil.rmtree("shards/edges/edge/train")
    shutil.move(saved, "shards/edges/edge/train")
    lost = Column(Path("shards/edges/edge/train")).keys[4].as_py()
    rewrite("shards/edges/edge/train", lambda samples: samples[1:])
    assert ("edge-000001.tar", lost, "is missing from this column") in found(params)


def test_a_column_of_other_images_is_found(params):
    shutil.move("shards/edges/edge/val", "aside")
    shutil.copytree("shards/edges/edge/train", "shards/edges/edge/val")
    problems = found(params)
    assert any("was made from other images; run: dvc repro edges" in problem for _, _, problem in problems)
    assert any('split is "train", expected "val"; run: dvc repro edges' in problem for _, _, problem in problems)


def test_equal_pictures_on_both_sides_are_found_and_the_training_copy_can_be_quarantined(params):
    shutil.copy("pictures/val/005.png", "pictures/train/leak.png")
    write_shards(params)
    (finding,) = audit.run(params).findings
    assert (finding.key, finding.problem) == ("train/leak", "has the same bytes as val/005 of split val")
    result = audit.run(params, quarantine=True)
    assert [(each.key, each.status) for each in result.quarantined.removed] == [("train/leak", "duplicate")]
    assert not audit.run(params).findings
    kept = Column(Path("shards/image/train")).keys.to_pylist()
    ingest.run(params)
    assert Column(Path("shards/image/train")).keys.to_pylist() == kept
    assert "val/005" in Column(Path("shards/image/val")).keys.to_pylist()


def test_an_unusable_image_is_quarantined_counted_and_listed(params):
    key = rewrite("shards/image/train", with_first({"png": b"no picture"}))
    belong()
    result = audit.run(params, quarantine=True)
    assert [(each.key, each.status) for each in result.quarantined.removed] == [(key, "damaged")]
    assert [(r.name, r.reason) for r in read_manifest(Path("shards/image/train")).rejected] == [
        (f"{key}.png", "damaged")
    ]
    after = audit.run(params)
    assert not after.findings
    assert after.rejected == {"damaged": 1}


def test_what_restoring_would_mend_is_not_quarantined(params):
    flip(Path("shards/image/train/image-000001.tar"), 600)
    before = tree()
    with pytest.raises(AuditError, match=r"Restore or rebuild those files first \(dvc checkout --force"):
        audit.run(params, quarantine=True)
    assert tree() == before
    assert not Path("tombstones.jsonl").exists()


def test_too_many_unusable_images_are_a_clear_stop(params):
    for number in (0, 1, 2):
        rewrite("shards/image/train", lambda s: [replace(x, members={"png": b"?"}) for x in s[:2]] + s[2:], number)
    belong()
    with pytest.raises(
        AuditError, match=r"6 of 20 images would be left out, more than ingest\.max_rejected = 0\.2 allows"
    ):
        audit.run(params, quarantine=True)
    assert not Path("tombstones.jsonl").exists()


def test_the_exit_code_says_whether_something_is_wrong(params, capsys):
    text = (ROOT / "params.yaml").read_text().replace("name: photos\n  root: null", "name: folder\n  root: pictures")
    text = text.replace("\n  size: 64\n", "\n  size: 32\n").replace("num_workers: 2", "num_workers: 0")
    text = text.replace("records_per_shard: 56", "records_per_shard: 4")
    Path("params.yaml").write_text(text.replace("source: kmeans", "source: kmeans\n  num_clusters: 4"))
    assert main(["audit"]) == 0
    assert "20 records in 2 splits (train, val); left out at ingest: none; wrong: 0" in capsys.readouterr().out
    flip(Path("shards/edges/edge/val/edge-000000.tar"), 700)
    assert main(["audit", "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert {Path(f["file"]).name for f in printed["findings"]} == {"edge-000000.tar"}
    assert main(["audit", "--quarantine"]) == 1
    assert "Restore or rebuild those files first" in capsys.readouterr().err
