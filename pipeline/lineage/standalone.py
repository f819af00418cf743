"""Fill the hole of a picture with the model beside this file: `python fill.py photo.png hole.png filled.png`.

It needs Python 3.11 or newer and the packages of model/requirements.txt, no checkout and no MLflow. Before any code of
the model is imported, every file is compared with SHA256SUMS. photo.png is a picture, hole.png one of the same size
that is white where the picture is to be filled.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def check_files() -> None:
    """Exit with a message unless exactly the files of SHA256SUMS are here, with their digests."""
    lines = (FOLDER / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    expected = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    paths = (path for path in FOLDER.rglob("*") if path.is_symlink() or not path.is_dir())
    found = {path.relative_to(FOLDER).as_posix() for path in paths} - {"SHA256SUMS"}
    for name in sorted({*expected, *found}):
        path = FOLDER / name
        if name not in found:
            sys.exit(f"{name} is missing; unpack the archive again")
        if name not in expected:
            sys.exit(f"{name} is not in SHA256SUMS; remove it, or unpack the archive elsewhere")
        if hashlib.sha256(path.read_bytes()).hexdigest() != expected[name]:
            sys.exit(f"{name} was changed: its digest is not the one in SHA256SUMS; unpack the archive again")


def main(photo: str, hole: str, output: str) -> None:
    """Fill the white part of `hole` in `photo` and write the result as PNG."""
    sys.dont_write_bytecode = True  # nothing may be added to the checked files
    check_files()
    import numpy as np
    from PIL import Image

    image = np.array(Image.open(photo).convert("RGB"))
    mask = (np.array(Image.open(hole).convert("L")) > 127).astype(np.uint8)
    if mask.shape != image.shape[:2]:
        sys.exit(f"{hole} must have the size of {photo}")
    code = FOLDER / "model" / "code"
    (package,) = (path.name for path in code.glob("inpaint_*"))
    sys.path.insert(0, str(code))
    (data,) = (FOLDER / "model" / "data").iterdir()
    model = importlib.import_module(f"{package}.jobs.tracking.registered_model")._load_pyfunc(str(data))
    filled = model.predict({"image": image[None], "mask": mask[None, ..., None]})[0]
    Image.fromarray(filled).save(output, "PNG")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
