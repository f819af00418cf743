"""A graph of artefacts: nodes with facts, and edges from each artefact to those that it leads to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Node:
    """One artefact, input or use.

    kind: such as "images", "training" or "version".
    title: names it among those of its kind.
    digest: identifies its content; "" if it has none.
    about: key of the picture that the facts are about, if they are about one.
    facts: name -> value as JSON has it; shown in this order.
    problems: why it, or a link to it, cannot be verified; one text per reason.
    """

    kind: str
    title: str
    digest: str = ""
    about: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Tell the node from all others of a graph."""
        return f"{self.kind} {self.title} {self.digest} {self.about}"

    @property
    def name(self) -> str:
        """The node in a line of text."""
        return f"{self.kind} {self.title}" + (f" [{self.about}]" if self.about else "")


class Graph:
    """Nodes and edges, grown from a root.

    root: id of the node that was added first.
    nodes: by id.
    edges: ids of two nodes -> None; a mapping, since it keeps its order and each edge once.
    """

    def __init__(self) -> None:
        self.root = ""
        self.nodes: dict[str, Node] = {}
        self.edges: dict[tuple[str, str], None] = {}

    def add(self, node: Node, *, below: Node | None = None) -> bool:
        """Add a node, and an edge to it. The first node is the root. Returns whether the node is new.

        below: the node that leads to it.
        """
        is_new = node.id not in self.nodes
        self.root = self.root or node.id
        self.nodes.setdefault(node.id, node)
        if below is not None:
            self.edges[below.id, node.id] = None
        return is_new

    @property
    def problems(self) -> list[tuple[Node, str]]:
        """Every node that cannot be verified, with the reason."""
        return [(node, problem) for node in self.nodes.values() for problem in node.problems]

    def walk(self) -> Iterator[tuple[int, Node, bool]]:
        """Yield depth, node and whether it was yielded before, from the root down. A repeated node is not entered."""
        children: dict[str, list[str]] = {}
        for parent, child in self.edges:
            children.setdefault(parent, []).append(child)
        seen: set[str] = set()
        waiting = [(0, self.root)]
        while waiting:
            depth, name = waiting.pop()
            yield depth, self.nodes[name], name in seen
            if name not in seen:
                seen.add(name)
                waiting += [(depth + 1, child) for child in reversed(children.get(name, []))]

    def to_tree(self) -> dict[str, Any]:
        """Return the graph as JSON has it."""
        numbers = {name: number for number, name in enumerate(self.nodes)}
        return {
            "nodes": [{"id": numbers[name], **asdict(node)} for name, node in self.nodes.items()],
            "edges": [[numbers[parent], numbers[child]] for parent, child in self.edges],
        }
