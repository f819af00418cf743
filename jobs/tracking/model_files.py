"""Check the files of a registered model against a digest, and import the code among them."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np

from files.durable import file_digest, write_durably
from files.errors import UserError
from jobs.tracking.private_package import LOADER, PREFIX
from jobs.tracking.sketches import SKETCH, encode_sketch

Fill = Callable[..., np.ndarray]
"""fill(images, masks, sketch=None) -> filled images, uint8 (N, H, W, 3).

images: uint8 (N, H, W, 3).
masks: uint8 (N, H, W, 1), 1 = hole.
sketch: uint8 (H, W), 1 = a line to follow; only for a model that takes one.
"""

DIGESTS = "SHA256SUMS"
"""A file of a model that lists the digests of all others, as `sha256sum` writes and checks them."""

_WRITTEN_BY_MLFLOW = "registered_model_meta"
_checked: dict[str, tuple[ModuleType, tempfile.TemporaryDirectory]] = {}  # by name, with the folder of its code


class ModelError(UserError):
    """There is no such registered model, it has been changed, or it cannot be loaded."""


def write_digests(folder: Path) -> str:
    """Write DIGESTS into a model's folder and return the SHA-256 of it."""
    lines = (f"{file_digest(folder / name)}  {name}\n" for name in list_files(folder))
    return write_durably(folder / DIGESTS, "".join(lines).encode())


def check_files(folder: Path, sha256: str) -> None:
    """Raise ModelError unless a folder has exactly the files that were there when `write_digests` returned a digest.

    Nothing of the folder is executed.
    """
    path = folder / DIGESTS
    content = path.read_bytes() if path.is_file() else b""
    if (digest := hashlib.sha256(content).hexdigest()) != sha256:
        raise ModelError(f"its {DIGESTS} is not the one that was registered: it has digest {digest}, expected {sha256}")
    expected = {name: digest for digest, name in (line.split("  ", 1) for line in content.decode().splitlines())}
    found = list_files(folder)
    for name in sorted({*expected, *found}):
        if name not in expected:
            raise ModelError(f"its file {name} was not registered")
        if name not in found:
            raise ModelError(f"its file {name} is missing")
        if (digest := file_digest(folder / name)) != expected[name]:
            raise ModelError(
                f"its file {name} is not the one that was registered: it has digest {digest}, expected {expected[name]}"
            )


def find_loader(code: Path) -> str:
    """Return the module that loads a model, of the private package in a folder. Raises ModelError without a package."""
    packages = sorted(code.glob(f"{PREFIX}*"))
    if len(packages) != 1:
        raise ModelError(f"{code} has no package of a model's code, as the pipeline makes it now; train again")
    return f"{packages[0].name}.{LOADER}"


def open_model(*, loader: str, code: Path, data: Path) -> Fill:
    """Load a model from checked files, which may be removed afterwards.

    loader: dotted name of the module that loads it.
    code: folder of the private package.
    data: folder of weights and receipt.
    Returns a function of images and masks, see `jobs.tracking.mlflow_registry.load_model`.
    Raises UserError for a model that cannot be loaded; the function, for images that it cannot fill.
    """
    name = loader.split(".")[0]
    import_package(code / name)
    with _errors_of(name):
        model = importlib.import_module(loader)._load_pyfunc(str(data))

    def fill(image: np.ndarray, mask: np.ndarray, sketch: np.ndarray | None = None) -> np.ndarray:
        params = () if sketch is None else ({SKETCH: encode_sketch(sketch)},)
        with _errors_of(name):
            return model.predict({"image": image, "mask": mask}, *params)

    return fill


@contextlib.contextmanager
def _errors_of(package: str) -> Iterator[None]:
    """Raise the UserError of a private package, a class of its own, as that of this code."""
    errors = importlib.import_module(f"{package}.files.errors")
    try:
        yield
    except errors.UserError as error:
        raise UserError(str(error)) from error


def import_package(folder: Path) -> None:
    """Make a private package importable from a checked folder, which may be removed afterwards.

    A package of this name that was made importable before stays, since the name stands for the content. One that
    anything else has imported is not used: its files were not checked.
    """
    name = folder.name
    if name in _checked and sys.modules.get(name) is _checked[name][0]:
        return
    _forget(name)
    kept = tempfile.TemporaryDirectory(prefix=f"{name}-")  # until the process ends: it may import more of it later
    path = shutil.copytree(folder, Path(kept.name) / name)
    start, places = path / "__init__.py", [str(path)]
    spec = importlib.util.spec_from_file_location(name, start, submodule_search_locations=places)
    package = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    _checked[name] = (package, kept)


def _forget(name: str) -> None:
    for module in [module for module in sys.modules if module == name or module.startswith(f"{name}.")]:
        del sys.modules[module]


def list_files(folder: Path) -> list[str]:
    """Return the paths of all files but DIGESTS, relative to the folder, sorted.

    A file that MLflow writes beside them when it loads a version, with name and number, is left out.
    """
    files = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted({path.relative_to(folder).as_posix() for path in files} - {DIGESTS, _WRITTEN_BY_MLFLOW})
