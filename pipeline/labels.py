"""Which generators read label maps, and which maps, as files that DVC compares.

The stage semantics makes label maps only if a generator of params.yaml reads them. The training of a generator depends
on its own file here, not on the maps. So label maps that come, change or go make only those trainings stale that read
them.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets.shards.manifest import read_manifest
from files.durable import write_durably
from pipeline.layout import column_folder, made_note

LABELS = Path("shards") / "labels"
_NONE = "reads no label maps"


def find_readers(generators: Mapping[str, Any]) -> list[str]:
    """Return the generators whose recipes need label maps. generators: short name -> hyperparameters."""
    from jobs.checks.footprint import footprint  # imports torch, which a removal does without

    return [name for name, config in generators.items() if "semantics" in footprint(name, config).columns]


def remove_label_maps() -> None:
    """Leave a line of text in place of the label maps: DVC warns of an empty folder."""
    folder = column_folder("semantics", "")
    shutil.rmtree(folder, ignore_errors=True)
    write_durably(folder / "README.txt", b"No generator of params.yaml reads label maps.\n")
    made_note("semantics").unlink(missing_ok=True)


def write_label_files(generators: Mapping[str, Any], readers: list[str]) -> None:
    """Write a file for each generator: the digest of the label maps of train for a reader of them.

    generators: short name -> hyperparameters.
    readers: those that `find_readers` returned.
    """
    shutil.rmtree(LABELS, ignore_errors=True)
    LABELS.mkdir()
    for name in generators:
        _write(name, _digest() if name in readers else _NONE)


def refresh_label_files() -> None:
    """Write the present digest into the files of all readers, after records were removed from the label maps."""
    for path in LABELS.glob("*.txt"):
        if path.read_text().strip() != _NONE:
            _write(path.stem, _digest())


def _digest() -> str:
    return read_manifest(column_folder("semantics", "train")).digest


def _write(generator: str, content: str) -> None:
    write_durably(LABELS / f"{generator}.txt", f"{content}\n".encode())
