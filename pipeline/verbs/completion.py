"""Print a script that completes `python -m pipeline ...` in a shell: verbs, options, names, presets and files."""

from __future__ import annotations

import argparse
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

import shtab

from jobs.generators import names
from pipeline.command_line import make_parser
from pipeline.configuring.presets import GROUPS, preset_names
from pipeline.discovery import find_verbs

_PROGRAM = "pipeline"  # of the functions in the scripts; the wrappers call them for `python -m pipeline`


def render(shell: str) -> str:
    """Return the script for "bash", "zsh" or "tcsh"."""
    parser = make_parser(find_verbs(), _PROGRAM)
    for action in _list_actions(parser):
        kind = getattr(action, "completes", None)
        if kind == "files":
            action.complete = shtab.FILE
        elif kind:
            action.choices = _CHOICES[kind]()
    return shtab.complete(parser, shell) + "\n" + _wrapper(shell)


def _list_actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the arguments of a parser and of the parsers of all verbs."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for subparser in action.choices.values():
                yield from _list_actions(subparser)


def _list_words() -> list[str]:
    """Return the words of `configure` that choose a preset or a generator."""
    presets = [f"{group}={name}" for group in GROUPS for name in preset_names(group)]
    return [*presets, "generators=all", *(f"generators={name}" for name in names())]


def _list_data_sets() -> list[str]:
    from datasets.sources import SOURCES

    return sorted(SOURCES)


_CHOICES: dict[str, Callable[[], list[str]]] = {
    "generators": lambda: list(names()),
    "rows": lambda: [*names(), "baselines"],
    "data sets": _list_data_sets,
    "words": _list_words,
}
"""What an argument completes, as its verb declares it -> the words."""


def _wrapper(shell: str) -> str:
    """Return the part of a script that applies it to `python -m pipeline`."""
    return Path(__file__).parent.parent.joinpath("completion", f"wrapper.{shell}").read_text(encoding="utf-8")


VERB = {
    "help": "print a script that completes verbs, options, names and presets in a shell",
    "example": "completion bash",
    "arguments": {"shell": {"choices": ["bash", "zsh", "tcsh"], "help": "the shell that reads the script"}},
    "reads_params": False,
}


def main(params: None, arguments: Namespace) -> int:
    """Print the script."""
    print(render(arguments.shell))
    return 0
