"""Archives that are damaged, cut or joined: all their members are listed with their contents, or an error says why."""

import gzip
import io
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from files.archives import ArchiveError, open_tree, read_many

FILES = {
    "a/1.jpg": b"one" * 20,
    "a/2.jpg": b"two" * 600,
    "b/ä.png": b"x" * 10,
    f"c/{'long' * 30}.jpg": b"y" * 600,
    "list.txt": b"1 2\n",
}
PLAIN = {name: content for name, content in FILES.items() if name.isascii() and len(name) < 100}
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


class Pipe(io.RawIOBase):
    """A stream without seeking: a zip that is written to it has the sizes behind the contents."""

    def __init__(self) -> None:
        self.content = b""

    def writable(self) -> bool:
        return True

    def write(self, content: bytes) -> int:
        self.content += bytes(content)
        return len(content)


def tar(files: dict[str, bytes], tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, comment: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        archive.comment = comment
    return buffer.getvalue()


def streamed(files: dict[str, bytes]) -> bytes:
    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return pipe.content


def found(folder: Path, content: bytes) -> dict[str, object]:
    """Return name -> content, or the error of the member, of an archive with these bytes."""
    (folder / "archive").write_bytes(content)
    entries = open_tree(folder / "archive").entries
    return dict(zip(entries, read_many(entries.values()), strict=True))


def outcome(folder: Path, content: bytes, files: dict[str, bytes]) -> str:
    try:
        members = found(folder, content)
    except ArchiveError:
        return "refused"
    assert list(members) == sorted(files)
    differing = [member for name, member in members.items() if member != files[name]]
    assert all(isinstance(member, ArchiveError) for member in differing)
    return "a member refused" if differing else "whole"


def flip_bits(folder: Path, content: bytes, blocks: list[tuple[int, int]], files: dict[str, bytes]) -> Counter[str]:
    """Count the outcomes of some 900 single flipped bits, evenly over these parts of an archive."""
    assert outcome(folder, content, files) == "whole"
    bits = [bit for start, end in blocks for bit in range(8 * start, 8 * end)]
    outcomes: Counter[str] = Counter()
    for bit in bits[:: max(1, len(bits) // 900) | 1]:
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        outcomes[outcome(folder, bytes(changed), files)] += 1
    return outcomes


@pytest.mark.parametrize("kind", ["deflated", "streamed", "nested, with a comment"])
def test_no_flipped_bit_of_a_zip_renames_loses_or_changes_a_member(tmp_path: Path, kind: str) -> None:
    files = {"a.jpg": b"one" * 20, "b/ä.png": b"x" * 9}
    if kind == "nested, with a comment":
        files["z.zip"] = zipped({"inner.jpg": b"inner"}, zipfile.ZIP_STORED)
        content = zipped(files, zipfile.ZIP_STORED, b"comment")
    else:
        content = streamed(files) if kind == "streamed" else zipped(files)
    outcomes = flip_bits(tmp_path, content, [(0, len(content))], files)
    assert min(outcomes[kind] for kind in ("refused", "a member refused", "whole")) > 50


@pytest.mark.parametrize("tar_format", FORMATS)
def test_no_flipped_bit_of_the_headers_of_a_tar_renames_or_loses_a_member(tmp_path: Path, tar_format: str) -> None:
    """Names that are too long for a header are in a block without a checksum, where damage cannot always be seen."""
    files = PLAIN if tar_format == "ustar" else FILES
    content = tar(files, FORMATS[tar_format])
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        places = {place for member in archive for place in (member.offset, member.offset_data - 512)}
    end = len(content.rstrip(b"\0")) // 512 * 512 + 512
    outcomes = flip_bits(tmp_path, content, [(place, place + 512) for place in (*places, end)], files)
    assert outcomes["refused"] > 700
    assert outcomes["whole"] > 0  # the checksum's last characters, which no reader uses


def test_no_flipped_bit_of_an_extended_header_gives_a_member_the_name_of_its_own_header(tmp_path: Path) -> None:
    ((name, content),) = [(name, content) for name, content in FILES.items() if "ä" in name]
    archive = tar({name: content})
    for bit in range(8 * 512, 8 * (512 + 16)):  # "16 path=b/ä.png\n"
        changed = bytearray(archive)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            assert "b/?.png" not in found(tmp_path, bytes(changed))
        except ArchiveError:
            continue


@pytest.mark.parametrize("tar_format", FORMATS)
def test_no_zeroed_block_of_a_tar_loses_or_renames_a_member(tmp_path: Path, tar_format: str) -> None:
    files = PLAIN if tar_format == "ustar" else FILES
    content = tar(files, FORMATS[tar_format])
    num_refused = 0
    for start in range(0, len(content), 512):
        changed = content[:start] + bytes(512) + content[start + 512 :]
        for archive in (changed, gzip.compress(changed)):
            try:
                assert list(found(tmp_path, archive)) == sorted(files)
            except ArchiveError:
                num_refused += 1
    assert num_refused >= 2 * len(files)


JOINED = {
    "two tars": lambda a, b: tar(a) + tar(b),
    "two .tar.gz": lambda a, b: gzip.compress(tar(a)) + gzip.compress(tar(b)),
    "two .tar.gz with zeros between": lambda a, b: gzip.compress(tar(a)) + bytes(99) + gzip.compress(tar(b)),
    "two tars without padding": lambda a, b: tar(a).rstrip(b"\0").ljust(2048, b"\0") + bytes(1024) + tar(b),
    "a tar and a byte": lambda a, b: tar(a) + b"\1",
    "a tar and a zip": lambda a, b: tar(a) + zipped(b),
    "a .tar.gz and a tar": lambda a, b: gzip.compress(tar(a)) + tar(b),
    "a .tar.gz and a byte": lambda a, b: gzip.compress(tar(a)) + b"\1",
    "two zips": lambda a, b: zipped(a) + zipped(b),
    "a zip and a byte": lambda a, b: zipped(a) + b"\0",
    "a zip behind bytes that look like a member": lambda a, b: b"PK\3\4" + bytes(60) + zipped(b),
    "an empty zip and a zip": lambda a, b: zipped({}) + zipped(b),
}


@pytest.mark.parametrize("kind", JOINED)
def test_what_is_joined_to_an_archive_is_never_passed_over(tmp_path: Path, kind: str) -> None:
    (tmp_path / "archive").write_bytes(JOINED[kind]({"a.jpg": b"1" * 300}, {"b.jpg": b"2" * 300}))
    with pytest.raises(ArchiveError, match=r"archive\b.*byte|archive is damaged or cut short"):
        open_tree(tmp_path / "archive")


def test_the_byte_behind_the_end_of_a_tar_is_named(tmp_path: Path) -> None:
    content = tar({"a.jpg": b"1"}) + tar({"b.jpg": b"2"})
    (tmp_path / "archive").write_bytes(content)
    with pytest.raises(ArchiveError, match="the tar ends at byte 1024, but byte 10240 is not zero"):
        open_tree(tmp_path / "archive")


@pytest.mark.parametrize("records", [1, 20, 64, 2048])
def test_padding_of_usual_records_is_accepted_and_a_tar_that_is_half_zeros_is_not(tmp_path: Path, records: int) -> None:
    files = {f"{number}.jpg": bytes([number]) * 5000 for number in range(1, 31)}
    content = tar(files).rstrip(b"\0")
    end = -(-len(content) // 512) * 512
    record = 512 * records
    padded = content.ljust(-(-(end + 1024) // record) * record, b"\0")
    for archive in (padded, gzip.compress(padded)):
        assert outcome(tmp_path, archive, files) == "whole"
    half = tar(files)[: 512 * 11 * 15].ljust(len(tar(files)), b"\0")
    for archive in (half, gzip.compress(half)):
        with pytest.raises(ArchiveError, match="more zeros follow than a tar is padded with"):
            found(tmp_path, archive)


def rename_in_directory(content: bytes) -> bytes:
    place = content.rindex(b"b.jpg")
    return content[:place] + b"c" + content[place + 1 :]


def point_twice_to_the_first(content: bytes) -> bytes:
    place = content.rindex(b"PK\1\2") + 42
    return content[:place] + bytes(4) + content[place + 4 :]


def drop_from_directory(content: bytes) -> bytes:
    start, last, end = content.index(b"PK\1\2"), content.rindex(b"PK\1\2"), content.rindex(b"PK\5\6")
    counts = (1).to_bytes(2, "little") * 2
    return content[:last] + b"PK\5\6" + bytes(4) + counts + (last - start).to_bytes(4, "little") + content[end + 16 :]


def miscount(content: bytes) -> bytes:
    end = content.rindex(b"PK\5\6")
    return content[: end + 8] + (1).to_bytes(2, "little") * 2 + content[end + 12 :]


def make_it_a_folder(content: bytes) -> bytes:
    return content.replace(b"b.jpg", b"b.jp/")


DIRECTORIES = {
    rename_in_directory: "names 'c.jpg' at byte 37, where another member or none begins",
    point_twice_to_the_first: "names 'b.jpg' at byte 0, where another|claimed twice",
    drop_from_directory: "bytes 37 to 74 belong to no member",
    miscount: "its end record counts 1 members, its directory names 2",
    make_it_a_folder: "b.jp has the name of a folder, but content",
}


@pytest.mark.parametrize("change", DIRECTORIES, ids=lambda change: change.__name__)
def test_a_directory_that_disagrees_with_the_members_of_a_zip_is_refused(tmp_path: Path, change) -> None:
    files = {"a.jpg": b"11", "b.jpg": b"22"}
    content = zipped(files, zipfile.ZIP_STORED)
    assert outcome(tmp_path, content, files) == "whole"
    with pytest.raises(ArchiveError, match=DIRECTORIES[change]):
        found(tmp_path, change(content))
    with zipfile.ZipFile(tmp_path / "archive") as archive:
        archive.infolist()  # which zipfile opens without a word
