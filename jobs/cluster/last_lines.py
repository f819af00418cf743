"""What a process that ended early printed last, for messages."""

from __future__ import annotations

import re

_LINES, _LENGTH = 3, 300
_DUMP = re.compile(r"Fatal Python error:|\*\*\* SIG[A-Z]+ received")
"""A line that begins a list of all threads' frames: Python's, or the one of Ray's library."""
_NOISE = re.compile(r"frame #\d+:|Exception raised from |:(job_id|actor_name|task_name):")
"""Lines of a C++ error's frames, and those that Ray writes for itself."""


def describe_last_lines(text: str) -> str:
    """Return the last lines of a process's output, such as "; its last lines: one | two"; "" if there is none.

    The frames that a crash prints are left out: the reason, such as NCCL's, stands before them.
    """
    lines = []
    for line in filter(None, map(str.strip, text.splitlines())):
        if not _NOISE.match(line):
            lines.append(line[:_LENGTH])
        if _DUMP.search(line):
            break
    if not lines:
        return ""
    return f"; its last {'lines' if len(lines) > 1 else 'line'}: {' | '.join(lines[-_LINES:])}"
