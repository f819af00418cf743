"""Make the code of a registered model: one package of its own, with all that loading and filling imports.

The package is named by a digest of its files. Hence two versions of a model can be loaded in one process, each with
its own code, and neither a checkout nor a library called `datasets` or `files` is in their way.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import itertools
import re
import sys
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import resolve_name
from pathlib import Path
from typing import BinaryIO

from files.checkout import FOLDERS, ROOT

LOADER = "jobs.tracking.registered_model"
"""The module that loads the model."""

PREFIX = "inpaint_"
_DIGITS = 16  # of the digest, in the name of a package
_INIT = b'"""The code of a registered generator, copied from the checkout that trained it; only imports differ."""\n'


@dataclass(frozen=True, kw_only=True)
class PrivatePackage:
    """The code of a registered model.

    name: of the package.
    files: path that begins with the name -> content.
    third_party: modules of other projects that it imports, such as "torch", sorted.
    """

    name: str
    files: Mapping[str, bytes]
    third_party: tuple[str, ...]


def read_sources(checkout: Path | BinaryIO = ROOT) -> dict[str, bytes]:
    """Return the files of code of a checkout: path relative to it -> content.

    checkout: a folder, or a .zip file of one, as a path or open for reading.
    """
    if not isinstance(checkout, Path) or checkout.is_file():
        with zipfile.ZipFile(checkout) as archive:
            return {name: archive.read(name) for name in archive.namelist() if _is_code(name)}
    paths = (path for folder in FOLDERS for path in (checkout / folder).rglob("*.py"))
    return {path.relative_to(checkout).as_posix(): path.read_bytes() for path in paths}


def make_package(sources: Mapping[str, bytes], generator: str) -> PrivatePackage:
    """Make the package with which a generator is loaded and fills holes. Equal sources give equal bytes.

    sources: path relative to the checkout -> content; files that are not needed are left out.
    generator: a folder of jobs/generators.
    Raises ValueError if the sources lack the generator or the loader.
    """
    modules = {_module(path): path for path in sources}
    needed = find_needed(sources, generator)
    ours = {name for module in modules for name in _with_parents(module)}
    name = PREFIX + _digest(_renamed(needed, ours, PREFIX))[:_DIGITS]
    return PrivatePackage(
        name=name,
        files={f"{name}/{path}": content for path, content in _renamed(needed, ours, name).items()},
        third_party=find_third_party(needed),
    )


def find_needed(sources: Mapping[str, bytes], generator: str) -> dict[str, bytes]:
    """Return the files with which a generator is loaded and fills holes. See `make_package`."""
    modules = {_module(path): path for path in sources}
    start = (LOADER, f"jobs.generators.{generator}", f"jobs.generators.{generator}.recipe")
    if missing := [module for module in start if module not in modules]:
        raise ValueError(f"the code has no module {missing[0]}, with which {generator} would be loaded")
    return {path: sources[path] for path in _closure(sources, modules, start)}


def find_third_party(files: Mapping[str, bytes]) -> tuple[str, ...]:
    """Return the top-level modules of libraries that files import, sorted. files: path -> content."""
    imported = {module.split(".")[0] for path, content in files.items() for module in _imported(content, path)}
    return tuple(sorted(imported - set(FOLDERS) - set(sys.stdlib_module_names)))


def _is_code(name: str) -> bool:
    return name.endswith(".py") and name.split("/")[0] in FOLDERS


def _module(path: str) -> str:
    """Return the dotted name of a file: `jobs/layers/vgg.py` -> `jobs.layers.vgg`."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _with_parents(module: str) -> list[str]:
    """Return the names that an import of a module imports: `a.b.c` -> `a`, `a.b`, `a.b.c`."""
    return list(itertools.accumulate(module.split("."), "{}.{}".format))


@functools.lru_cache(maxsize=1024)
def _nodes(content: bytes) -> tuple[ast.AST, ...]:
    """Return all nodes of a file's syntax tree."""
    return tuple(ast.walk(ast.parse(content)))


def _digest(files: Mapping[str, bytes]) -> str:
    lines = (f"{hashlib.sha256(content).hexdigest()}  {path}\n" for path, content in sorted(files.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _closure(sources: Mapping[str, bytes], modules: Mapping[str, str], start: Iterable[str]) -> list[str]:
    """Return the paths of all files that an import of some modules may run, sorted.

    modules: dotted name -> path.
    """
    found: set[str] = set()
    waiting = set(start)
    while waiting:
        name = waiting.pop()
        waiting |= set(_with_parents(name)) - {name}
        path = modules.get(name)
        if path is not None and path not in found:
            found.add(path)
            waiting |= _imported(sources[path], path)
            waiting |= {text for _, text in _texts(_nodes(sources[path])) if text in modules}
    return sorted(found)


def _imported(content: bytes, path: str) -> set[str]:
    """Return dotted names of all that a file may import; of `from a import b` both `a` and `a.b`."""
    names = set()
    for node in _nodes(content):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = _module(path) if path.endswith("__init__.py") else _module(path).rpartition(".")[0]
            base = resolve_name("." * node.level + (node.module or ""), package)
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return names


def _renamed(files: Mapping[str, bytes], ours: Collection[str], package: str) -> dict[str, bytes]:
    """Return files as parts of a package: each import of this project's modules is made from that package."""
    return {"__init__.py": _INIT} | {path: _rename(content, ours, package) for path, content in files.items()}


def _rename(content: bytes, ours: Collection[str], package: str) -> bytes:
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    for row, column, text in sorted(_insertions(lines, ours, package), reverse=True):
        line = lines[row - 1]
        lines[row - 1] = line[:column] + text.encode() + line[column:]
    return b"\n".join(lines)


def _insertions(lines: list[bytes], ours: Collection[str], package: str) -> Iterator[tuple[int, int, str]]:
    """Yield the texts to insert: row, counted from 1, byte in the row, and text."""
    nodes = _nodes(b"\n".join(lines))
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module in ours:
            yield *_end_of(rb"from[\s\\]+", node, lines), f"{package}."
        for alias in node.names if isinstance(node, ast.Import) else ():
            if alias.name in ours:
                yield alias.lineno, alias.col_offset, f"{package}."
                if alias.asname is None:  # `import a.b` binds `a`
                    first = alias.name.split(".")[0]
                    yield alias.end_lineno, alias.end_col_offset, f", {package}.{first} as {first}"
    for node, text in _texts(nodes):
        if "." in text.removesuffix(".") and text.removesuffix(".") in ours:  # one word alone is rarely a module
            yield *_end_of(rb"[A-Za-z]*(\"\"\"|'''|\"|')", node, lines), f"{package}."


def _end_of(pattern: bytes, node: ast.stmt | ast.expr, lines: list[bytes]) -> tuple[int, int]:
    """Return row and byte where a pattern ends that begins where the node does."""
    rest = b"\n".join([lines[node.lineno - 1][node.col_offset :], *lines[node.lineno :]])
    before = re.match(pattern, rest).group().split(b"\n")
    return node.lineno + len(before) - 1, len(before[-1]) + (node.col_offset if len(before) == 1 else 0)


def _texts(nodes: Sequence[ast.AST]) -> Iterator[tuple[ast.expr, str]]:
    """Yield every text with what it begins with, which may be a module's name.

    `import_module("jobs.layers.vgg")` has the whole text, `import_module(f"jobs.generators.{name}")` the part before
    the brace.
    """
    inner = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in nodes:
        first = node.values[0] if isinstance(node, ast.JoinedStr) and node.values else node
        if id(node) not in inner and isinstance(first, ast.Constant) and isinstance(first.value, str):
            yield node, first.value
