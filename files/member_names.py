"""Names of files in folders and archives: which are refused."""

from __future__ import annotations

import re
from pathlib import Path

from files.archive_errors import ArchiveError

MAX_NAME_BYTES = 1024

_MACOS_ICON = "Icon\r"  # a file of macOS that is left out by its name
_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SURROGATE = re.compile("[\ud800-\udfff]")  # Python's mark for bytes that are not UTF-8


def plain_name(root: Path, name: str) -> str:
    """Return a name without `./` and doubled slashes.

    Raises ArchiveError for a name that no data set needs but an attack does, such as one with `..`.
    """
    words = [word for word in name.split("/") if word not in ("", ".")]
    refused = {
        "is an absolute path": name.startswith("/") or _DRIVE.match(name),
        "leads out with ..": ".." in words,
        "has a backslash": "\\" in name,
        "has a control character": _CONTROL.search(name.removesuffix(_MACOS_ICON)),
        "is not UTF-8": _SURROGATE.search(name),
        f"is longer than {MAX_NAME_BYTES} bytes": len(name.encode(errors="replace")) > MAX_NAME_BYTES,
    }
    for problem, is_so in refused.items():
        if is_so:
            raise ArchiveError(f"{root}: the name {name[:80]!a} {problem}; refused")
    return "/".join(words)
