"""List the pictures to fill, of files or of folders, and refuse what cannot be written before anything is filled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from files.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg")
"""Endings of the files of a folder that are taken for pictures."""


@dataclass(frozen=True)
class Task:
    """One picture to fill: the files that are read, and the PNG that is written."""

    image: Path
    mask: Path
    sketch: Path | None
    output: Path


def list_tasks(image: str, mask: str, output: str, sketch: str | None = None) -> list[Task]:
    """Return one task for a file, or one for each picture of a folder and the folders in it, sorted by name.

    image: file or folder.
    mask, sketch: a file, or for a folder of images a folder with files of the same names; their endings may differ.
    output: a PNG, or for a folder of images a folder.
    Raises UserError for a result that cannot be written or would replace an input, for a folder without pictures, and
    for a picture without its mask or sketch.
    """
    if not Path(image).is_dir():
        for path, what in ((mask, "mask"), (sketch, "sketch")):
            if path is not None and Path(path).is_dir():
                raise UserError(f"{path} is a folder, but {image} is none; give one {what}, or a folder of images")
        task = Task(Path(image), Path(mask), None if sketch is None else Path(sketch), Path(output))
        _check_output(task)
        return [task]
    return _list_folder(Path(image), Path(mask), Path(output), None if sketch is None else Path(sketch))


def _list_folder(images: Path, mask: Path, output: Path, sketch: Path | None) -> list[Task]:
    if output.exists() and not output.is_dir():
        raise UserError(f"{output} is a file, but {images} is a folder; give a folder for the results")
    names = [path.relative_to(images) for path in _pictures(images)]
    if not names:
        raise UserError(f"{images} has no picture that ends in {', '.join(SUFFIXES)}")
    tasks: dict[Path, Task] = {}
    for name in names:
        target = output / name.with_suffix(".png")
        if target in tasks:
            raise UserError(f"{tasks[target].image} and {images / name} would both become {target}; rename one")
        lines = None if sketch is None else _partner(sketch, name, images / name, "sketch")
        tasks[target] = Task(images / name, _partner(mask, name, images / name, "mask"), lines, target)
    if output.resolve() in {folder.resolve() for folder in (images, mask, sketch) if folder is not None}:
        raise UserError(f"{output} is also a folder of inputs, which results would replace; give another folder")
    return list(tasks.values())


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def _partner(place: Path, name: Path, image: Path, what: str) -> Path:
    """Return the mask or sketch of an image. place: one file for all, or a folder with a file of the same name."""
    if not place.is_dir():
        return place
    for suffix in (name.suffix, *SUFFIXES):
        path = place / name.with_suffix(suffix)
        if path.is_file():
            return path
    raise UserError(f"{place} has no {what} of {image}; name it {name.with_suffix('.png')}")


def _check_output(task: Task) -> None:
    """Raise UserError unless a PNG can be written there that replaces none of the inputs."""
    output = task.output
    if output.suffix.lower() != ".png":
        raise UserError(
            f"{output}: the result is written as PNG, because JPEG and WebP change pixels outside the hole; give a "
            "name that ends in .png"
        )
    if output.is_dir() or not output.parent.is_dir():
        raise UserError(f"{output}: not a file in a folder that exists; give another name, or make the folder")
    for path in (task.image, task.mask, *([task.sketch] if task.sketch else [])):
        if output.exists() and path.exists() and output.samefile(path):
            raise UserError(f"{output} is also the input {path}, which the result would replace; give another name")
