"""Measure masks and edge maps per second on one core, and compare each rate with a limit from the same run.

    python -m benchmarks.masks                      the table, and JSON into benchmarks/results
    python -m benchmarks.masks --files masks.zip    a collection on disk, too

All pictures are 256x256. One process with one thread does all work, and its processor time is measured. Rows that are
compared take turns.

limit of a mask: its OpenCV calls for lines and polygons alone, recorded and played back on an empty canvas. Boxes and
    files have no limit.
limit of an edge map: scikit-image's own Canny on a grey image in memory.
of limit: our rate / the rate of the limit.
in bins: one mask for each of the six bins.
record: all that the edge stage does with one stored image: decode, find edges, encode. The last rows give the rates of
    OpenCV's bare decoding and Pillow's bare encoding.
as it comes: the same, with glibc's heap as the process finds it. If glibc returns the heap to the system between two
    images, every page that is requested again costs time, most of all in scikit-image's Canny. So the limits of edge
    maps are measured while glibc keeps the heap, and records in both states.

Exits with 1 if a record does not reach 0.95 of its limit.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import io
import json
import os
import platform
import statistics
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import skimage
from PIL import Image
from skimage import data
from skimage.color import rgb2gray
from skimage.feature import canny

from datasets.maps.edges import EdgeConfig, canny_edges
from files.pictures import decode_image, encode_jpeg, encode_png
from masks.collection import MaskFilesError
from masks.config import MaskConfig, MaskFiles
from masks.hole_ratio import BINS
from masks.masks import Masks, open_masks
from pipeline.stages.edges import EdgeContent

RESULTS = Path(__file__).parent / "results"
SIZE = 256
SHARE_OF_CANNY = 0.95
KINDS = ("strokes", "free_form", "rectangle", "centre", "irregular", "thin", "medium", "thick")
_DRAWING = ("line", "polylines", "fillPoly")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=Path, default=None, help="a folder, .zip or .tar of masks, white = hole")
    parser.add_argument("--seeds", type=int, default=200, help="masks per measurement")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    machine = _machine()
    print(f"{machine['device']}, 1 thread, scikit-image {skimage.__version__}, OpenCV {cv2.__version__}")
    rows = []
    for row in _rows(arguments):
        rows.append(row)
        cells = (f"{row[key]:,.4g}" if key in row else "" for key in ("per_second", "limit_per_second", "of_limit"))
        print(row["what"].ljust(36) + "".join(cell.rjust(16) for cell in cells), flush=True)
    name = "".join(filter(str.isalnum, f"{machine['date']}{machine['device']}")).lower()
    out = arguments.out or RESULTS / f"masks-{name}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    slow = [row["what"] for row in rows if " record " in row["what"] and row["of_limit"] < SHARE_OF_CANNY]
    print(out, *(f"{what} is slower than {SHARE_OF_CANNY:.0%} of Canny" for what in slow), sep="\n")
    sys.exit(1 if slow else 0)


def _rows(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    print("what".ljust(36) + "".join(word.rjust(16) for word in ("per second", "limit", "of limit")))
    for kind in KINDS:
        yield from _mask_rows(kind, open_masks(MaskConfig(kind=kind)), arguments)
    if arguments.files:
        yield from _mask_rows("files", _collection(arguments.files), arguments)
    yield from _edge_rows(arguments.repeats)


def _mask_rows(kind: str, masks: Masks, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    def draw() -> None:
        for seed in range(arguments.seeds):
            masks.draw(SIZE, SIZE, seed)

    def draw_in_bins() -> None:
        for seed in range(arguments.seeds // len(BINS)):
            for _, low, high in BINS:
                masks.draw_in_bin(SIZE, SIZE, low, high, seed)

    calls: list[tuple[Callable, tuple, dict]] = []
    with _recorded(calls):
        draw()

    def play_back() -> None:
        for _ in range(arguments.seeds):
            canvas = np.zeros((SIZE, SIZE), np.uint8)
        for function, rest, named in calls:
            function(canvas, *rest, **named)

    seconds, limit = _seconds(arguments.repeats, draw, play_back)
    yield _row(f"mask {kind}", arguments.seeds, seconds, limit if calls else None)
    if kind != "centre":
        (seconds,) = _seconds(arguments.repeats, draw_in_bins)
        yield _row(f"mask {kind}, in bins", arguments.seeds // len(BINS) * len(BINS), seconds)


@contextlib.contextmanager
def _recorded(calls: list) -> Iterator[None]:
    """Record every drawing call of OpenCV until the context ends."""
    originals = {name: getattr(cv2, name) for name in _DRAWING}

    def recorder(function: Callable) -> Callable:
        def call(canvas: np.ndarray, *rest: Any, **named: Any) -> Any:
            calls.append((function, rest, named))
            return function(canvas, *rest, **named)

        return call

    try:
        for name, function in originals.items():
            setattr(cv2, name, recorder(function))
        yield
    finally:
        for name, function in originals.items():
            setattr(cv2, name, function)


def _collection(root: Path) -> Masks:
    files = MaskFiles(root=str(root.absolute()))
    start = time.perf_counter()
    try:
        return open_masks(MaskConfig(kind="files", files=files))
    except MaskFilesError as error:
        digests = [word for word in str(error).split() if len(word) == 64]
        if not digests:
            raise
        masks = open_masks(MaskConfig(kind="files", files=replace(files, sha256=digests[0])))
        print(f"opened twice in {time.perf_counter() - start:.1f} s")
        return masks


def _edge_rows(repeats: int) -> Iterator[dict[str, Any]]:
    pictures = [getattr(data, name)() for name in ("astronaut", "chelsea", "coffee", "rocket")]
    images = [np.ascontiguousarray(picture[:SIZE, 50 : 50 + SIZE]) for picture in pictures] * 4
    greys = [rgb2gray(image) for image in images]
    config = EdgeConfig()
    members = EdgeContent(config)
    maps = [Image.fromarray(canny_edges(image, config) * 255) for image in images]
    stored = {"jpeg": [encode_jpeg(image, 95) for image in images], "png": [encode_png(image) for image in images]}

    def bare() -> None:
        for picture in greys:
            canny(picture, sigma=config.sigma, low_threshold=config.low_threshold, high_threshold=config.high_threshold)

    def ours() -> None:
        for image in images:
            canny_edges(image, config)

    def records(kind: str) -> None:
        for content in stored[kind]:
            members("key", decode_image(content))

    def decode(kind: str) -> None:
        for content in stored[kind]:
            cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)

    def encode() -> None:
        for picture in maps:
            picture.save(io.BytesIO(), "PNG", compress_type=zlib.Z_RLE)

    rows = {
        "edges": ours,
        "edges, record of jpeg": lambda: records("jpeg"),
        "edges, record of png": lambda: records("png"),
        "bare decoding of jpeg": lambda: decode("jpeg"),
        "bare decoding of png": lambda: decode("png"),
        "bare encoding of an edge map": encode,
    }
    as_it_comes = {what: _seconds(repeats, function)[0] for what, function in rows.items() if " record " in what}
    np.empty(31 * 2**20, np.uint8)  # freed at once: glibc keeps up to twice the largest block that came back, to 64 MiB
    for what, function in rows.items():
        seconds, limit = _seconds(repeats, function, bare)
        yield _row(what, len(images), seconds, limit)
        if what in as_it_comes:
            yield _row(f"{what}, as it comes", len(images), as_it_comes[what], limit)


def _seconds(repeats: int, *functions: Callable[[], Any]) -> list[float]:
    """Return the median processor time of each function, in seconds. In every round each function is called once."""
    taken: list[list[float]] = [[] for _ in functions]
    for function in functions:
        function()
    for _ in range(repeats):
        for function, times in zip(functions, taken, strict=True):
            start = time.process_time()
            function()
            times.append(time.process_time() - start)
    return [statistics.median(times) for times in taken]


def _row(what: str, count: int, seconds: float, limit: float | None = None) -> dict[str, Any]:
    row = {"what": what, "pixels": SIZE, "per_second": count / seconds}
    return row if limit is None else row | {"limit_per_second": count / limit, "of_limit": limit / seconds}


def _machine() -> dict[str, Any]:
    return {
        "date": datetime.date.today().isoformat(),
        "device": f"{platform.machine()} CPU, {os.cpu_count()} cores",
        "threads": 1,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "scikit_image": skimage.__version__,
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    main()
