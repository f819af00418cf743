"""Numbers that papers printed, beside ours: reproduced, not reproduced, or not comparable and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ruamel.yaml import YAML

from jobs.evaluation.catalogue import BY_NAME
from jobs.evaluation.metrics.value import Value
from jobs.report.data import Conditions, PublishedLine, Row, Verdict, VerdictWord

_TABLE = Path(__file__).with_name("published.yaml")


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How numbers were measured. The fields are those of `protocols` in published.yaml."""

    data: str
    size: int | None
    masks: str
    kind: str
    images: int | None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Published:
    """The numbers of one method in one source. The fields are those of `numbers` in published.yaml.

    values: metric -> bin -> number.
    """

    method: str
    row: str | None
    protocol: str
    source: str
    certainty: Literal["read", "quoted", "recalled"]
    values: Mapping[str, Mapping[str, float]]
    table: str = ""
    reimplemented: bool = False


class PublishedTable(NamedTuple):
    """The content of published.yaml. tolerances: metric -> {"absolute": number} or {"relative": share}."""

    tolerances: Mapping[str, Mapping[str, float]]
    protocols: Mapping[str, Protocol]
    numbers: Sequence[Published]


@cache
def read_published(path: Path = _TABLE) -> PublishedTable:
    """Read the table of published numbers."""
    tree: dict[str, Any] = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    protocols = {name: Protocol(**protocol) for name, protocol in tree["protocols"].items()}
    return PublishedTable(tree["tolerances"], protocols, [Published(**entry) for entry in tree["numbers"]])


def published_lines(rows: Sequence[Row], conditions: Conditions, table: PublishedTable) -> list[PublishedLine]:
    """Put the published numbers of the methods on the page beside ours, in the order of the table."""
    by_name = {row.name: row for row in rows if row.kind in ("generator", "baseline")}
    return [
        line
        for entry in table.numbers
        if entry.row in by_name
        for line in _lines(entry, by_name[entry.row], conditions, table)
    ]


def find_obstacle(row: Row, protocol: Protocol, conditions: Conditions) -> str | None:
    """Return why no number of a protocol can be compared with the row, or None."""
    if conditions.dataset != protocol.data:
        return f"data set {conditions.dataset}, not {protocol.data}"
    if protocol.size is None or conditions.size != f"{protocol.size} × {protocol.size}":
        return f"images of {conditions.size}, not {protocol.size or 'a stated size'}"
    if conditions.mask_kind != protocol.kind:
        return f"masks {conditions.mask_kind}, not {protocol.masks}"
    if protocol.images is not None and conditions.images != protocol.images:
        return f"{conditions.images:,} images, not {protocol.images:,}"
    if row.kind == "generator" and conditions.track != "paper":
        return "the row is not on the paper track"
    return None


def judge(published: float, ours: float, tolerance: Mapping[str, float]) -> Verdict:
    """Compare one number with ours.

    tolerance: {"absolute": number} or {"relative": share}.
    """
    distance, limit = abs(ours - published), _limit(published, tolerance)
    word: VerdictWord = "reproduced" if distance <= limit else "not reproduced"
    return Verdict(word, f"differs by {ours - published:+.3g}")


def _lines(entry: Published, row: Row, conditions: Conditions, table: PublishedTable) -> Iterator[PublishedLine]:
    protocol = table.protocols[entry.protocol]
    start = (row.name, _source(entry), entry.protocol, entry.certainty)
    if obstacle := find_obstacle(row, protocol, conditions):
        what = ", ".join(_title(metric) for metric in entry.values)
        yield PublishedLine(*start, what, "", "", "", Verdict("not comparable", obstacle))
        return
    for metric, by_bin in entry.values.items():
        for bin_name, number in by_bin.items():
            what = f"{_title(metric)}, {bin_name}"
            yield PublishedLine(*start, what, f"{number:g}", *_beside(row, metric, bin_name, number, table.tolerances))


def _beside(
    row: Row, metric: str, bin_name: str, number: float, tolerances: Mapping[str, Mapping[str, float]]
) -> tuple[str, str, Verdict]:
    """Return our number and the tolerance as texts, and the verdict."""
    if metric not in tolerances:
        return "", "", Verdict("not comparable", "the source defines the metric differently, or not at all")
    if bin_name not in row.by_bin:
        return "", "", Verdict("not comparable", f"the suite has no bin {bin_name}")
    ours = row.by_bin[bin_name].get(metric)
    if not isinstance(ours, Value):
        return "", "", Verdict("not comparable", f"{_title(metric)} was not computed here")
    digits = BY_NAME[metric].digits
    limit = _limit(number, tolerances[metric])
    return f"{ours.mean:.{digits}f}", f"± {limit:.2g}", judge(number, ours.mean, tolerances[metric])


def _limit(published: float, tolerance: Mapping[str, float]) -> float:
    return tolerance["absolute"] if "absolute" in tolerance else tolerance["relative"] * abs(published)


def _title(metric: str) -> str:
    info = BY_NAME.get(metric)
    return metric if info is None else f"{info.title} ({info.unit})" if info.unit else info.title


def _source(entry: Published) -> str:
    own = ", its own implementation" if entry.reimplemented else ""
    return ", ".join(filter(None, (entry.source, entry.table))) + own
