"""Fill pictures with one registered generator, which is loaded once."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from files.durable import write_durably
from files.errors import UserError
from jobs.evaluation.settings import Version
from jobs.evaluation.tiling import Tiling, fill_in_tiles, measure_field, plan_tiles
from pipeline.inpainting.listing import Task
from pipeline.inpainting.reading import Inputs, read_inputs

PIXELS_AT_ONCE = 2**20
"""The largest picture that is filled as a whole. The networks of the papers need some gigabytes for it."""

_MUCH_LARGER = 2  # times the size of training, from which on a picture gets a note


def parse_model(text: str) -> Version:
    """Read the name of a registered model, such as inpaint-csa@champion, csa/3, or csa, which is csa@candidate.

    The address of MLflow, models:/inpaint-csa@champion, is read, too. Raises UserError for any other text.
    """
    found = re.fullmatch(r"(?:models:/)?(?:inpaint-)?([\w.]+)(?:@([\w.-]+)|/([0-9]+))?", text)
    if not found:
        raise UserError(f"{text!r} names no model; give a name and an alias or number: inpaint-unet@candidate, unet/3")
    return Version(f"inpaint-{found[1]}", found[2] or found[3] or "candidate")


class Filler:
    """Fill pictures.

    version: of the registered model. It is loaded for the first picture that can be read.
    pixels_at_once: a larger picture is filled in tiles of at most as many pixels.
    """

    def __init__(self, version: Version, pixels_at_once: int = PIXELS_AT_ONCE) -> None:
        self._version = version
        self._pixels_at_once = pixels_at_once

    def run(
        self,
        task: Task,
        hole: Literal["white", "black"] = "white",
        at: Callable[[int, int], None] = lambda done, total: None,
    ) -> str:
        """Fill one picture and write it.

        hole: the colour of the hole in a mask of black and white.
        at: gets the number of finished tiles and of all tiles of a large picture.
        Returns a line that says what was filled, how, and where the result is.
        Raises UserError as `read_inputs` does, and for a sketch that the generator does not take; ModelError for a
        model that cannot be loaded.
        """
        inputs = read_inputs(task, hole)
        image = inputs.picture.rgb()
        self._check_sketch(inputs, task)
        if inputs.mask.size > self._pixels_at_once:
            tiling, note = self._tiling
            filled = fill_in_tiles(self._fill, image, inputs.mask, inputs.sketch, tiling, at)
            notes = (*inputs.notes, note)
        else:
            filled, notes = self._fill(image, inputs.mask, inputs.sketch), inputs.notes
        write_durably(task.output, inputs.picture.fill(filled, inputs.mask).encode_png())
        notes = (*notes, *self._size_note(inputs.mask.shape))
        return f"filled {inputs.hole}{''.join(f'; {note}' for note in notes)}: {task.output}"

    def _check_sketch(self, inputs: Inputs, task: Task) -> None:
        if inputs.sketch is not None and not self._model[0].follows_lines:
            raise UserError(
                f"{task.sketch}: {self._version.model} {self._version.version} follows no lines; EdgeConnect and a "
                "guided DeepFill v2 do, if they were registered by this release"
            )

    def _size_note(self, shape: tuple[int, int]) -> tuple[str, ...]:
        size = self._model[0].size
        if size is None or min(shape) <= _MUCH_LARGER * size:
            return ()
        return (
            f"the picture has {shape[1]}x{shape[0]} pixels, {self._version.model} was trained at {size}: a large hole "
            "may stay blurred or grey; fill a smaller copy, or train at a larger ingest.size",
        )

    @cached_property
    def _model(self) -> tuple:
        # Here, since mlflow takes seconds to import.
        from jobs.tracking.mlflow_registry import fetch_model, open_fetched

        with tempfile.TemporaryDirectory(prefix="inpaint-") as folder:
            model = fetch_model(*self._version, Path(folder))
            return model, open_fetched(model, *self._version)

    def _fill(self, image: np.ndarray, mask: np.ndarray, sketch: np.ndarray | None) -> np.ndarray:
        lines = () if sketch is None else (np.ascontiguousarray(sketch),)
        inputs = np.ascontiguousarray(image)[None], np.ascontiguousarray(mask)[None, ..., None]
        return self._model[1](*inputs, *lines)[0]

    @cached_property
    def _tiling(self) -> tuple[Tiling, str]:
        """How large pictures are divided, and a note on it."""
        field = measure_field(self._fill)
        tiling = plan_tiles(self._pixels_at_once, field)
        tiles = f"filled in tiles of {tiling.side}x{tiling.side} that overlap by {3 * tiling.margin} pixels"
        if field is None:
            return tiling, f"{tiles}; a result depends on the whole picture, so tiles may differ in colour"
        if field > tiling.margin:
            return tiling, f"{tiles}, less than the receptive field of {field} pixels asks for: seams are possible"
        return tiling, f"{tiles}, for a receptive field of {field} pixels"
