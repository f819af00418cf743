import gzip
import io
import os
import pickle
import random
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from files.archives import (
    ArchiveError,
    MemberError,
    archive_kind,
    inflate,
    open_tree,
    read,
    read_many,
)
from files.pins import pin_of
from files.tars import MAX_EMPTY_MEMBERS

FILES = {
    "b/2.jpg": b"two" * 1000,
    "b/1.jpg": b"one" * 500,
    "B/1.jpg": b"upper case sorts first",
    "a-b/1.jpg": b"",
    "a/1.jpg": bytes(range(256)) * 9,
    "a/dir with blanks/é.png": b"accent",
    "list.txt": b"1 2 3\n",
}
HIDDEN = (".git/config", "a/.hidden.jpg", "a/._1.jpg", "__MACOSX/a/1.jpg", "a/Thumbs.db")


def _write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def _write_tar(path: Path, files: dict[str, bytes], mode: str = "w", prefix: str = "") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def _write_zip(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def _contents(root: Path) -> list[tuple[str, bytes]]:
    return [(name, read(locator)) for name, locator in open_tree(root).entries.items()]


def test_folder_and_archives_give_the_same_files_in_bytes_order(tmp_path: Path) -> None:
    files = FILES | dict.fromkeys(HIDDEN, b"hidden")
    expected = sorted(FILES.items(), key=lambda entry: entry[0].encode())
    roots = {
        "folder": _write_folder(tmp_path / "tree", files),
        "zip": _write_zip(tmp_path / "deflated.zip", files),
        "tar": _write_tar(tmp_path / "plain.tar", files),
        "tar.gz": _write_tar(tmp_path / "packed.tar.gz", files, "w:gz"),
    }
    for kind, root in roots.items():
        assert open_tree(root).kind == kind
        assert _contents(root) == expected, kind
    assert _contents(_write_zip(tmp_path / "stored.zip", files, zipfile.ZIP_STORED)) == expected
    assert _contents(_write_tar(tmp_path / "dotted.tar", files, prefix="./")) == expected


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_tar_format_gives_long_names_and_offsets(tmp_path: Path, tar_format: int) -> None:
    files = {f"{'long/' * 25}{number}.jpg": str(number).encode() for number in range(3)}
    with tarfile.open(tmp_path / "a.tar", "w", format=tar_format) as archive:
        archive.add(_write_folder(tmp_path / "tree", files), arcname=".")
    assert dict(_contents(tmp_path / "a.tar")) == files


def test_kind_goes_by_content_not_by_name(tmp_path: Path) -> None:
    assert archive_kind(_write_tar(tmp_path / "really-plain.tar.gz", FILES)) == "tar"
    assert archive_kind(_write_zip(tmp_path / "really-zip.tar", FILES)) == "zip"
    assert archive_kind(_write_tar(tmp_path / "no-extension", FILES, "w:gz")) == "tar.gz"
    assert _contents(tmp_path / "really-plain.tar.gz") == _contents(tmp_path / "really-zip.tar")
    (tmp_path / "text.zip").write_bytes(b"text")
    (tmp_path / "text.gz").write_bytes(gzip.compress(b"text"))
    for name in ("text.zip", "text.gz"):
        with pytest.raises(ArchiveError, match=r"is neither a folder nor a \.zip"):
            open_tree(tmp_path / name)


def test_locators_work_in_another_process(tmp_path: Path) -> None:
    roots = (
        _write_folder(tmp_path / "tree", FILES),
        _write_zip(tmp_path / "a.zip", FILES),
        _write_tar(tmp_path / "a.tar", FILES),
        _write_tar(tmp_path / "a.tgz", FILES, "w:gz"),
    )
    locators = [open_tree(root).entries["a/1.jpg"] for root in roots]
    script = "import pickle, sys; from files.archives import read; " + (
        "sys.stdout.buffer.write(pickle.dumps([read(x) for x in pickle.load(sys.stdin.buffer)]))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], input=pickle.dumps(locators), capture_output=True, check=True
    )
    assert pickle.loads(answer.stdout) == [FILES["a/1.jpg"]] * 4
    assert all(len(pickle.dumps(locator)) < 400 for locator in locators)


def test_read_many_keeps_the_order_given_and_reports_the_unreadable(tmp_path: Path) -> None:
    packed = open_tree(_write_tar(tmp_path / "a.tgz", FILES, "w:gz")).entries
    plain = open_tree(_write_tar(tmp_path / "a.tar", FILES)).entries
    names = ["list.txt", "b/1.jpg", "a/1.jpg", "b/2.jpg"]
    mixed = [entries[name] for name in names for entries in (packed, plain)]
    answers = list(read_many([*mixed, mixed[0]], max_bytes=2400))
    assert [a for a in answers if isinstance(a, bytes)] == [FILES[n] for n in names[:3] for _ in "12"] + [b"1 2 3\n"]
    assert [str(a) for a in answers if isinstance(a, MemberError)] == ["b/2.jpg: file too large"] * 2


def test_missing_and_empty_roots_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"nowhere does not exist; set root to a folder, \.zip, \.tar or \.tar\.gz$"):
        open_tree(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    roots = [tmp_path / "empty", _write_zip(tmp_path / "empty.zip", {}), _write_tar(tmp_path / "h.tar", {".a": b"1"})]
    for root in roots:
        with pytest.raises(ArchiveError, match=r"holds no files( but .*: 1 hidden file or folder \(\.a\))?$"):
            open_tree(root)


HOSTILE_NAMES = {
    "/etc/passwd": "is an absolute path",
    "C:/windows.jpg": "is an absolute path",
    "../outside.jpg": "leads out with ..",
    "a/../../outside.jpg": "leads out with ..",
    "a\\..\\outside.jpg": "has a backslash",
    "a\nb.jpg": "has a control character",
    "n" * 5000 + ".jpg": "is longer than 1024 bytes",
    ".hidden/../../x": "leads out with ..",
}


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_names_are_refused(tmp_path: Path, name: str) -> None:
    files = {"good.jpg": b"good", name: b"bad"}
    roots = (
        _write_zip(tmp_path / "a.zip", files),
        _write_tar(tmp_path / "a.tar", files),
        _write_tar(tmp_path / "a.tgz", files, "w:gz"),
    )
    before = sorted(tmp_path.parent.rglob("*"))
    for root in roots:
        with pytest.raises(ArchiveError, match=HOSTILE_NAMES[name]):
            open_tree(root)
    assert sorted(tmp_path.parent.rglob("*")) == before


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_links_devices_and_fifos_in_a_tar_are_refused(tmp_path: Path, kind: bytes, mode: str) -> None:
    with tarfile.open(tmp_path / "a.tar", mode) as archive:
        member = tarfile.TarInfo("a/1.jpg")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(ArchiveError, match=r"a/1\.jpg is a (link|device|FIFO); refused"):
        open_tree(tmp_path / "a.tar")


@pytest.mark.parametrize("mode", [0o120777, 0o060600, 0o020600, 0o010600])
def test_links_devices_and_fifos_in_a_zip_are_refused(tmp_path: Path, mode: int) -> None:
    member = zipfile.ZipInfo("a/1.jpg")
    member.external_attr = mode << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(ArchiveError, match=r"a/1\.jpg is a link, a device or a FIFO; refused"):
        open_tree(tmp_path / "a.zip")


def test_links_inside_a_folder_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    tree = _write_folder(tmp_path / "tree", {"a/1.jpg": b"1"})
    (tree / "b").symlink_to(tree / "a")
    (tree / "c.jpg").symlink_to("b/1.jpg")
    (tmp_path / "link").symlink_to(tree)
    names = ("a/1.jpg", "b/1.jpg", "c.jpg")
    for root in (tree, tmp_path / "link"):
        assert _contents(root) == [(name, b"1") for name in names]
    (tree / "a" / "up").symlink_to(tree)
    with pytest.raises(ArchiveError, match="link to a folder that contains it"):
        open_tree(tree)


@pytest.mark.parametrize("link", ["b", "a/2.jpg", "b.zip"])
def test_links_that_lead_out_of_a_folder_are_followed_only_when_asked_for(tmp_path: Path, link: str) -> None:
    tree = _write_folder(tmp_path / "tree", {"a/1.jpg": b"1"})
    other = _write_folder(tmp_path / "tree2", {"2.jpg": b"2"})  # a name that begins like the folder's
    (tree / link).symlink_to(other if link == "b" else other / "2.jpg")
    with pytest.raises(
        ArchiveError, match=rf"tree: {link} is a link that leads out .* set dataset\.follow_links to true"
    ):
        open_tree(tree)
    found = open_tree(tree, follow_links=True).entries
    assert [read(locator) for locator in found.values()] == [b"1", b"2"]


def test_broken_link_and_fifo_in_a_folder_are_named(tmp_path: Path) -> None:
    tree = _write_folder(tmp_path / "tree", {"a/1.jpg": b"1"})
    (tree / "gone.jpg").symlink_to(tmp_path / "gone")
    with pytest.raises(ArchiveError, match=r"gone\.jpg is a broken link"):
        open_tree(tree)
    (tree / "gone.jpg").unlink()
    os.mkfifo(tree / "pipe.jpg")
    with pytest.raises(ArchiveError, match=r"pipe\.jpg is a broken link or not a regular file"):
        open_tree(tree)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_same_name_twice_is_refused(tmp_path: Path) -> None:
    _write_tar(tmp_path / "a.tar", {"a.jpg": b"1", "./a.jpg": b"2"})
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.jpg", b"1")
        archive.writestr("a.jpg", b"2")
    for name in ("a.tar", "a.zip"):
        with pytest.raises(ArchiveError, match=r"holds a\.jpg twice"):
            open_tree(tmp_path / name)


def test_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", encoding="latin-1", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("caf\xe9.jpg"))
    with pytest.raises(ArchiveError, match="is not UTF-8; refused"):
        open_tree(tmp_path / "a.tar")


def test_sizes_are_checked_before_reading(tmp_path: Path) -> None:
    roots = (
        _write_folder(tmp_path / "tree", FILES),
        _write_zip(tmp_path / "a.zip", FILES),
        _write_tar(tmp_path / "a.tar", FILES),
        _write_tar(tmp_path / "a.tgz", FILES, "w:gz"),
    )
    for root in roots:
        locator = open_tree(root).entries["b/2.jpg"]
        assert len(read(locator, max_bytes=3000)) == 3000
        with pytest.raises(MemberError, match=r"^b/2\.jpg: file too large$"):
            read(locator, max_bytes=2999)


def test_member_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(MemberError("a.jpg", "file too large")))
    assert (str(error), error.reason) == ("a.jpg: file too large", "file too large")


def test_zip_that_claims_too_little_is_not_inflated(tmp_path: Path) -> None:
    path = _write_zip(tmp_path / "a.zip", {"a.jpg": bytes(2**26)})
    content = path.read_bytes()
    assert content.count((2**26).to_bytes(4, "little")) == 2
    path.write_bytes(content.replace((2**26).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    locator = open_tree(path).entries["a.jpg"]
    tracemalloc.start()
    with pytest.raises(MemberError, match="damaged in its archive"):
        read(locator)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_flipped_bytes_in_a_zip_member_are_noticed(tmp_path: Path) -> None:
    path = _write_zip(tmp_path / "a.zip", {"a.jpg": b"x" * 100, "b.jpg": b"y" * 100}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"x" * 100, b"x" * 99 + b"z"))
    entries = open_tree(path).entries
    with pytest.raises(MemberError, match=r"a\.jpg: damaged in its archive"):
        read(entries["a.jpg"])
    assert read(entries["b.jpg"]) == b"y" * 100


def test_encrypted_and_oddly_compressed_zips_are_refused(tmp_path: Path) -> None:
    _write_zip(tmp_path / "lzma.zip", FILES, zipfile.ZIP_LZMA)
    content = bytearray(_write_zip(tmp_path / "locked.zip", {"a.jpg": b"1"}).read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(content)
    for name in ("lzma.zip", "locked.zip"):
        with pytest.raises(ArchiveError, match="is encrypted or not compressed by deflate"):
            open_tree(tmp_path / name)


@pytest.mark.parametrize("length", [512 + 700, 512 * 3, 512 * 3 + 100, 512 * 5])
def test_cut_tar_is_refused(tmp_path: Path, length: int) -> None:
    """Cuts inside a member, at a member's end, inside a header, and before the end marker."""
    whole = _write_tar(tmp_path / "a.tar", {"a.jpg": b"a" * 900, "b.jpg": b"b" * 10}).read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[:length])
    (tmp_path / "a.tgz").write_bytes(gzip.compress(whole[:length]))
    for name in ("a.tar", "a.tgz"):
        with pytest.raises(ArchiveError, match=r"damaged or cut short|more than there can be"):
            open_tree(tmp_path / name)


def test_damaged_header_in_the_middle_of_a_tar_is_not_taken_for_its_end(tmp_path: Path) -> None:
    content = bytearray(_write_tar(tmp_path / "a.tar", {"a.jpg": b"a", "b.jpg": b"b", "c.jpg": b"c"}).read_bytes())
    content[1024 + 5] ^= 1
    (tmp_path / "a.tar").write_bytes(content)
    with tarfile.open(tmp_path / "a.tar") as archive:
        assert archive.getnames() == ["a.jpg"]  # tarfile drops two members without a word
    with pytest.raises(ArchiveError, match="damaged or cut short at byte 1024"):
        open_tree(tmp_path / "a.tar")


def test_cut_or_damaged_gzip_and_zip_are_refused(tmp_path: Path) -> None:
    packed = _write_tar(tmp_path / "a.tgz", FILES, "w:gz").read_bytes()
    zipped = _write_zip(tmp_path / "a.zip", FILES).read_bytes()
    for name, content in (
        ("half.tgz", packed[: len(packed) // 2]),
        ("no-trailer.tgz", packed[:-4]),
        ("checksum.tgz", packed[:-8] + bytes(8)),
        ("half.zip", zipped[: len(zipped) // 2]),
        ("no-end.zip", zipped[:-10]),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ArchiveError, match=f"{name} is damaged or cut short"):
            open_tree(tmp_path / name)


def _tar_header(size: int, kind: bytes = tarfile.REGTYPE, name: str = "a.jpg") -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
@pytest.mark.parametrize("size", [2**40, 2**33 - 1, -512, -1024, -(2**40)])
def test_impossible_sizes_in_a_tar_are_refused_at_once(tmp_path: Path, kind: bytes, size: int) -> None:
    content = _tar_header(4, name="good.jpg") + b"good".ljust(512, b"\0") + _tar_header(size, kind) + bytes(10240)
    (tmp_path / "a.tar").write_bytes(content)
    (tmp_path / "a.tgz").write_bytes(gzip.compress(content))
    for name in ("a.tar", "a.tgz"):
        with pytest.raises(ArchiveError, match=r"refused$|damaged or cut short \(unexpected end"):
            open_tree(tmp_path / name)


def test_claimed_size_of_a_terabyte_in_a_zip_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.jpg", b"1" * 100)
        archive.filelist[0].file_size = 2**40
    locator = open_tree(tmp_path / "a.zip").entries["a.jpg"]
    assert locator.size == 2**40
    with pytest.raises(MemberError, match="file too large"):
        read(locator)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.jpg", b"1" * 100)
        archive.filelist[0].compress_size = 2**40
    with pytest.raises(ArchiveError, match="claim more bytes than the zip has"):
        open_tree(tmp_path / "a.zip")


def test_chain_of_extended_headers_is_refused(tmp_path: Path) -> None:
    block = _tar_header(512, tarfile.XHDTYPE) + b"11 a=bbbbb\n".ljust(512, b"\0")
    (tmp_path / "a.tar").write_bytes(block * 5000)
    with pytest.raises(ArchiveError, match="damaged"):
        open_tree(tmp_path / "a.tar")


def _bomb(path: Path, kind: str) -> None:
    """Archives of a few megabytes that inflate, or count, a thousandfold."""
    if kind == "gzip":
        # A gzip file may be several in a row, so 8 GiB of zeros take a moment to write
        path.write_bytes(gzip.compress(_tar_header(2**33 - 1)) + gzip.compress(bytes(2**26)) * 128)
    elif kind == "long name":
        with gzip.open(path, "wb") as file:
            file.write(_tar_header(2**31, tarfile.GNUTYPE_LONGNAME) + bytes(2**26))
    elif kind == "many members":
        with gzip.open(path, "wb", compresslevel=1) as file:
            names = (b"%07d.jpg" % number for number in range(2 * MAX_EMPTY_MEMBERS))
            template = _tar_header(0)
            for name in names:
                header = bytearray(name.ljust(100, b"\0") + template[100:148] + b" " * 8 + template[156:])
                header[148:156] = b"%06o\0 " % sum(header)
                file.write(header)
    else:
        _write_directory_bomb(path)


def _write_directory_bomb(path: Path) -> None:
    """A zip whose directory names a million empty members, all at one place."""
    local = b"PK\x03\x04" + bytes(22) + (11).to_bytes(2, "little") + bytes(2) + b"0000000.jpg"
    entry = b"PK\x01\x02" + bytes(24) + (11).to_bytes(2, "little") + bytes(16)
    directory = b"".join(entry + b"%07d.jpg" % number for number in range(1_000_000))
    end = b"PK\x05\x06" + bytes(4) + b"\xff\xff" * 2 + len(directory).to_bytes(4, "little")
    path.write_bytes(local + directory + end + len(local).to_bytes(4, "little") + bytes(2))


_LIMITED = """
import resource, sys, time
from pathlib import Path
import psutil
from files.archives import ArchiveError, open_tree
if sys.platform == "linux":  # the limit counts addresses, so what the imports took is added
    limit = psutil.Process().memory_info().vms + 512 * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
started = time.process_time()
try:
    open_tree(Path(sys.argv[1]))
except ArchiveError as error:
    print(time.process_time() - started, error)  # other work on the machine does not count
"""


@pytest.mark.parametrize("kind", ["gzip", "long name", "many members", "directory"])
def test_bombs_are_refused_in_512_megabytes_and_5_seconds(tmp_path: Path, kind: str) -> None:
    _bomb(tmp_path / "bomb", kind)
    command = [sys.executable, "-c", _LIMITED, str(tmp_path / "bomb")]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    seconds, _, message = answer.stdout.partition(" ")
    assert message.endswith("; refused\n"), answer
    assert float(seconds) < 5


def test_nested_zip_is_one_member_and_stays_closed(tmp_path: Path) -> None:
    inner = _write_zip(tmp_path / "inner.zip", {"../outside.jpg": b"1"}).read_bytes()
    assert _contents(_write_zip(tmp_path / "outer.zip", {"inner.zip": inner})) == [("inner.zip", inner)]


def test_mutated_archives_raise_only_our_errors(tmp_path: Path) -> None:
    draw = random.Random(0)
    roots = [_write_zip(tmp_path / "a.zip", FILES), _write_tar(tmp_path / "a.tar", FILES)]
    roots.append(_write_tar(tmp_path / "a.tgz", FILES, "w:gz"))
    seeds = [root.read_bytes() for root in roots]
    num_refused = 0
    for number in range(600):
        content = bytearray(seeds[number % 3])
        for _ in range(draw.randint(1, 6)):
            content[draw.randrange(len(content))] = draw.randrange(256)
        (tmp_path / "mutated").write_bytes(content)
        try:
            list(read_many(open_tree(tmp_path / "mutated").entries.values()))
        except ArchiveError:
            num_refused += 1
    assert 200 < num_refused < 600


def test_an_inflated_archive_has_the_same_members_and_a_damaged_one_leaves_nothing(tmp_path: Path) -> None:
    archive = _write_tar(tmp_path / "a.tgz", FILES, "w:gz")
    entries = open_tree(archive).entries
    tar = tmp_path / "here" / "a.tar"
    assert list(inflate(archive, entries["list.txt"].pin, tar))[-1] == tar.stat().st_size
    assert [read(entries[name].within(tar)) for name in FILES] == list(FILES.values())
    (tmp_path / "cut.tgz").write_bytes(archive.read_bytes()[:-4])
    _bomb(tmp_path / "bomb.tgz", "gzip")
    for name, said in (
        ("cut.tgz", "is damaged or cut short"),
        ("bomb.tgz", r"inflates to more than \d+ bytes; refused"),
    ):
        with pytest.raises(ArchiveError, match=f"{name} {said}"):
            list(inflate(tmp_path / name, pin_of((tmp_path / name).stat()), tmp_path / "there" / "a.tar"))
        assert not list((tmp_path / "there").iterdir())
