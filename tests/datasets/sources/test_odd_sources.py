"""Odd pictures, names, lists and archives: every file is taken, rejected with a reason, or left out by a rule."""

import io
import os
import re
import struct
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.ingest import IngestConfig, plan_shards
from datasets.sources import Source, open_source, source_config, source_key
from datasets.tombstones import stay_out
from files.errors import UserError
from files.left_out import COPY, HIDDEN, LITTER, describe
from files.rejections import BELOW_MINIMUM, DAMAGED, EMPTY, NO_IMAGE, TOO_MANY_PIXELS
from tests.datasets.sources.test_source import EXAMPLES
from tests.datasets.sources.trees import FORMS, pictures, write_folder, write_tar, write_zip

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
RGB = Image.fromarray(PIXELS)

TAKEN = "taken"
NO_PICTURE = "left out: not a picture"
CLOSED = "left out: archive that is not opened"


def encoded(image: Image.Image, format_name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    return block


JPEG, PNG = encoded(RGB, "JPEG"), encoded(RGB, "PNG")
WEBP, AVIF, GIF = (encoded(RGB, name) for name in ("WEBP", "AVIF", "GIF"))
TIFF, BMP, JPEG2000 = (encoded(RGB, name) for name in ("TIFF", "BMP", "JPEG2000"))
HEIC = struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic" + bytes(200)
MP4 = struct.pack(">I", 24) + b"ftypisom\0\0\2\0isomiso2" + bytes(200)


def chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4)


def png_with(kind: bytes, body: bytes) -> bytes:
    return PNG[:33] + chunk(kind, body) + PNG[33:]


def jpeg_with(marker: int, body: bytes) -> bytes:
    return JPEG[:2] + struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body + JPEG[2:]


def rejected(reason: str) -> str:
    return f"rejected: {reason}"


def other(format_name: str) -> str:
    return rejected(f"{NO_IMAGE} but {format_name}")


def left_out(rule: str) -> str:
    return f"left out: {rule}"


HUGE = PNG[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)) + PNG[33:]

# Name -> content and outcome
ODD: dict[str, tuple[bytes, str]] = {
    # suffixes
    "plain.jpg": (JPEG, TAKEN),
    "plain2.png": (PNG, TAKEN),
    "a.jfif": (JPEG, TAKEN),
    "b.jpe": (JPEG, TAKEN),
    "c.JPG": (JPEG, TAKEN),
    "d.JpEg": (JPEG, TAKEN),
    "e.jpg ": (JPEG, TAKEN),
    "f": (JPEG, TAKEN),
    "g.2024.05.01": (PNG, TAKEN),
    "g.2024.05.02": (PNG, TAKEN),
    "h.jpg": (PNG, TAKEN),
    "i.png": (JPEG, TAKEN),
    "j.heic": (JPEG, TAKEN),
    "k.webp": (PNG, TAKEN),
    "m.txt": (JPEG, TAKEN),
    "n.jpg.": (JPEG, TAKEN),
    "o.part": (JPEG[:300], rejected(DAMAGED)),
    # names
    "Bäume/\N{LATIN SMALL LETTER U WITH DIAERESIS}ber uns.jpg": (JPEG, TAKEN),
    "Bäume/u\N{COMBINING DIAERESIS}ber uns.jpg": (JPEG, TAKEN),
    "#1 of @me (2), [x].jpg": (JPEG, TAKEN),
    "日本/写真.png": (PNG, TAKEN),
    "-r.jpg": (JPEG, TAKEN),
    f"{'long ' * 40}.jpg": (JPEG, TAKEN),
    "recycled/glass.jpg": (JPEG, TAKEN),
    # content
    "grey.png": (encoded(RGB.convert("L"), "PNG"), TAKEN),
    "bits.png": (encoded(RGB.convert("1"), "PNG"), TAKEN),
    "palette.png": (encoded(RGB.quantize(16), "PNG", transparency=3), TAKEN),
    "alpha.png": (encoded(RGB.convert("RGBA"), "PNG"), TAKEN),
    "sixteen.png": (encoded(Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257), "PNG"), TAKEN),
    "cmyk.jpg": (encoded(RGB.convert("CMYK"), "JPEG"), TAKEN),
    "progressive.jpg": (encoded(RGB, "JPEG", progressive=True), TAKEN),
    "turned.jpg": (encoded(RGB, "JPEG", exif=exif(6)), TAKEN),
    "nine.jpg": (encoded(RGB, "JPEG", exif=exif(9)), TAKEN),
    "two frames.jpg": (encoded(RGB, "MPO", save_all=True, append_images=[RGB]), TAKEN),
    "animated.png": (encoded(RGB, "PNG", save_all=True, append_images=[RGB.rotate(180)]), TAKEN),
    "video behind.jpg": (JPEG + MP4, TAKEN),
    "no end.png": (PNG[:-12], TAKEN),
    "gamma.png": (png_with(b"gAMA", b"\0"), TAKEN),
    "exif.png": (png_with(b"eXIf", b"garbage"), TAKEN),
    "profile.png": (png_with(b"iCCP", b"p\0\0" + zlib.compress(bytes(2_000_000))), TAKEN),
    "text.png": (png_with(b"zTXt", b"a\0\0" + zlib.compress(bytes(2_000_000))), TAKEN),
    "short profile.jpg": (jpeg_with(0xE2, b"ICC_PROFILE\0"), TAKEN),
    "empty.jpg": (b"", rejected(EMPTY)),
    "words.jpg": (b"<html>not found</html>", rejected(NO_IMAGE)),
    "cut.jpg": (JPEG[: len(JPEG) // 2], rejected(DAMAGED)),
    "cut2.png ": (PNG[: len(PNG) // 2], rejected(DAMAGED)),
    "cut gamma.png": (png_with(b"gAMA", b"\0")[: len(PNG) // 2], rejected(DAMAGED)),
    "small.png": (encoded(Image.new("RGB", (3, 3)), "PNG"), rejected(BELOW_MINIMUM)),
    "huge.png": (HUGE, rejected(TOO_MANY_PIXELS)),
    # other formats, by content or by suffix
    "p.heic": (HEIC, other("HEIC")),
    "q": (HEIC, other("HEIC")),
    "r.avif": (AVIF, other("AVIF")),
    "s.webp": (WEBP, other("WebP")),
    "t.jpg": (WEBP, other("WebP")),
    "u.gif": (GIF, other("GIF")),
    "v.bmp": (BMP, other("BMP")),
    "w": (TIFF, other("TIFF")),
    "x.jp2": (JPEG2000, other("JPEG 2000")),
    "y.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", rejected(f"{NO_IMAGE}, by its name SVG")),
    "z.CR2": (b"II*\0\x10\0\0\0CR\2\0" + bytes(99), other("TIFF")),
    # no pictures
    "README": (b"P6 of the plan, BM", NO_PICTURE),
    "list.txt": (b"\xef\xbb\xbfplain.jpg 0\r\n", NO_PICTURE),
    "labels.json": (b"{}", NO_PICTURE),
    "film.mp4": (MP4, NO_PICTURE),
    "empty": (b"", NO_PICTURE),
    "sub/inner.zip": (b"PK\5\6" + bytes(18), CLOSED),
    # names that leave a file out, at any depth
    ".hidden.jpg": (JPEG, left_out(HIDDEN)),
    "a/.album/1.jpg": (JPEG, left_out(HIDDEN)),
    ".DS_Store": (b"1", left_out(HIDDEN)),
    "._plain.jpg": (b"1", left_out(HIDDEN)),
    ".Trash-1000/files/1.jpg": (JPEG, left_out(HIDDEN)),
    ".thumbnails/1.png": (PNG, left_out(HIDDEN)),
    "a/.@__thumb/1.jpg": (JPEG, left_out(HIDDEN)),
    "a/.AppleDouble/1.jpg": (JPEG, left_out(HIDDEN)),
    "a/@eaDir/1.jpg/SYNOPHOTO_THUMB_XL.jpg": (JPEG, left_out(LITTER)),
    "@EADIR/2.jpg": (JPEG, left_out(LITTER)),
    "#recycle/1.jpg": (JPEG, left_out(LITTER)),
    "#snapshot/day/1.jpg": (JPEG, left_out(LITTER)),
    "@Recycle/1.jpg": (JPEG, left_out(LITTER)),
    "$RECYCLE.BIN/S-1-5/$R1.jpg": (JPEG, left_out(LITTER)),
    "$Recycle.Bin/2.jpg": (JPEG, left_out(LITTER)),
    "__MACOSX/a/1.jpg": (JPEG, left_out(LITTER)),
    "lost+found/#1234": (JPEG, left_out(LITTER)),
    "System Volume Information/1.jpg": (JPEG, left_out(LITTER)),
    "FOUND.000/FILE0000.CHK": (JPEG, left_out(LITTER)),
    "a/Thumbs.db": (JPEG, left_out(LITTER)),
    "a/desktop.ini": (b"1", left_out(LITTER)),
    "a/Icon\r": (b"1", left_out(LITTER)),
    "My.photoslibrary/resources/derivatives/1.jpg": (JPEG, left_out(LITTER)),
    "My.photoslibrary/originals/1.jpg": (JPEG, TAKEN),
    "My Previews.lrdata/1.jpg": (JPEG, left_out(LITTER)),
    "plain.jpg_original": (JPEG, left_out(COPY)),
    "plain.jpg~": (JPEG, left_out(COPY)),
    "plain.JPG.bak": (JPEG, left_out(COPY)),
    "film.png.crdownload": (PNG[:300], left_out(COPY)),
}


def outcomes(source: Source) -> tuple[dict[str, str], Counter[str]]:
    """Ingest a source: the outcome of each picture by its name, and the number of files of each outcome."""
    images = source.images()
    found: dict[str, str] = {}
    config = IngestConfig(size=16, records_per_shard=1000)
    for split in ("train", "val", "test"):
        for content in plan_shards(images, split, config, stay_out([], "folder")):
            rejects = []
            found |= {record.about["source"]: TAKEN for record in content.records(rejects)}
            found |= {reject.name: rejected(reject.reason) for reject in rejects}
    counts = Counter(found.values())
    return found, counts + Counter({left_out(entry.rule): entry.count for entry in source.left_out()})


@pytest.mark.parametrize("form", FORMS)
def test_every_odd_file_has_its_outcome_in_every_form(tmp_path: Path, form: str) -> None:
    assert len(ODD) > 80
    root = FORMS[form](tmp_path / form, {name: content for name, (content, _) in ODD.items()})
    source = open_source(source_config("folder", root=str(root)))
    found, counts = outcomes(source)
    assert found == {name: outcome for name, (_, outcome) in ODD.items() if not outcome.startswith("left out")}
    assert counts == Counter(outcome for _, outcome in ODD.values())
    assert counts.total() == len(ODD)
    for entry in source.left_out():
        names = sorted(name for name, (_, outcome) in ODD.items() if outcome == left_out(entry.rule))
        assert entry.examples == tuple(name.replace("\r", "?") for name in names[:3])


def test_pictures_by_suffix_are_not_opened_to_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be eight million of them. Of other files the first bytes are read."""
    root = write_folder(tmp_path / "many", pictures("1.jpg", "2.JPEG", "3.png", "4.webp") | {"notes": b"1"})
    opened = []
    open_path = Path.open
    monkeypatch.setattr(
        Path, "open", lambda path, *rest, **more: opened.append(path.name) or open_path(path, *rest, **more)
    )
    assert len(open_source(source_config("folder", root=str(root))).images()) == 4
    assert set(opened) == {"notes"}


def test_a_folder_that_may_not_be_opened_or_leads_outside_counts_as_one_file(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "disk", pictures("1.jpg", "2.jpg", "lost+found/1.jpg"))
    (tmp_path / "outside").mkdir()
    write_folder(tmp_path / "outside", pictures("3.jpg", "4.jpg"))
    (root / "#recycle").symlink_to(tmp_path / "outside")
    (root / ".socket").symlink_to(tmp_path / "nowhere")
    (root / os.fsdecode(b".\xff.jpg")).write_bytes(JPEG)
    source = open_source(source_config("folder", root=str(root)))
    assert [image.name for image in source.images()] == ["1.jpg", "2.jpg"]
    by_rule = {entry.rule: (entry.count, entry.examples) for entry in source.left_out()}
    assert by_rule == {LITTER: (2, ("#recycle", "lost+found/1.jpg")), HIDDEN: (2, (".socket", ".?.jpg"))}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a.jpg", "a.png"), r"a\.jpg and a\.png both have the key a; rename one"),
        (("a.jpg", "a.jfif"), r"a\.(jpg|jfif) and a\.(jpg|jfif) both have the key a; rename one"),
        (("a.JPE", "a"), r"a(\.JPE)? and a(\.JPE)? both have the key a; rename one"),
        (("a.jpg", "a.jpg "), r"both have the key a; rename one"),
        ((".album/1.jpg", ".album/2.jpg"), r"holds no files but those that are left out: 2 hidden .*\.album/1\.jpg"),
        (("1.jpg", "@eaDir/2.jpg"), r"holds 1 pictures; .*; left out: 1 thumbnails, .*@eaDir/2\.jpg"),
        (("a\\b.jpg", "c.jpg"), "has a backslash; refused"),
        (("a\nb.jpg", "c.jpg"), "has a control character; refused"),
    ],
)
@pytest.mark.parametrize("form", ["tree", "a.zip", "a.tar", "a.tgz"])
def test_names_that_cannot_be_told_apart_or_are_unsafe_are_refused_in_one_line(
    tmp_path: Path, form: str, names: tuple[str, ...], message: str
) -> None:
    root = FORMS[form](tmp_path / form, dict.fromkeys(names, JPEG))
    with pytest.raises(UserError, match=message) as caught:
        open_source(source_config("folder", root=str(root))).images()
    assert "\n" not in str(caught.value)


def test_names_in_an_archive_that_no_disk_should_hold_are_refused(tmp_path: Path) -> None:
    for name, message in (
        (os.fsdecode(b"\xff.jpg"), "is not UTF-8; refused"),
        ("a/" * 600 + "1.jpg", "is longer than"),
    ):
        with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT) as archive:
            for each in (name, "b.jpg"):
                member = tarfile.TarInfo(each)
                member.size = len(JPEG)
                archive.addfile(member, io.BytesIO(JPEG))
        with pytest.raises(UserError, match=message):
            open_source(source_config("folder", root=str(tmp_path / "a.tar"))).images()


def test_keys_of_pictures_with_other_suffixes() -> None:
    for name, key in {
        "a/b.jfif": "a/b", "a.JPE": "a", "a.jpg ": "a", "a": "a", "a.heic": "a-heic", "g.2024.05": "g-2024-05",
        "a.txt": "a-txt", "a.jpg.": "a-jpg-", "a.webp": "a", "a.TIF": "a",
    }.items():  # fmt: skip
        assert source_key(name) == key


LISTED = sorted(name for name, (files, _) in EXAMPLES.items() if any(path.endswith(".txt") for path in files))
BOM = b"\xef\xbb\xbf"
Rewrite = Callable[[bytes], bytes]
REWRITTEN: dict[str, Rewrite] = {
    "byte order mark": lambda text: BOM + text,
    "ends of lines of Windows": lambda text: text.replace(b"\n", b"\r\n"),
    "both": lambda text: BOM + text.replace(b"\n", b"\r\n"),
    "ends of lines of old Macs": lambda text: text.replace(b"\n", b"\r"),
    "blank lines": lambda text: b"\n \n" + text.replace(b"\n", b"\n\n\t\n"),
    "blanks at the ends": lambda text: text.replace(b"\n", b"  \n"),
    "two files joined": lambda text: BOM + text[: text.index(b"\n") + 1] + BOM + text[text.index(b"\n") + 1 :],
    "no last end of line": lambda text: text.rstrip(b"\n"),
}


def with_lists(name: str, rewrite: Rewrite) -> tuple[dict[str, bytes], dict[str, object]]:
    """The example of a data set with rewritten lists, and its options."""
    files, options = EXAMPLES[name]
    changed = {path: rewrite(content) if path.endswith(".txt") else content for path, content in files.items()}
    return changed, options


@pytest.mark.parametrize("name", LISTED)
def test_lists_are_read_alike_however_an_editor_saved_them(tmp_path: Path, name: str) -> None:
    def listed(place: str, rewrite: Rewrite) -> list[tuple[object, ...]]:
        files, options = with_lists(name, rewrite)
        source = open_source(source_config(name, root=str(write_folder(tmp_path / place, files)), **options))
        return [(image.key, image.split, image.label, image.group) for image in source.images()]

    plain = listed("plain", lambda text: text)
    assert LISTED == ["celeba", "celeba_hq", "dtd", "places2"]
    assert len({row[1] for row in plain}) > 1
    for what, rewrite in REWRITTEN.items():
        assert listed(what, rewrite) == plain, what


@pytest.mark.parametrize("name", LISTED)
@pytest.mark.parametrize(
    ("encoding", "mark", "message"),
    [
        ("utf-16-le", b"\xff\xfe", r"\.txt is text in UTF-16; save it as UTF-8$"),
        ("utf-16-be", b"\xfe\xff", r"\.txt is text in UTF-16; save it as UTF-8$"),
        ("utf-16-le", b"", r"\.txt is not text; fetch it again$"),
    ],
)
def test_lists_in_utf_16_are_refused_in_one_line(
    tmp_path: Path, name: str, encoding: str, mark: bytes, message: str
) -> None:
    files, options = with_lists(name, lambda text: mark + text.decode().encode(encoding))
    root = write_folder(tmp_path, files)
    with pytest.raises(UserError, match=message):
        open_source(source_config(name, root=str(root), **options)).images()


STRAY = pictures("stray.jpg", "a/@eaDir/1.jpg") | {"notes.md": b"1", ".x": b"1"}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", sorted(EXAMPLES.keys() - {"folder", "outdoor_scenes"}))
def test_files_outside_the_layout_of_a_data_set_are_counted(tmp_path: Path, name: str, form: str) -> None:
    files, options = EXAMPLES[name]
    root = FORMS[form](tmp_path / form, files | STRAY)
    source = open_source(source_config(name, root=str(root), **options))
    images = source.images()
    counts = {entry.rule: entry.count for entry in source.left_out()}
    assert len(images) + sum(counts.values()) == len(files) + len(STRAY)
    num_labels = len({locator.member for image in images for locator in image.labels})
    assert counts.pop("label map", 0) == num_labels
    num_lists = sum(path.endswith(".txt") for path in files)
    num_stray = sum("corrupted" in path for path in files) + 1
    assert counts == {HIDDEN: 1, LITTER: 1, "not a picture": num_lists + 1} | {
        "picture outside the layout of the data set": num_stray
    }
    wanted = images[0].split
    part = open_source(source_config(name, root=str(root), **options, splits=(wanted,)))
    assert len(part.images()) + sum(entry.count for entry in part.left_out()) == len(files) + len(STRAY)


def test_archives_in_a_folder_and_tars_in_a_tar_are_counted_by_their_members(tmp_path: Path) -> None:
    tars = {}
    for wnid in ("n01440764", "n01443537"):
        names = {f"{wnid}_{n}.JPEG": JPEG for n in (1, 2)} | {f"@eaDir/{wnid}_1.JPEG": JPEG, ".x": b"1", "a.txt": b"1"}
        tars[f"{wnid}.tar"] = write_tar(tmp_path / f"{wnid}.tar", names).read_bytes()
    folder = tmp_path / "imagenet"
    write_tar(folder / "ILSVRC2012_img_train.tar", tars)
    write_zip(folder / "more.zip", {"b.txt": b"1", "__MACOSX/x": b"1"})
    write_folder(folder, {"sub/c.tar": tars["n01440764.tar"]})
    source = open_source(source_config("imagenet", root=str(folder)))
    assert [image.key for image in source.images()] == [
        f"{w}/{w}_{n}" for w in ("n01440764", "n01443537") for n in (1, 2)
    ]
    counts = {entry.rule: entry.count for entry in source.left_out()}
    assert counts == {LITTER: 3, HIDDEN: 2, "not a picture": 3, "archive that is not opened": 1}


def test_the_line_for_the_user_is_short_for_any_number_of_files(tmp_path: Path) -> None:
    names = [f".album/{number}.jpg" for number in range(300)] + [
        f"notes/{number}{'0' * 99}.txt" for number in range(1200)
    ]
    root = write_zip(tmp_path / "a.zip", dict.fromkeys(names, b"1") | pictures("1.jpg", "2.jpg"))
    source = open_source(source_config("folder", root=str(root)))
    source.images()
    line = describe(source.left_out())
    assert re.fullmatch(r"300 hidden file or folder \(\.album/0\.jpg\); 1,200 not a picture \(\.\.\.0{53}\.txt\)", line)
