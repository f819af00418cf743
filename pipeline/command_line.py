"""The parser of the command line, made of the declarations of all verbs."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from pipeline.discovery import Verb
from pipeline.verbosity import add_options

PROGRAM = "python -m pipeline"


def make_parser(verbs: Mapping[str, Verb], program: str = PROGRAM) -> argparse.ArgumentParser:
    """Return a parser whose result has the entry `verb` and those of its arguments.

    verbs: name -> verb.
    program: name of the program in help texts and completions.
    """
    parser = argparse.ArgumentParser(
        prog=program,
        description="Retrain the image-inpainting generators of the papers. Stages are run by `dvc repro`.",
    )
    add_options(parser)
    subparsers = parser.add_subparsers(dest="verb", required=True, metavar="verb")
    for name, verb in verbs.items():
        subparser = subparsers.add_parser(
            name,
            help=verb.help,
            description=verb.help,
            epilog=f"example: {PROGRAM} {verb.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        verb.add_arguments(subparser)
        add_options(subparser, default=argparse.SUPPRESS)
    return parser
