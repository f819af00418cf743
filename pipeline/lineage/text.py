"""Print a graph of artefacts as an indented tree."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.lineage.graph import Graph, Node
from pipeline.progress import printable

_WIDTH = 120
_MAX_LISTED = 8  # values of a list


def render(graph: Graph) -> str:
    """Return the graph as text, and the list of all that cannot be verified."""
    lines = [line for depth, node, is_repeated in graph.walk() for line in _lines(depth, node, is_repeated)]
    problems = [f"  {printable(node.name)}: {printable(problem)}" for node, problem in graph.problems]
    if problems:
        return "\n".join([*lines, "", f"cannot be verified ({len(problems)}):", *problems])
    return "\n".join([*lines, "", "every link is recorded; read the bytes again with: python -m pipeline verify all"])


def shown(value: Any) -> str:
    """Return the value of a fact as text; of a long list the first values and the number of all."""
    if isinstance(value, list | tuple):
        more = f" ... ({len(value):,} in all)" if len(value) > _MAX_LISTED else ""
        return ", ".join(map(str, value[:_MAX_LISTED])) + more
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _lines(depth: int, node: Node, is_repeated: bool) -> Iterator[str]:
    indent = "  " * depth
    again = " (see above)" if is_repeated else ""
    yield f"{indent}{printable(node.name)}{again}"
    if is_repeated:
        return
    inner = f"{indent}    "
    if node.digest:
        yield f"{inner}{node.digest}"
    if node.kind == "parameters":
        yield from _wrap(inner, "; ".join(f"{name}={value}" for name, value in node.facts.items()))
    else:
        for name, value in _facts(node.facts):
            yield from _wrap(inner, f"{name}: {value}")
    for problem in node.problems:
        yield from _wrap(inner, f"! {problem}")


def _facts(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    return ((name, shown(value)) for name, value in facts.items())


def _wrap(indent: str, text: str) -> list[str]:
    return textwrap.wrap(
        printable(text), _WIDTH, initial_indent=indent, subsequent_indent=f"{indent}  ", break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
