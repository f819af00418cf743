"""Shards in stores on loopback: an S3 server, and an HTTP server that misbehaves on request."""

import fcntl
import hashlib
import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks.photographs import samples, write_column, write_split
from datasets.shards.cache import Cache, CacheFullError
from datasets.shards.column import Column
from datasets.shards.manifest import Shard
from datasets.shards.records import ShardError
from datasets.shards.store import ShardStore, put
from datasets.stream.plan import PlanConfig
from files.objects import ObjectStore, SilentStoreError, StoreConfig, StoreError
from jobs.checks.audit import AuditTask, ColumnShard, audit_shards
from jobs.training.samples import TrainingSamples
from jobs.training.settings import SampleConfig

ROOT = Path(__file__).resolve().parent.parent.parent.parent


class _Misbehaving(http.server.BaseHTTPRequestHandler):
    """Serves `server.files` by path; `server.faults` are used one per answer: "short", "cut", "wrong", "stall"."""

    def do_GET(self):
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        fault = self.server.faults.pop(0) if self.server.faults else None
        self.server.answers.append(fault)
        self.send_response(200)
        if fault != "short":  # then the end of the connection is the end of the body
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if fault == "stall":
            self.wfile.flush()
            self.server.over.wait(30)
        if fault == "wrong":
            content = content[:700] + bytes([content[700] ^ 1]) + content[701:]
        self.wfile.write(content[: len(content) // 2] if fault in ("short", "cut", "stall") else content)

    def log_message(self, *_):
        pass


@pytest.fixture
def web():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Misbehaving)
    server.files, server.faults, server.answers, server.over = {}, [], [], threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.url = f"http://127.0.0.1:{server.server_address[1]}/shards"
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()


def config(url, tmp_path, **changes):
    options = {"cache": str(tmp_path / "cache"), "wait_seconds": 0.01, "attempts": 3, **changes}
    return StoreConfig(url=url, **options)


def serve(web, folder):
    """Move a column's tars to the web server."""
    for shard in Column(folder).manifest.shards:
        web.files[f"/shards/{Path(shard.name).stem}-{shard.sha256}.tar"] = (folder / shard.name).read_bytes()
        (folder / shard.name).unlink()


def move_to_store(folder, store):
    for shard in Column(folder).manifest.shards:
        put(store, folder, shard)


def test_training_from_an_s3_store_reads_what_it_reads_beside_the_manifests(s3, tmp_path):
    folders = write_split(tmp_path, 20, size=32, per_shard=7)

    def batches(store, num_workers):
        stream = TrainingSamples(folders, SampleConfig(), 1, store)
        return list(stream.loader(steps=range(6), batch_size=4, rank=0, world_size=1, num_workers=num_workers))

    local = batches(None, 0)
    digests = {name: Column(folder).manifest.digest for name, folder in folders.items()}
    store = config("s3://bucket/some/prefix", tmp_path)
    for folder in folders.values():
        move_to_store(folder, store)
        assert not list(folder.glob("*.tar"))
        Column(folder, store=store).verify()
    assert digests == {name: Column(folder, store=store).manifest.digest for name, folder in folders.items()}
    for num_workers in (0, 2):
        for one, other in zip(local, batches(store, num_workers), strict=True):
            assert one.key == other.key
            assert (one.image == other.image).all()
            assert (one.maps["edge"] == other.maps["edge"]).all()
    names = s3.find("bucket/some/prefix")
    assert len(names) == 9
    assert len(list((tmp_path / "cache").glob("*.tar"))) == 9


def test_a_wrong_byte_in_s3_is_refused_with_both_digests(s3, tmp_path):
    store = config("s3://bucket/p", tmp_path)
    shard = write_column(tmp_path / "image", "image", samples()).manifest.shards[1]
    move_to_store(tmp_path / "image", store)
    place = ShardStore(store).url_of(shard).removeprefix("s3://")
    content = bytearray(s3.cat_file(place))
    content[700] ^= 4
    s3.pipe_file(place, bytes(content))
    column = Column(tmp_path / "image", store=store)
    column.verify()  # sizes agree
    assert column.read(0, "png") == samples()[0].members["png"]
    wrong = hashlib.sha256(content).hexdigest()
    with pytest.raises(StoreError, match=rf"s3://bucket/p/image-000001-{shard.sha256}\.tar has digest {wrong}, its"):
        column.read(9, "png")
    assert not list((tmp_path / "cache").glob(f"*{shard.sha256}.tar*"))
    s3.rm(place)
    with pytest.raises(StoreError, match=rf"{shard.sha256}\.tar is missing, its manifest says {shard.bytes} bytes"):
        column.verify()
    with pytest.raises(StoreError, match=rf"{shard.sha256}\.tar is missing"):
        column.read(9, "png")


def test_writing_again_changes_nothing_and_a_cut_object_is_replaced(s3, tmp_path):
    store = config("s3://bucket/p", tmp_path)
    for again in range(3):
        column = write_column(tmp_path / "image", "image", samples())
        move_to_store(tmp_path / "image", store)
        places = {ShardStore(store).url_of(shard).removeprefix("s3://") for shard in column.manifest.shards}
        assert set(s3.find("bucket/p")) == places
        if again == 1:
            place = min(places)
            s3.pipe_file(place, s3.cat_file(place)[:1000])
    Column(tmp_path / "image", store=store).verify()


@pytest.mark.parametrize("fault", ["cut", "short", "wrong"])
def test_one_bad_answer_is_survived(web, tmp_path, fault):
    column = write_column(tmp_path / "image", "image", samples())
    serve(web, tmp_path / "image")
    web.faults = [fault]
    column = Column(tmp_path / "image", store=config(web.url, tmp_path))
    assert [column.read(n, "png") for n in range(20)] == [s.members["png"] for s in samples()]
    assert web.answers == [fault, None, None, None]  # three shards


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("cut", "cannot read .* after 3 attempts"),
        ("short", r"has \d+ bytes and digest \w+, its manifest says \d+ bytes"),
        ("wrong", r"has digest \w+, its manifest says"),
        ("stall", "cannot read .* after 2 attempts"),
    ],
)
def test_a_server_that_never_answers_well_is_refused_in_time(web, tmp_path, fault, message):
    write_column(tmp_path / "image", "image", samples())
    serve(web, tmp_path / "image")
    web.faults = [fault] * 9
    column = Column(tmp_path / "image", store=config(web.url, tmp_path, timeout_seconds=0.5))
    start = time.monotonic()
    with pytest.raises(StoreError, match=message) as error:
        column.read(0, "png")
    assert time.monotonic() - start < 30
    assert f"{web.url}/image-000000-" in str(error.value)
    assert set(web.answers) == {fault}
    assert not [p for p in (tmp_path / "cache").iterdir() if p.suffix != ".lock"]


def test_equal_names_in_two_splits_share_a_cache_without_mixing(web, tmp_path):
    splits = {"train": samples(20), "val": samples(40)[20:]}
    for split, members in splits.items():
        write_column(tmp_path / split, "image", members)
        serve(web, tmp_path / split)
    store = config(web.url, tmp_path)
    columns = {split: Column(tmp_path / split, store=store) for split in splits}
    assert {s.name for s in columns["train"].manifest.shards} == {s.name for s in columns["val"].manifest.shards}
    for n in range(20):
        for split, column in columns.items():
            assert column.read(n, "png") == splits[split][n].members["png"]
            assert column.key(n) == splits[split][n].key
    assert len(web.answers) == 6


def test_a_damaged_cached_shard_is_fetched_again(web, tmp_path):
    column = write_column(tmp_path / "image", "image", samples())
    serve(web, tmp_path / "image")
    row = column.table.to_pylist()[1]
    store = config(web.url, tmp_path)
    Column(tmp_path / "image", store=store).read(0, "png")
    cached = tmp_path / "cache" / f"{column.manifest.shards[0].sha256}.tar"
    clean = cached.read_bytes()
    cached.write_bytes(clean[: row["offset"]] + b"rot" + clean[row["offset"] + 3 :])
    assert Column(tmp_path / "image", store=store).read(0, "png") == samples()[0].members["png"]
    cached.write_bytes(clean[:900])
    assert Column(tmp_path / "image", store=store).read(0, "png") == samples()[0].members["png"]
    assert cached.read_bytes() == clean
    assert len(web.answers) == 3


def test_the_next_window_is_fetched_while_this_one_is_read(web, tmp_path):
    folder = write_split(tmp_path, 20, size=32, per_shard=4)["image"]
    shards = Column(folder).manifest.shards
    serve(web, folder)
    one = SampleConfig(plan=PlanConfig(window_shards=1))
    stream = TrainingSamples({"image": folder}, one, 1, config(web.url, tmp_path))
    batches = iter(stream.loader(steps=range(5), batch_size=4, rank=0, world_size=1, num_workers=0))
    next(batches)
    due = {f"{shards[shard].sha256}.tar" for window in (0, 1) for shard in stream.plan.shards(0, window)}
    end = time.monotonic() + 20
    while {path.name for path in (tmp_path / "cache").glob("*.tar")} != due:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert len(due) == len(web.answers) == 2
    list(batches)
    assert len(web.answers) <= 6  # five shards, and the next epoch's first if it is another


def test_the_cache_keeps_its_limit_and_what_is_open(web, tmp_path):
    shards = write_column(tmp_path / "image", "image", samples(40)).manifest.shards
    serve(web, tmp_path / "image")
    size = max(shard.bytes for shard in shards)
    store = ShardStore(config(web.url, tmp_path, cache_bytes=3 * size))
    held = store.open(shards[0])
    for shard in shards[1:]:
        os.close(store.open(shard))
        assert sum(path.stat().st_size for path in (tmp_path / "cache").glob("*.tar")) <= 3 * size
        assert (tmp_path / "cache" / f"{shards[0].sha256}.tar").exists()
    others = [store.open(shard) for shard in shards[3:5]]
    fetched = len(web.answers)
    assert fetched == 5  # the newest two were still there
    with pytest.raises(CacheFullError, match=r"raise store\.cache_bytes"):
        store.open(shards[1])
    store.prefetch(shards[1])  # a full cache is no error for prefetch
    assert len(web.answers) == fetched
    os.close(held)
    os.close(store.open(shards[1]))
    assert not (tmp_path / "cache" / f"{shards[0].sha256}.tar").exists()
    for descriptor in others:
        os.close(descriptor)
    with pytest.raises(StoreError, match=r"cache_bytes is 10, but 32 shards of image"):
        TrainingSamples({"image": tmp_path / "image"}, SampleConfig(), 1, config(web.url, tmp_path, cache_bytes=10))


def test_the_cache_drops_what_was_unused_for_longest(tmp_path):
    def use(name):
        shard = Shard(name="image-000000.tar", records=1, bytes=10, sha256=name)
        os.close(Cache(tmp_path, 30, 5).open(shard, lambda shard, place: place.write_bytes(b"0123456789")))

    for name in "abcad":
        use(name)
    assert {path.stem for path in tmp_path.glob("*.tar")} == {"a", "c", "d"}


def test_many_readers_fetch_each_shard_once(web, tmp_path):
    column = write_column(tmp_path / "image", "image", samples())
    serve(web, tmp_path / "image")
    store = config(web.url, tmp_path)

    def read(n):
        return Column(tmp_path / "image", store=store).read(n % 20, "png")

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read, range(40))) == [samples()[n % 20].members["png"] for n in range(40)]
    assert len(web.answers) == len(column.manifest.shards)


def killed_fetch(tmp_path):
    """A column of three shards, and a cache in which a fetch of the first was killed half-way."""
    column = write_column(tmp_path / "image", "image", samples())
    shard = column.manifest.shards[0]
    cache = tmp_path / "cache"
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom datasets.shards.cache import Cache\n"
        "from datasets.shards.manifest import Shard\nshard = eval(sys.argv[2], {'Shard': Shard})\n"
        "def fetch(shard, path):\n    path.write_bytes(b'half')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "Cache(Path(sys.argv[1]), shard.bytes, 5).open(shard, fetch)\n"
    )
    child = subprocess.run([sys.executable, "-c", code, cache, repr(shard)], cwd=ROOT, check=False)
    assert child.returncode == -9
    left = [path.name for path in cache.iterdir() if path.stat().st_size]
    assert len(left) == 2, left  # the partial file, and the lock file whose length is the reservation
    return column, cache


@pytest.mark.parametrize("number", [0, 1])
def test_a_killed_fetch_takes_no_room_and_blocks_no_other_fetch(tmp_path, number):
    """Neither of the same shard nor of another one."""
    column, cache = killed_fetch(tmp_path)
    shard = column.manifest.shards[number]
    content = (tmp_path / "image" / shard.name).read_bytes()
    limit = max(other.bytes for other in column.manifest.shards)
    os.close(Cache(cache, limit, 5).open(shard, lambda _, path: path.write_bytes(content)))
    assert [path.name for path in cache.iterdir() if path.stat().st_size] == [f"{shard.sha256}.tar"]


def test_waiting_for_another_process_ends(tmp_path):
    shard = write_column(tmp_path / "image", "image", samples()).manifest.shards[0]
    cache = tmp_path / "cache"
    cache.mkdir()
    with (cache / f"{shard.sha256}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match=rf"another process has held .*{shard.sha256}\.lock for 0\.2 s"):
            Cache(cache, 10**9, 0.2).open(shard, None)
        Cache(cache, 10**9, 0.2).prefetch(shard, None)  # does not wait


@pytest.mark.parametrize(
    "url",
    ["pipe:touch canary", "file:///etc", "/etc", "ftp://127.0.0.1/x", "s3://a::file:///etc", "s3://b/../c", "http://u:p@h/x",
     "https://h/x?y=1", "s3://$HOME/x", "memory://x", "simplecache::s3://b/x", "s3://"],
)  # fmt: skip
def test_other_addresses_are_refused_when_read(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match=r"store\.url must be s3://"):
        StoreConfig(url=url)
    assert not list(tmp_path.iterdir())


def test_no_variable_of_webdataset_redirects_a_read_and_nothing_is_started(web, tmp_path):
    write_column(tmp_path / "image", "image", samples())
    serve(web, tmp_path / "image")
    canary = tmp_path / "canary"
    code = (
        "import subprocess, sys, os\nstarted = []\n"
        "sys.addaudithook(lambda event, args: started.append(event) if event in\n"
        "    ('subprocess.Popen', 'os.system', 'os.exec', 'os.posix_spawn') else None)\n"
        "from pathlib import Path\nfrom datasets.shards.column import Column\nfrom files.objects import StoreConfig\n"
        "column = Column(Path(sys.argv[1]), store=StoreConfig(url=sys.argv[2], cache=sys.argv[3]))\n"
        "print([len(column.read(n, 'png')) for n in range(20)], started)\n"
    )
    rewrite = f"{web.url}=pipe:touch {canary};#"
    result = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "image", web.url, tmp_path / "cache"],
        cwd=ROOT,
        env={**os.environ, "WDS_REWRITE": rewrite, "GOPEN_REWRITE": rewrite},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == f"{[len(s.members['png']) for s in samples()]} []"
    assert not canary.exists()


def test_a_store_that_cannot_be_written_to_keeps_the_shard(web, tmp_path):
    shard = write_column(tmp_path / "image", "image", samples()).manifest.shards[0]
    with pytest.raises(StoreError, match="can only be read"):
        put(config(web.url, tmp_path), tmp_path / "image", shard)
    assert (tmp_path / "image" / shard.name).is_file()
    put(StoreConfig(), tmp_path / "image", shard)  # without a store it stays
    assert (tmp_path / "image" / shard.name).is_file()
    (tmp_path / "image" / shard.name).unlink()
    with pytest.raises(ShardError, match="is missing"):
        Column(tmp_path / "image")


def test_a_store_that_falls_silent_is_given_up_after_two_stalls(web, tmp_path):
    write_column(tmp_path / "image", "image", samples())
    serve(web, tmp_path / "image")
    web.faults[:] = ["stall"] * 9
    column = Column(tmp_path / "image", store=config(web.url, tmp_path, attempts=9, stall_seconds=0.3))
    start = time.monotonic()
    with pytest.raises(SilentStoreError, match=r"after 2 attempts: it took too long \(0\.3 s without a byte"):
        column.read(0, "png")
    assert time.monotonic() - start < 30
    assert web.answers == ["stall", "stall"]


def test_an_audit_waits_for_a_silent_store_once(web, tmp_path):
    manifest = write_column(tmp_path / "image", "image", samples()).manifest
    serve(web, tmp_path / "image")
    web.faults[:] = ["stall"] * 9
    store = config(web.url, tmp_path, attempts=9, stall_seconds=0.3)
    shards = [
        ColumnShard(folder=tmp_path / "image", column="image", shard=shard, store=store) for shard in manifest.shards
    ]
    assert len(shards) > 1
    result = audit_shards(AuditTask(shards=tuple(shards)))
    assert result.is_silent
    assert len(result.findings) == 1
    assert web.answers == ["stall", "stall"]
    assert AuditTask(shards=tuple(shards)).without_store().shards == ()


def test_the_clients_of_s3_do_not_repeat_a_request_by_themselves(s3, monkeypatch, tmp_path):
    silent = socket.create_server(("127.0.0.1", 0))
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
    store = ObjectStore(config("s3://bucket/p", tmp_path, attempts=9, stall_seconds=1.0))
    start = time.monotonic()
    with silent, pytest.raises(SilentStoreError):
        store.get("x", tmp_path / "x")
    assert time.monotonic() - start < 30
