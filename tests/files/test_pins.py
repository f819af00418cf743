"""A file or archive that changes after it was listed: nothing is read from it, and it is named."""

import io
import os
import pickle
import tarfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from files.archives import ChangedFileError, MemberError, inflate, open_inner, open_tree, read, read_many
from files.left_out import LeftOutFiles
from files.pins import pin_of

OLD = {"a.jpg": b"a" * 900, "b.jpg": b"b" * 900}
NEW = {"a.jpg": b"B" * 900, "b.jpg": b"A" * 900}  # names and sizes are the same, so headers and offsets are


def tar(files: dict[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


FORMS: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "tar": tar,
    "tgz": lambda files: tar(files, "w:gz"),
    "zip": zipped,
    "file": lambda files: files["a.jpg"],
}


def overwrite(path: Path, content: bytes) -> None:
    status = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace_by_rename(path: Path, content: bytes) -> None:
    status = path.stat()
    other = path.with_name("other")
    other.write_bytes(content)
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.rename(path)


CHANGES: dict[str, Callable[[Path, bytes], object]] = {
    "overwritten, with its old time": overwrite,
    "replaced, with its old time": replace_by_rename,
    "replaced by the same": lambda path, content: replace_by_rename(path, path.read_bytes()),
    "grown": lambda path, content: path.write_bytes(path.read_bytes() + bytes(512)),
    "cut": lambda path, content: os.truncate(path, 700),
    "empty": lambda path, content: os.truncate(path, 0),
    "gone": lambda path, content: path.unlink(),
    "a folder": lambda path, content: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("form", FORMS)
def test_nothing_is_read_from_a_file_that_has_changed(tmp_path: Path, form: str, change: str) -> None:
    path = tmp_path / f"a.{form}"
    path.write_bytes(FORMS[form](OLD))
    locators = list(open_tree(tmp_path if form == "file" else path).entries.values())
    assert list(read_many(locators)) == [read(locator) for locator in locators] == list(OLD.values())[: len(locators)]
    size, time_before = path.stat().st_size, path.stat().st_mtime_ns
    time.sleep(0.02)  # systems before Linux 6.13 count time in steps of up to ten milliseconds
    CHANGES[change](path, FORMS[form](NEW))
    if "old time" in change:
        assert path.stat().st_mtime_ns == time_before
        assert form == "tgz" or path.stat().st_size == size
    message = rf"^{path} has changed since it was listed; make sure that no program writes to it, and run the command"
    for act in (lambda: read(locators[0]), lambda: list(read_many(locators)), locators[0].check):
        with pytest.raises(ChangedFileError, match=message) as raised:
            act()
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)  # as it comes from a worker


def test_a_changed_archive_is_not_inflated_and_what_was_inflated_of_it_is_not_read(tmp_path: Path) -> None:
    path, place = tmp_path / "a.tgz", tmp_path / "here" / "a.tar"
    path.write_bytes(FORMS["tgz"](OLD))
    locator = open_tree(path).entries["a.jpg"]
    list(inflate(path, locator.pin, place))
    assert read(locator.within(place)) == OLD["a.jpg"]
    overwrite(place, tar({"b.jpg": b"b", "a.jpg": b"a"}))
    with pytest.raises(ChangedFileError, match=r"a\.tgz"):
        read(locator.within(place))
    time.sleep(0.02)
    overwrite(path, FORMS["tgz"](NEW))
    with pytest.raises(ChangedFileError, match=r"a\.tgz"):
        list(inflate(path, locator.pin, tmp_path / "there" / "a.tar"))
    assert not list((tmp_path / "there").iterdir())
    with pytest.raises(ChangedFileError, match=r"a\.tgz"):
        read(locator.within(place))


def test_the_header_before_a_member_proves_it_even_where_times_prove_nothing(tmp_path: Path) -> None:
    """Such as on a file system without a time of change."""
    other = {"b.jpg": OLD["b.jpg"], "a.jpg": OLD["a.jpg"]}
    for form in ("tar", "tgz", "zip"):
        path = tmp_path / f"a.{form}"
        path.write_bytes(FORMS[form](OLD))
        locator = open_tree(path).entries["a.jpg"]
        path.write_bytes(FORMS[form](other))
        forged = replace(locator, pin=pin_of(path.stat()))
        with pytest.raises(MemberError if form == "zip" else ChangedFileError):
            read(forged)


def test_tars_inside_an_archive_that_changes_are_not_listed(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(tar({"inner.tar": tar(OLD)}))
    inner = open_tree(path).entries.values()
    assert [read(locator) for locator in open_inner(inner, LeftOutFiles())] == list(OLD.values())
    time.sleep(0.02)
    overwrite(path, tar({"inner.tar": tar(NEW)}))
    with pytest.raises(ChangedFileError, match=r"a\.tar has changed"):
        list(open_inner(inner, LeftOutFiles()))


@pytest.mark.parametrize("form", ["tar", "tgz", "zip"])
def test_locators_stay_small(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"a.{form}"
    path.write_bytes(FORMS[form](OLD))
    locators = list(open_tree(path).entries.values())
    assert locators[0].pin is locators[1].pin  # one number for all members in memory
    both, one = (len(pickle.dumps(each, pickle.HIGHEST_PROTOCOL)) for each in (locators, locators[:1]))
    assert both - one < 70
