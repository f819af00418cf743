"""Look at everything that the pipeline needs from its surroundings: what is there, what is missing, how to get it."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path

from files.checkout import ROOT
from pipeline.doctor.findings import Finding
from pipeline.doctor.machine import check_machine
from pipeline.doctor.services import check_services
from pipeline.doctor.software import check_software
from pipeline.doctor.weights import check_features, check_weights
from pipeline.inputs import read_values
from pipeline.tables import align_left

_MARKS = {"fine": "ok", "missing": "--", "broken": "!!"}


def run() -> list[Finding]:
    """Look at packages, machine, services and weights. Nothing is changed, and no large library is imported."""
    return list(_look())


def _look() -> Iterator[Finding]:
    yield from check_software()
    tree = read_values()
    if not isinstance(tree, dict):
        yield Finding("params.yaml", "broken", "cannot be read", "run: git checkout params.yaml")
        tree = {}
    blocks = (tree.get(key) for key in ("cluster", "evaluate", "generators"))
    cluster, evaluate, generators = (block if isinstance(block, dict) else {} for block in blocks)
    storage = Path(str(cluster.get("storage") or "runs"))
    yield from check_machine(bool(cluster.get("use_gpu")), ROOT / storage)
    yield from check_services()
    yield from check_weights(evaluate)
    yield from check_features(generators)


def render(findings: Sequence[Finding], *, as_json: bool) -> str:
    """Return a line for each finding, with what to do in the line below it, or all as JSON."""
    broken = sum(finding.state == "broken" for finding in findings)
    if as_json:
        tree = {"is_healthy": not broken, "findings": [finding._asdict() for finding in findings]}
        return json.dumps(tree, indent=2)
    lines = []
    seen = align_left([(_MARKS[finding.state], finding.topic, finding.detail) for finding in findings])
    for finding, line in zip(findings, seen, strict=True):
        lines += [line, *([f"        {finding.remedy}"] if finding.remedy else [])]
    end = f"needed, and broken (!!): {broken}" if broken else "all that is needed is there"
    return "\n".join([*lines, f"{end}; -- marks what only some work needs"])


VERB = {
    "help": "look at packages, devices, servers, disks and weights: what is there, and how to get the rest",
    "example": "doctor --json",
    "arguments": {"--json": {"action": "store_true", "help": "print JSON"}},
    "reads_params": False,
}


def main(params: None, arguments: Namespace) -> int:
    """Print the findings. Returns 1 if something that is needed is broken."""
    findings = run()
    print(render(findings, as_json=arguments.json))
    return int(any(finding.state == "broken" for finding in findings))
