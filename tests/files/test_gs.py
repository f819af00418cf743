"""Shards in gs://, against a stand-in for Google's server on loopback that misbehaves as told.

The client is no part of the tested environment: it would bring a dozen packages, and every stage depends on the lock.
"""

import dataclasses
import hashlib
import http.server
import json
import threading
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from benchmarks.photographs import samples, write_column
from datasets.shards.column import Column
from datasets.shards.store import ShardStore, put
from files.objects import StoreConfig, StoreError

pytest.importorskip("gcsfs", reason="the extra `gs` is not installed; run: pip install gcsfs")


class _Google(http.server.BaseHTTPRequestHandler):
    """Keeps `server.objects` by name: those parts of Google's JSON interface that one bucket of small objects needs.

    `server.faults` are used up one per answer with content: "cut", "wrong", "stall"; `server.refusals` one per upload.
    """

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.refusals:
            return self._answer(self.server.refusals.pop(0), b"{}")
        boundary = self.headers["Content-Type"].partition('boundary="')[2].rstrip('"').encode()
        _, about, rest = body.split(b"--" + boundary + b"\n", 2)
        name = json.loads(about.partition(b"\n\n")[2])["name"]
        content = rest.partition(b"\n\n")[2].removesuffix(b"\n--" + boundary + b"--")
        self.server.objects[name] = content
        self._answer(200, json.dumps(self._about(name)).encode())

    def do_GET(self):
        name, query = self._name(), parse_qs(urlsplit(self.path).query)
        objects = self.server.objects
        if name is None:
            found = [self._about(each) for each in sorted(objects) if each.startswith(query["prefix"][0])]
            return self._answer(200, json.dumps({"items": found} if found else {}).encode())
        if name not in objects:
            return self._answer(404, b"{}")
        if query.get("alt") != ["media"]:
            return self._answer(200, json.dumps(self._about(name)).encode())
        fault = self.server.faults.pop(0) if self.server.faults else None
        self.server.answers.append(fault)
        self._answer(200, objects[name], fault)

    def do_DELETE(self):
        self._answer(404 if self.server.objects.pop(self._name(), None) is None else 204, b"")

    def _name(self):
        name = urlsplit(self.path).path.partition("/b/bucket/o")[2]
        return unquote(name[1:]) or None

    def _about(self, name):
        return {"name": name, "bucket": "bucket", "size": str(len(self.server.objects[name]))}

    def _answer(self, status, content, fault=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if fault == "wrong":
            content = content[:700] + bytes([content[700] ^ 1]) + content[701:]
        self.wfile.write(content[: len(content) // 2] if fault in ("cut", "stall") else content)
        if fault == "stall":
            self.wfile.flush()
            self.server.over.wait(30)
        self.close_connection = fault is not None

    def log_message(self, *_):
        pass


@pytest.fixture
def google(monkeypatch, tmp_path):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Google)
    server.objects, server.faults, server.refusals, server.answers = {}, [], [], []
    server.over = threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("NO_GCE_CHECK", "true")  # nor are this machine's own credentials looked for
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def config(tmp_path):
    return StoreConfig(url="gs://bucket/some/prefix", cache=str(tmp_path / "cache"), wait_seconds=0.01, attempts=3)


@pytest.fixture
def stored(google, config, tmp_path):
    """A column of three shards in the store."""
    column = write_column(tmp_path / "image", "image", samples())
    for shard in column.manifest.shards:
        put(config, tmp_path / "image", shard)
    assert not list((tmp_path / "image").glob("*.tar"))
    return tmp_path / "image"


def test_records_read_from_gs_are_those_that_were_put_there(google, config, stored):
    column, store = Column(stored, store=config), ShardStore(config)
    column.verify()
    assert [column.read(n, "png") for n in range(20)] == [s.members["png"] for s in samples()]
    assert sorted(google.objects) == [
        f"some/prefix/image-00000{n}-{shard.sha256}.tar" for n, shard in enumerate(column.manifest.shards)
    ]
    first, second = column.manifest.shards[:2]
    with store.copied(first) as path:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == first.sha256
    store.remove(first)
    store.remove(first)
    assert not store.has(first)
    assert store.has(second)
    with pytest.raises(StoreError, match=rf"{first.sha256}\.tar is missing, its manifest says {first.bytes} bytes"):
        column.verify()
    with pytest.raises(StoreError, match=rf"gs://bucket/some/prefix/image-000000-{first.sha256}\.tar is missing"):
        store.open(first)


def test_a_column_that_gs_has_nothing_of_is_refused(google, config, tmp_path):
    shards = write_column(tmp_path / "image", "image", samples()).manifest.shards
    with pytest.raises(StoreError, match=r"image-000000-\w+\.tar is missing, its manifest says"):
        ShardStore(config).check_sizes(shards)


@pytest.mark.parametrize("fault", ["cut", "wrong", "stall"])
def test_one_bad_answer_of_gs_is_survived(google, config, stored, fault):
    google.faults = [fault]
    column = Column(stored, store=dataclasses.replace(config, timeout_seconds=2))
    assert [column.read(n, "png") for n in range(20)] == [s.members["png"] for s in samples()]
    assert google.answers == [fault, None, None, None]  # three shards


def test_a_wrong_byte_in_gs_is_refused_with_its_digest(google, config, stored):
    name = min(google.objects)
    content = google.objects[name]
    google.objects[name] = content[:700] + bytes([content[700] ^ 1]) + content[701:]
    wrong = hashlib.sha256(google.objects[name]).hexdigest()
    with pytest.raises(StoreError, match=rf"gs://bucket/{name} has digest {wrong}, its manifest says"):
        Column(stored, store=config).read(0, "png")
    assert not list(Path(config.cache).glob("*.tar"))


def test_an_upload_that_gs_refuses_once_is_made_again(google, config, tmp_path):
    google.refusals = [503]
    shard = write_column(tmp_path / "image", "image", samples()).manifest.shards[0]
    put(config, tmp_path / "image", shard)
    assert not google.refusals
    assert ShardStore(config).has(shard)
