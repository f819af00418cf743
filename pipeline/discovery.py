"""Find the verbs of the command line and their arguments without importing the files that run them.

A file in pipeline/stages or pipeline/verbs declares a verb of the same name with two names at its end:

    VERB = {"help": "one line", "example": "name words", "arguments": {"name": {...}, "--option": {...}}}

    def main(params: Params, arguments: Namespace) -> int: ...

VERB is a literal and is read from the text of the file. Importing the file may take seconds (torch, ray, mlflow), and
`--help` must answer at once.
"""

from __future__ import annotations

import argparse
import ast
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from files.code_archive import process_code
from pipeline.places import check_outputs

_FOLDERS = ("stages", "verbs")
_TYPES = {"int": int, "float": float}


@dataclass(frozen=True, kw_only=True)
class Verb:
    """Describe one verb.

    module: dotted name of its file.
    help: one line, shown in the list of verbs and above its arguments.
    example: words that follow `python -m pipeline`.
    arguments: name or option -> keyword arguments of `add_argument`; `type` is the text "int" or "float". `completes`
        names the words that a shell offers, see pipeline/verbs/completion.py. `short` is another name of an option.
    reads_params: whether params.yaml is read and checked before the file is imported. If not, `main` gets None.
    """

    module: str
    help: str
    example: str
    arguments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    reads_params: bool = True

    @property
    def name(self) -> str:
        """The word on the command line."""
        return self.module.rpartition(".")[2]

    @property
    def writes_outputs(self) -> bool:
        """Whether the verb is a stage, or runs one."""
        return self.module.startswith("pipeline.stages.") or self.name == "precompute"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the declared arguments to the parser of this verb."""
        for name, options in self.arguments.items():
            kind = {"type": _TYPES[options["type"]]} if "type" in options else {}
            known = {key: value for key, value in options.items() if key not in ("completes", "short")}
            names = (options["short"], name) if "short" in options else (name,)
            parser.add_argument(*names, **{**known, **kind}).completes = options.get("completes")

    def run(self, arguments: argparse.Namespace) -> int:
        """Import the file and run its `main`. Returns the exit code.

        The inputs of a stage are read before its code is imported. Raises InputsChangedError if they change until its
        end.
        """
        from pipeline.stage_notes import note_stage

        words = self._words(arguments)
        with note_stage(words):
            return self._run(arguments, words)

    def _words(self, arguments: argparse.Namespace) -> list[str]:
        """Return the command line of some arguments: those that are not at default."""
        words = [self.name]
        for name, declared in self.arguments.items():
            value = getattr(arguments, name.lstrip("-").replace("-", "_"))
            if not name.startswith("-"):
                words += [str(value)] if value != declared.get("default") else []
            elif value not in (None, False, declared.get("default")):
                words.append(name)
        return words

    def _run(self, arguments: argparse.Namespace, words: list[str]) -> int:
        from pipeline.inputs import read_inputs_of

        inputs = read_inputs_of(words)
        if inputs is not None:
            process_code()
        params = None
        if self.writes_outputs:
            check_outputs()
        if self.reads_params:
            from jobs.cluster.gpus import check_driver, hide_gpus
            from pipeline.params import read_params

            params = read_params()
            if params.train.portable:
                from pipeline.restarting import pin_instruction_sets

                pin_instruction_sets()
            hide_gpus(params.cluster)
            if self.name == "train":
                check_driver(params.cluster)
        module = importlib.import_module(self.module)
        if inputs is None:
            return module.main(params, arguments)
        from pipeline.lineage.records import check_records  # not earlier: it imports code of stages

        inputs.check_unchanged()
        check_records(inputs)
        code = module.main(params, arguments)
        inputs.check_unchanged()
        return code


def find_verbs() -> dict[str, Verb]:
    """Return every declared verb by name, in alphabetical order."""
    root = Path(__file__).resolve().parent
    verbs = []
    for path in (path for folder in _FOLDERS for path in (root / folder).glob("*.py")):
        declaration = _read_declaration(path)
        if declaration is not None:
            verbs.append(Verb(module=f"pipeline.{path.parent.name}.{path.stem}", **declaration))
    return {verb.name: verb for verb in sorted(verbs, key=lambda verb: verb.name)}


def _read_declaration(path: Path) -> dict[str, Any] | None:
    """Return the literal VERB of a file, or None if the file declares no verb."""
    for statement in reversed(ast.parse(path.read_text(encoding="utf-8")).body):
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "VERB":
            return ast.literal_eval(statement.value)
    return None
