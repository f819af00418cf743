"""Extended headers of tars: the blocks before a member's own header that hold what does not fit there."""

from __future__ import annotations

import re
import tarfile

_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE)
_RECORD = re.compile(rb"(\d+) ([^=]+)=")
_KEYWORDS = frozenset(
    b"atime charset comment ctime gid gname hdrcharset linkpath mtime path size uid uname".split()
)  # of POSIX; all others have a dot in their names


def are_whole(blocks: bytes) -> bool:
    """Return whether extended headers have all their content.

    They have no checksum, and tarfile passes over records that it cannot read: of a name that is damaged there, it
    returns the beginning that is in the member's own header.
    blocks: the extended headers of one member, each followed by its content.
    """
    while blocks:
        size = tarfile.nti(blocks[124:136])
        content = blocks[tarfile.BLOCKSIZE : tarfile.BLOCKSIZE + size]
        is_whole = _has_whole_records(content) if blocks[156:157] in _PAX else _is_one_name(content)
        if not is_whole:
            return False
        blocks = blocks[tarfile.BLOCKSIZE + -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE :]
    return True


def _has_whole_records(content: bytes) -> bool:
    """Return whether pax records, each `<its length> <keyword>=<value>` and a line break, fill the content."""
    position = 0
    while match := _RECORD.match(content, position):
        end = position + int(match[1])
        is_known = match[2] in _KEYWORDS or b"." in match[2]
        if not (is_known and match.end() < end and content[end - 1 : end] == b"\n"):
            return False
        position = end
    return 0 < position == len(content)


def _is_one_name(content: bytes) -> bool:
    """Return whether the content is a long name, with or without the zero that ends it."""
    return b"\0" not in content.removesuffix(b"\0") != b""
