"""Comments of params.yaml: those that `configure` writes, and those of the user, which it keeps."""

from __future__ import annotations

import textwrap
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from pipeline.configuring.keys import KeyPath

MARK = "#:"
"""Start of a comment that `configure` writes, and replaces when it runs again."""

SCHEMA_LINE = "# yaml-language-server: $schema=conf/params.schema.json"
WIDTH = 120


@dataclass(frozen=True)
class UserComments:
    """The comments of a user.

    above: path of a key -> the lines above it. The path () has the lines behind the last key.
    beside: path of a key -> the comment behind its value.
    """

    above: dict[KeyPath, list[str]]
    beside: dict[KeyPath, str]


def explain(text: str, indent: int, bullet: str = "") -> list[str]:
    """Return a comment as lines of at most 120 columns, marked as one that `configure` writes."""
    start = f"{' ' * indent}{MARK} "
    further = start + " " * len(bullet)
    return textwrap.wrap(
        bullet + text,
        WIDTH,
        initial_indent=start,
        subsequent_indent=further,
        break_long_words=False,
        break_on_hyphens=False,
    )


def read_user_comments(text: str) -> UserComments:
    """Return the comments of params.yaml that `configure` did not write. text: its content, a mapping in YAML."""
    places = sorted(_places(YAML().load(text), ()))
    starts = [line for line, _ in places]
    paths = [path for _, path in places]
    above: dict[KeyPath, list[str]] = {}
    beside: dict[KeyPath, list[str]] = {}
    for line, comment, is_alone in _comments(text.split("\n")):
        following = bisect_right(starts, line)
        if is_alone:
            above.setdefault((*paths, ())[following], []).append(comment)
        elif following:
            first = bisect_left(starts, starts[following - 1])  # of the keys in one line
            beside.setdefault(paths[first], []).append(comment.lstrip("# "))
    return UserComments(above, {path: f"# {' '.join(comments)}" for path, comments in beside.items()})


def _places(block: CommentedMap, path: KeyPath) -> Iterator[tuple[int, KeyPath]]:
    """Yield the line and the path of each key."""
    for name, value in block.items():
        yield block.lc.key(name)[0], (*path, str(name))
        if isinstance(value, CommentedMap):
            yield from _places(value, (*path, str(name)))


def _comments(lines: list[str]) -> Iterator[tuple[int, str, bool]]:
    """Yield line, text and whether it is alone in its line, of each comment that `configure` did not write."""
    ends = [0] * len(lines)
    for token in YAML(typ="safe", pure=True).scan("\n".join(lines)):
        start, end = token.start_mark, token.end_mark
        for line in range(start.line, end.line):  # of a text of several lines
            ends[line] = len(lines[line])
        if start.index < end.index:  # else it marks a place, such as the end of the file
            ends[end.line] = max(ends[end.line], end.column)
    for number, (line, end) in enumerate(zip(lines, ends, strict=True)):
        comment = line[end:].strip()
        if comment.startswith("#") and not comment.startswith(MARK) and comment != SCHEMA_LINE:
            yield number, comment, not line[:end].strip()
