"""Describe the ingested data set for catalogues, as Croissant."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

from files.durable import write_durably
from pipeline.lineage.croissant import make_croissant
from pipeline.verbosity import say

VERB = {
    "help": "describe the ingested data set as Croissant: files with digests, fields, licence",
    "example": "croissant croissant.json",
    "arguments": {"file": {"nargs": "?", "help": "the file to write (default: print it)"}},
    "reads_params": False,
}


def main(params: None, arguments: Namespace) -> int:
    """Print the description, or write it."""
    text = json.dumps(make_croissant(), indent=2, ensure_ascii=False) + "\n"
    if arguments.file is None:
        print(text, end="")
        return 0
    write_durably(Path(arguments.file), text.encode())
    say(f"the data set is described in {arguments.file}")
    return 0
