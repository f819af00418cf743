"""Images taken out of the shards, and kept out."""

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from datasets.shards.column import Column, check_alignment
from datasets.shards.manifest import read_manifest, write_manifest
from datasets.shards.records import ShardError, read_table
from datasets.shards.store import ShardStore, put
from datasets.sources import source_config
from datasets.sources.photos import Photos
from datasets.tombstones import TombstoneError, read_tombstones
from files.objects import StoreConfig, StoreError
from jobs.runs.receipt import Receipt, write_receipt
from pipeline.labels import write_label_files
from pipeline.layout import column_folder
from pipeline.progress import printable
from pipeline.stages import edges, ingest, masks
from pipeline.takedown_text import render_next
from pipeline.verbs import audit, takedown
from pipeline.verbs.takedown import TakedownError
from tests.pipeline.pictures import small_params, tree, write_pictures, write_shards

DAY = "2026-01-31"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with pictures/ and the shards made of them."""
    folder = tmp_path_factory.mktemp("made")
    write_pictures(folder / "pictures")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_shards(small_params(folder / "pictures"))
    return folder


@pytest.fixture
def params(made, tmp_path, monkeypatch):
    """Parameters; the working folder holds a copy of the pictures and the shards."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return small_params(tmp_path / "pictures")


def contents():
    """Digest of every member of every column, by split, column, key and field."""
    found = {}
    for path in sorted(Path("shards").rglob("manifest.json")):
        for row in read_table(path.parent).to_pylist():
            found[path.parent.name, path.parent.parent.name, row["key"], row["field"]] = row["sha256"]
    return found


def test_only_touched_shards_change_and_every_other_record_stays(params):
    files, records = tree(), contents()
    gone = {"train/003", "val/010"}
    touched = {
        str(column_folder(column, split) / f"{column}-{row['shard']:06d}.tar")
        for column in ("image", "edge", "semantics", "mask")
        for split in ("train", "val")
        if (column_folder(column, split)).is_dir()
        for row in Column(column_folder(column, split)).table.to_pylist()
        if row["key"] in gone
    }
    assert len(touched) == 7  # three columns of each split, and the masks of one
    outcome = takedown.run(params, ["train/003", "val/010.png"], "the owner asked", DAY)
    assert {each.key for each in outcome.removed} == gone
    after = tree()
    assert after.keys() == files.keys()
    assert {path for path in files if path.endswith(".tar") and files[path] != after[path]} == touched
    assert contents() == {place: digest for place, digest in records.items() if place[2] not in gone}
    for split in ("train", "val"):
        for column in ("edge", "semantics", "mask"):
            if (column_folder(column, split)).is_dir():
                check_alignment(Column(Path("shards/image", split)), Column(column_folder(column, split)))
    assert not audit.run(params).findings
    assert [(t.key, t.reason, t.date) for t in read_tombstones(Path("tombstones.jsonl"))] == [
        ("train/003", "the owner asked", DAY),
        ("val/010", "the owner asked", DAY),
    ]


@pytest.mark.parametrize("names", [["train/003"], [f"train/{n:03d}" for n in range(1, 40) if n % 5][:20], ["shard"]])
def test_a_fresh_ingest_with_the_tombstones_gives_the_very_bytes(params, names):
    """ "shard" stands for all records of the second shard: it is left out, and the numbers of the others stay."""
    if names == ["shard"]:
        column = Column(Path("shards/image/train"))
        names = [column.keys[record].as_py() for record in column.records_of(1)]
    takedown.run(params, names, "asked", DAY)
    # Labels by k-means keep their clusters, which a fresh fit would change for every image.
    taken = {path: digest for path, digest in tree().items() if "/semantics/" not in path}
    ingest.run(params)
    edges.run(params)
    masks.run(params)
    fresh = {path: digest for path, digest in tree().items() if "/semantics/" not in path}
    assert taken == fresh
    assert not [f for f in audit.run(params).findings if "semantics" not in f.file]
    rejected = read_manifest(Path("shards/image/train")).rejected
    assert {(reject.name, reject.reason) for reject in rejected} == {(f"{name}.png", "taken down") for name in names}


def test_it_does_so_beside_rejected_pictures_and_when_the_only_label_goes(params):
    """Rejects of all shards are listed in one order, and a column of the table without any value has no type."""
    Path("pictures/train/only").mkdir()
    shutil.move("pictures/train/003.png", "pictures/train/only/003.png")
    for number in range(4):
        Path(f"pictures/train/bad{number}.png").write_bytes(b"")
    for column in ("edge", "semantics", "mask"):
        shutil.rmtree(column_folder(column, ""))
    ingest.run(params)
    assert sum(label is not None for label in Column(Path("shards/image/train")).table["label"].to_pylist()) == 1
    takedown.run(params, ["train/only/003"], "asked", DAY)
    taken = tree()
    ingest.run(params)
    assert tree() == taken


def test_a_renamed_copy_stays_out_and_a_cut_of_the_same_photograph_stays_in(params):
    shutil.copy("pictures/train/003.png", "pictures/train/renamed.png")
    ingest.run(params)
    edges.run(params)
    shutil.rmtree("shards/semantics")
    shutil.rmtree("shards/mask")
    outcome = takedown.run(params, ["train/003"], "asked", DAY)
    assert {each.key for each in outcome.removed} == {"train/003", "train/renamed"}
    shutil.move("pictures/train/renamed.png", "pictures/val/elsewhere.png")
    ingest.run(params)
    assert "val/elsewhere" not in Column(Path("shards/image/val")).keys.to_pylist()
    assert [r.reason for r in read_manifest(Path("shards/image/val")).rejected] == ["taken down"]


def test_one_copy_alone_can_go(params):
    shutil.copy("pictures/train/003.png", "pictures/val/003.png")
    write_shards(params)
    outcome = takedown.run(params, ["train/003"], "leaked", DAY, this_copy_only=True)
    assert {each.key for each in outcome.removed} == {"train/003"}
    ingest.run(params)
    assert "val/003" in Column(Path("shards/image/val")).keys.to_pylist()


def test_a_key_of_a_cut_takes_the_cut_and_a_source_takes_all_of_them(params, monkeypatch):
    """As in the data set `photos`, whose records are squares of a few photographs."""
    monkeypatch.setattr(Photos, "_PHOTOGRAPHS", [f"skimage/data/{n}.png" for n in ("astronaut", "chelsea", "coffee")])
    monkeypatch.setattr(Photos, "_GRID", 3)
    photos = dataclasses.replace(params, dataset=source_config(name="photos"))
    ingest.run(photos)
    for column in ("edge", "semantics", "mask"):
        shutil.rmtree(column_folder(column, ""))
    outcome = takedown.run(photos, ["astronaut/r1c2"], "asked", DAY)
    assert [each.key for each in outcome.removed] == ["astronaut/r1c2"]
    outcome = takedown.run(photos, ["skimage/data/astronaut.png"], "asked", DAY)
    assert {each.key for each in outcome.removed} == {
        f"astronaut/r{r}c{c}" for r in range(3) for c in range(3) if (r, c) != (1, 2)
    }
    taken = tree()
    ingest.run(photos)
    assert tree() == taken


def test_killed_at_any_point_the_same_command_finishes(params, tmp_path):
    """At every file that is opened for writing, renamed or removed, and every folder made or removed."""
    for column in ("semantics", "mask"):
        shutil.rmtree(column_folder(column, ""))
    shutil.copytree("shards", tmp_path / "clean")
    takedown.run(params, ["train/003"], "asked", DAY)
    expected = tree(), Path("tombstones.jsonl").read_bytes()
    codes, finished_by_itself = [], 0
    while 0 not in codes:
        shutil.rmtree("shards")
        Path("tombstones.jsonl").unlink(missing_ok=True)
        shutil.copytree(tmp_path / "clean", "shards")
        if (child := os.fork()) == 0:
            _takedown_killed_at(len(codes) + 1, params)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        for manifest in (path for path in Path("shards").rglob("manifest.json") if ".takedown" not in path.parts):
            Column(manifest.parent).verify()  # complete means whole, at any time
        finished_by_itself += "train/003" not in _keys()
        takedown.run(params, ["train/003"], "asked", DAY)
        assert (tree(), Path("tombstones.jsonl").read_bytes()) == expected, f"killed at change {len(codes)}"
    assert codes[:-1] == [77] * (len(codes) - 1)
    assert len(codes) > 30
    assert 1 < finished_by_itself < len(codes)


def _keys():
    folder = Path("shards/image/train")
    return Column(folder).keys.to_pylist() if (folder / "manifest.json").is_file() else []


def _takedown_killed_at(change, params, *, after="", reads=False):
    """In a forked child: die without any clean-up just before the n-th change on the disk.

    after: count only once a file of this name is there. reads: count files of shards/ that are opened to read, too.
    """
    left, counts = change, not after

    def count(event, arguments):
        nonlocal left, counts
        if event == "open":
            name = arguments[0] if isinstance(arguments[0], str) else ""
            changes = name and ((arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR) or (reads and "shards/" in name))
        else:
            changes = event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir")
        left -= bool(changes and counts)
        counts = counts or (event == "os.rename" and str(arguments[1]).endswith(after))
        if left == 0:
            os._exit(77)

    signal.alarm(60)
    try:
        sys.addaudithook(count)
        takedown.run(params, ["train/003"], "asked", DAY)
        os._exit(0)
    finally:
        os._exit(1)


def test_what_is_damaged_is_not_written_anew_under_good_digests(params):
    path = Path("shards/image/train/image-000001.tar")
    column = Column(path.parent)
    victim, other = (column.keys[column.records_of(1)[n]].as_py() for n in (0, 1))
    row = next(row for row in column.table.to_pylist() if row["key"] == other)
    content = bytearray(path.read_bytes())
    content[row["offset"] + 50] ^= 1
    path.write_bytes(content)
    before = tree()
    with pytest.raises(ShardError, match=rf"image-000001\.tar: {other}\.png differs from its digest"):
        takedown.run(params, [victim], "asked", DAY)
    assert tree() == before
    assert not Path("tombstones.jsonl").exists()


def test_columns_of_other_images_and_empty_splits_are_refused(params):
    before = tree()
    with pytest.raises(ShardError, match=r"no record of shards/image/val would be left"):
        takedown.run(params, [f"val/{n:03d}" for n in range(0, 40, 5)], "asked", DAY)
    assert tree() == before
    edges = Path("shards/edges/edge/train")
    write_manifest(edges, dataclasses.replace(read_manifest(edges), made_from="0" * 64))
    with pytest.raises(ShardError, match=r"was made from images 0000.*run: dvc repro edges"):
        takedown.run(params, ["train/003"], "asked", DAY)
    assert not Path("tombstones.jsonl").exists()


@pytest.mark.parametrize(
    ("names", "reason", "day", "message"),
    [
        (["train/03"], "asked", DAY, r"'train/03' is neither a key nor a source of folder,.*; did you mean train/039"),
        (["train/003"], " ", DAY, "--reason is missing"),
        (["train/003"], "asked", "31.1.2026", "--date must be YYYY-MM-DD, got '31.1.2026'"),
        (["../../x", "$(touch canary)"], "asked", DAY, r"'\.\./\.\./x' is neither a key nor a source"),
    ],
)
def test_a_wrong_word_changes_nothing(params, names, reason, day, message):
    before = tree()
    with pytest.raises(TakedownError, match=message):
        takedown.run(params, names, reason, day)
    assert tree() == before
    assert not Path("tombstones.jsonl").exists()


@pytest.mark.parametrize("line", ["{", "[]", '{"key": "a"}', '{"dataset": 1}'])
def test_an_edited_line_is_named(params, line):
    takedown.run(params, ["train/003"], "asked", DAY)
    with Path("tombstones.jsonl").open("a") as file:
        file.write(line + "\n")
    for verb in (lambda: ingest.run(params), lambda: takedown.run(params, [], None)):
        with pytest.raises(TombstoneError, match=r"tombstones\.jsonl, line 2 is not a tombstone"):
            verb()


def test_a_tombstone_set_by_hand_is_obeyed_and_twice_is_once(params):
    takedown.run(params, ["train/003"], "asked", DAY)
    line = json.loads(Path("tombstones.jsonl").read_text())
    Path("tombstones.jsonl").write_text("# kept\n" + json.dumps(line))  # without an end of line
    with Path("tombstones.jsonl").open("a") as file:
        file.write("\n" + json.dumps(line | {"key": "train/004", "every_copy": False}))
    assert [f.key for f in audit.run(params).findings] == ["train/004"]
    assert [each.key for each in takedown.run(params, [], None).removed] == ["train/004"]
    after = tree()
    assert not takedown.run(params, ["train/003"], "asked again", "2026-02-01").removed
    assert tree() == after
    assert len(read_tombstones(Path("tombstones.jsonl"))) == 2
    takedown.run(params, ["train/006"], "asked", DAY)
    assert [t.key for t in read_tombstones(Path("tombstones.jsonl"))] == ["train/003", "train/004", "train/006"]
    assert Path("tombstones.jsonl").read_text().startswith("# kept\n")


def test_generators_trained_on_the_images_are_named(params):
    digest = read_manifest(Path("shards/image/train")).digest
    for name, images in (("seen", digest), ("other", "0" * 64)):
        Path("models", name).mkdir(parents=True)
        receipt = Receipt(
            generator=name,
            config={},
            edges=params.edges["edge"],
            seed=1,
            steps=1,
            samples_seen=16,
            world_sizes=(1,),
            not_repeatable=(),
            images=images,
            columns={},
            train={},
            weights_sha256="0" * 64,
            experiment="0" * 64,
            parameters={},
        )
        write_receipt(Path("models", name), receipt)
    outcome = takedown.run(params, ["train/003"], "asked", DAY)
    assert outcome.models == ("seen",)
    assert "dvc commit -f ingest edges semantics masks" in render_next(outcome)
    assert json.loads(json.dumps(dataclasses.asdict(outcome)))["models"] == ["seen"]


def test_names_cannot_move_the_cursor():
    assert printable("a\x1b[2Jb\nc\u202eé") == r"a\x1b[2Jb\nc\u202eé"


@pytest.fixture
def in_store(params, s3):
    """The parameters; every shard of the working folder has moved to a store."""
    params = dataclasses.replace(params, store=StoreConfig(url="s3://bucket/prefix", cache="cache", wait_seconds=0.01))
    for path in Path("shards").rglob("manifest.json"):
        for shard in read_manifest(path.parent).shards:
            put(params.store, path.parent, shard)
    return params


def objects(s3):
    """Content of every object of the store."""
    return {name: s3.cat_file(name) for name in s3.find("bucket")}


def test_in_a_store_the_image_is_gone_and_all_else_is_what_it_is_beside_the_manifests(made, in_store, s3):
    before, names = contents(), {"train/003", "val/010"}
    columns = [
        Column(column_folder(column, split), store=in_store.store)
        for column, split in (("image", "train"), ("edge", "train"), ("image", "val"), ("mask", "val"))
    ]
    gone = [
        column.read(record, field)
        for column in columns
        for record, key in enumerate(column.keys.to_pylist())
        for field in column.fields
        if key in names
    ]
    assert len(gone) == 3 + 6
    there = objects(s3)
    assert all(any(content in whole for whole in there.values()) for content in gone)
    outcome = takedown.run(in_store, sorted(names), "asked", DAY)
    assert "the old objects are removed from the store" in render_next(outcome)
    left = objects(s3)
    assert not [content for content in gone if any(content in whole for whole in left.values())]
    assert not [c for c in gone for path in Path("cache").rglob("*.tar") if c in path.read_bytes()]
    assert len(there.keys() - left) == len(left.keys() - there) == 7
    assert not list(Path("shards").rglob("*.tar"))
    assert contents() == {place: digest for place, digest in before.items() if place[2] not in names}
    assert not audit.run(in_store).findings
    tables = tree()
    shutil.rmtree("shards")
    shutil.copytree(made / "shards", "shards")
    Path("tombstones.jsonl").unlink()
    takedown.run(dataclasses.replace(in_store, store=StoreConfig()), sorted(names), "asked", DAY)
    beside = tree()
    assert {name: digest for name, digest in beside.items() if not name.endswith(".tar")} == tables
    assert {digest for name, digest in beside.items() if name.endswith(".tar")} == {
        hashlib.sha256(content).hexdigest() for content in left.values()
    }


@pytest.mark.slow
def test_killed_amid_the_store_the_same_command_finishes(in_store, s3, tmp_path):
    """Before each third file that is opened, even for reading, renamed or removed once all was decided."""
    for column in ("semantics", "mask"):
        shutil.rmtree(column_folder(column, ""))
    clean, expected, codes = objects(s3), None, []
    shutil.copytree("shards", tmp_path / "clean")
    while 0 not in codes:
        for path in ("shards", "cache"):
            shutil.rmtree(path, ignore_errors=True)
        Path("tombstones.jsonl").unlink(missing_ok=True)
        shutil.copytree(tmp_path / "clean", "shards")
        there = set(s3.find("bucket"))
        for name in there - clean.keys():
            s3.rm_file(name)
        for name in clean.keys() - there:
            s3.pipe_file(name, clean[name])
        if (child := os.fork()) == 0:
            _takedown_killed_at(1 + 3 * len(codes), in_store, after=".takedown/note.json", reads=True)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        takedown.run(in_store, ["train/003"], "asked", DAY)
        found = tree(), set(s3.find("bucket"))
        expected = expected or found
        assert found == expected
    assert codes[:-1] == [77] * (len(codes) - 1)
    assert len(codes) > 5
    assert len(expected[1] - clean.keys()) == len(clean.keys() - expected[1]) == 2
    assert not Path("shards/.takedown").exists()


def test_a_store_that_takes_nothing_stops_before_anything_is_decided(in_store):
    before = tree()
    elsewhere = dataclasses.replace(in_store, store=StoreConfig(url="https://example.invalid/prefix"))
    with pytest.raises(StoreError, match=r"https://example\.invalid/prefix can only be read"):
        takedown.run(elsewhere, ["train/003"], "asked", DAY)
    assert tree() == before
    assert not Path("tombstones.jsonl").exists()


def test_an_audit_reads_the_store_and_not_its_cache(in_store, s3):
    column = Column(Path("shards/image/train"), store=in_store.store)
    row = column.table.to_pylist()[0]
    column.read(0)  # a sound copy is in the cache from here on
    shard = column.manifest.shards[0]
    address = ShardStore(in_store.store).url_of(shard)
    sound = s3.cat_file(address)
    wrong = bytearray(sound)
    wrong[row["offset"] + 50] ^= 1
    s3.pipe_file(address, bytes(wrong))
    digest = hashlib.sha256(wrong).hexdigest()
    assert {(f.file, f.key, f.problem) for f in audit.run(in_store).findings} == {
        (address, "", f"has digest {digest}, its manifest says {shard.sha256}"),
        (address, row["key"], "png differs from its digest"),
    }
    s3.rm_file(address)
    (finding,) = audit.run(in_store).findings
    assert (finding.file, finding.problem) == (address, f"{address} is missing")
    s3.pipe_file(address, sound)
    assert not audit.run(in_store).findings
    assert not list(Path("cache").glob(".copy-*"))


def digest_of(number: str) -> str:
    path = Path("pictures/train", f"{number}.png")
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def write_line(**changes) -> None:
    """The file with the tombstone of train/003, changed."""
    line = {
        "dataset": "folder", "key": "train/003", "source": "train/003.png", "source_sha256": digest_of("003"),
        "every_copy": False, "status": "taken down", "reason": "asked", "date": DAY,
    }  # fmt: skip
    Path("tombstones.jsonl").write_text(json.dumps(line | changes) + "\n")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda path: path.mkdir(), r"tombstones\.jsonl cannot be read \(Is a directory\); restore it from git"),
        (lambda path: path.symlink_to("absent"), r"tombstones\.jsonl cannot be read \(No such file"),
        (lambda path: path.write_text("[" * 100_000), r"line 1 is not a tombstone \(maximum recursion depth"),
        (lambda path: path.write_text("# kept\n" + '{"a":' * 100_000), r"line 2 is not a tombstone"),
        (lambda path: path.write_bytes(b'{"key": "\xff"}'), r"line 1 is not a tombstone \('utf-8' codec"),
        (lambda path: path.write_bytes(b"\n"), r"line 1 is not a tombstone"),
        (lambda path: path.write_text('{"key": "a", "key": "b"}'), r"line 1 .* \(a name occurs twice\)"),
    ],
)
def test_a_file_that_cannot_be_read_stops_every_verb_at_once(params, monkeypatch, fault, message):
    fault(Path("tombstones.jsonl"))
    monkeypatch.setattr("pipeline.stages.ingest.open_source", None)  # nothing of the source is read before
    for verb in (lambda: ingest.run(params), lambda: takedown.run(params, [], None), lambda: audit.run(params)):
        with pytest.raises(TombstoneError, match=message) as error:
            verb()
        assert len(str(error.value)) < 300
        assert "\n" not in str(error.value)


def test_what_trainings_read_of_the_labels_follows_a_takedown(params):
    write_label_files({"sge_net": None, "csa": None}, ["sge_net"])
    before = Path("shards/labels/sge_net.txt").read_text()
    assert before.strip() == read_manifest(Path("shards/semantics/train")).digest
    takedown.run(params, ["train/003"], "asked", DAY)
    after = Path("shards/labels/sge_net.txt").read_text()
    assert after.strip() == read_manifest(Path("shards/semantics/train")).digest
    assert after != before
    assert Path("shards/labels/csa.txt").read_text() == "reads no label maps\n"


def test_two_lines_of_one_key_with_other_digests_are_named(params):
    write_line()
    first = Path("tombstones.jsonl").read_text()
    write_line(source_sha256="0" * 64)
    Path("tombstones.jsonl").write_text(f"{first}# kept\n{first}{Path('tombstones.jsonl').read_text()}")
    with pytest.raises(TombstoneError, match=r"lines 1 and 4 name train/003 of folder with different digests"):
        ingest.run(params)


def test_a_project_without_the_file_is_refused(params):
    Path("dvc.yaml").touch()
    with pytest.raises(TombstoneError, match=r"tombstones\.jsonl is missing, .*; restore it from git"):
        ingest.run(params)


def test_a_picture_that_is_renamed_after_its_takedown_stays_out(params, caplog):
    """And an audit of shards that have it tells so. A duplicate may come back: its copy has the same bytes."""
    Path("pictures/train/003.png").rename("pictures/train/new.png")
    ingest.run(params)
    write_line(source_sha256=digest_of("new"))
    ingested = [(f.key, f.problem) for f in audit.run(params).findings if "keeps out under another key" in f.problem]
    assert [key for key, _ in ingested] == ["train/new"]
    assert ingested[0][1].endswith("run: python -m pipeline takedown train/new")
    ingest.run(params)
    assert "line 1: folder has no picture with the key 'train/003'; it is kept out by its bytes alone" in caplog.text
    manifest = read_manifest(Path("shards/image/train"))
    assert [(each.name, each.reason) for each in manifest.rejected] == [("train/new.png", "taken down")]
    write_line(source_sha256=digest_of("new"), status="duplicate")
    ingest.run(params)
    assert read_manifest(Path("shards/image/train")).rejected == ()


def test_a_key_that_has_another_picture_now_stops_ingest(params):
    Path("pictures/train/003.png").rename("pictures/train/kept.png")
    shutil.copy("pictures/train/004.png", "pictures/train/003.png")
    shutil.move("pictures/train/kept.png", "pictures/train/004.png")
    digest = digest_of("004")
    write_line(source_sha256=digest)
    before = tree()
    with pytest.raises(TombstoneError, match=rf"line 1: train/003 of folder has the SHA-256 \w+, not {digest}\."):
        ingest.run(params)
    assert tree() == before
    write_line(key="train/004", source_sha256=digest)
    ingest.run(params)
    assert [each.name for each in read_manifest(Path("shards/image/train")).rejected] == ["train/004.png"]
