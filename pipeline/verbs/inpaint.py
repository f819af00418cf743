"""Fill the holes of a user's own pictures with a registered generator."""

from __future__ import annotations

from argparse import Namespace
from typing import Literal

from files.errors import UserError
from pipeline.inpainting.filling import PIXELS_AT_ONCE, Filler, parse_model
from pipeline.inpainting.listing import Task, list_tasks
from pipeline.progress import Bar
from pipeline.verbosity import say


def run(
    model: str,
    image: str,
    mask: str,
    output: str,
    *,
    sketch: str | None = None,
    hole: Literal["white", "black"] = "white",
    pixels_at_once: int = PIXELS_AT_ONCE,
) -> list[str]:
    """Fill one picture, or all of a folder, and write PNGs of their sizes.

    model: see `parse_model`.
    image, mask, output, sketch: files or folders; see `list_tasks`.
    hole: the colour of the hole in a mask of black and white.
    pixels_at_once: see `Filler`.
    Returns a line for each picture: what was taken for the hole, its share of the picture, how it was filled, and where
    the result is.
    Raises UserError as `list_tasks` and `Filler.run` do. Of a folder, all pictures are tried first.
    """
    tasks = list_tasks(image, mask, output, sketch)
    filler = Filler(parse_model(model), pixels_at_once)
    if len(tasks) == 1:
        return [_fill_one(filler, tasks[0], hole)]
    lines, problems = [], []
    with Bar("inpaint", len(tasks), "pictures") as bar:
        for number, task in enumerate(tasks, 1):
            try:
                lines.append(filler.run(task, hole))
            except UserError as error:
                problems.append(str(error))
            bar.at(number)
    if problems:
        for line in lines:
            say(line)
        raise UserError(f"{len(problems)} of {len(tasks)} pictures are not filled: {'; '.join(problems)}")
    return lines


def _fill_one(filler: Filler, task: Task, hole: Literal["white", "black"]) -> str:
    bars: list[Bar] = []

    def at(done: int, total: int) -> None:
        if not bars:
            bars.append(Bar("inpaint", total, "tiles").__enter__())
        bars[0].at(done)

    try:
        return filler.run(task, hole, at)
    finally:
        for bar in bars:
            bar.__exit__(None, None, None)


VERB = {
    "help": "fill the holes of pictures with a registered generator",
    "example": "inpaint --model inpaint-edge_connect@candidate photo.png hole.png -o filled.png",
    "arguments": {
        "image": {"help": "PNG or JPEG, or a folder of them", "completes": "files"},
        "mask": {
            "help": "PNG or JPEG: a white hole on black, strokes in colour or on a transparent layer; one for all "
            "pictures, or a folder with the same names",
            "completes": "files",
        },
        "--model": {
            "required": True,
            "help": "registered model and alias or number, such as inpaint-unet@champion or unet/3; the alias of a "
            "name alone is candidate",
        },
        "--output": {"short": "-o", "required": True, "help": "PNG to write, or folder", "completes": "files"},
        "--sketch": {
            "help": "PNG or JPEG of the image's size with lines that the result follows inside the hole, or a folder; "
            "for edge_connect and a guided deepfill_v2",
            "completes": "files",
        },
        "--hole": {
            "default": "white",
            "choices": ["white", "black"],
            "help": "the hole of a mask in black and white (default: white)",
        },
        "--pixels-at-once": {
            "type": "int",
            "default": 1048576,
            "help": "fill a larger picture in overlapping tiles of at most this size (default: 1048576)",
        },
    },
    "reads_params": False,
}


def main(params: None, arguments: Namespace) -> int:
    """Write the filled pictures, and print where they are."""
    lines = run(
        arguments.model,
        arguments.image,
        arguments.mask,
        arguments.output,
        sketch=arguments.sketch,
        hole=arguments.hole,
        pixels_at_once=arguments.pixels_at_once,
    )
    for line in lines:
        say(line)
    return 0
