"""Draw a graph of artefacts as one HTML page: boxes in columns by distance from the root, and a card for each.

The page needs no other file, and its policy forbids scripts and requests. Names come from data sets and may be hostile;
the template escapes all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from jobs.report.text import encodable
from pipeline.lineage.graph import Graph, Node
from pipeline.lineage.text import shown

_WIDTH, _HEIGHT = 196, 40  # of a box, in pixels
_GAP_X, _GAP_Y = 64, 12
_TITLE_LENGTH = 27  # characters that fit into a box


@dataclass(frozen=True)
class Box:
    """A node with its place on the drawing.

    number: in the order of the page.
    left, top: in pixels.
    """

    number: int
    node: Node
    left: int
    top: int

    @property
    def heading(self) -> str:
        """The kind, and in a few words what matters most about the node."""
        if self.node.problems:
            return f"{self.node.kind}, cannot be verified"
        consumed = str(self.node.facts.get("consumed", "")).partition(",")[0].partition(":")[0]
        return f"{self.node.kind}, consumed it: {consumed}" if consumed else self.node.kind

    @property
    def label(self) -> str:
        """The title, cut to the width of the box."""
        title = self.node.title
        return title if len(title) <= _TITLE_LENGTH else f"{title[: _TITLE_LENGTH - 1]}…"


def render(graph: Graph) -> str:
    """Return the page as HTML 5, to be written in UTF-8."""
    boxes = _place(graph)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = shown
    html = environment.get_template("page.html.j2").render(
        root=graph.nodes[graph.root],
        boxes=list(boxes.values()),
        paths=[(_path(boxes[parent], boxes[child]), boxes[child]) for parent, child in graph.edges],
        parents=_neighbours(graph, boxes, parents=True),
        children=_neighbours(graph, boxes, parents=False),
        problems=[(boxes[node.id], problem) for node, problem in graph.problems],
        size=(_WIDTH, _HEIGHT),
        width=max(box.left for box in boxes.values()) + _WIDTH + 2,
        height=max(box.top for box in boxes.values()) + _HEIGHT + 2,
    )
    return encodable(html)


def _place(graph: Graph) -> dict[str, Box]:
    """Return the box of each node: its column is the length of the longest way from the root, its row the next free."""
    depths = _depths(graph)
    rows: dict[int, int] = {}
    boxes: dict[str, Box] = {}
    for _, node, is_repeated in graph.walk():
        if not is_repeated:
            depth = depths[node.id]
            row = rows.get(depth, 0)
            rows[depth] = row + 1
            boxes[node.id] = Box(len(boxes), node, depth * (_WIDTH + _GAP_X) + 1, row * (_HEIGHT + _GAP_Y) + 1)
    return boxes


def _depths(graph: Graph) -> dict[str, int]:
    """Return the length of the longest way from the root to each node. The graph has no circles."""
    depths = {graph.root: 0}
    for _ in graph.nodes:
        changed = False
        for parent, child in graph.edges:
            if parent in depths and depths.get(child, -1) < depths[parent] + 1:
                depths[child], changed = depths[parent] + 1, True
        if not changed:
            break
    return depths


def _path(parent: Box, child: Box) -> str:
    """Return the line between two boxes as the path of an SVG."""
    x, y = parent.left + _WIDTH, parent.top + _HEIGHT // 2
    to_x, to_y = child.left, child.top + _HEIGHT // 2
    bend = x + _GAP_X // 2
    return f"M{x} {y}C{bend} {y} {to_x - _GAP_X // 2} {to_y} {to_x} {to_y}"


def _neighbours(graph: Graph, boxes: dict[str, Box], *, parents: bool) -> dict[int, list[Box]]:
    found: dict[int, list[Box]] = {box.number: [] for box in boxes.values()}
    for parent, child in graph.edges:
        one, other = (child, parent) if parents else (parent, child)
        found[boxes[one].number].append(boxes[other])
    return found
