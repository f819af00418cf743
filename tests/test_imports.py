"""Our `datasets` stands beside the libraries, and what must start quickly does."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {"torch", "ray", "mlflow", "albumentations", "webdataset", "accelerate", "matplotlib"}


def run(code):
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_our_datasets_is_the_one_that_libraries_find():
    code = (
        "import accelerate, albumentations, mlflow, ray, torchmetrics, webdataset\n"
        "import datasets; print(datasets.__file__)"
    )
    assert Path(run(code).strip()).parent == ROOT / "datasets"


def test_help_and_parameters_load_nothing_heavy():
    for module in ("pipeline.__main__", "pipeline.params"):
        assert run(f"import sys, {module}; print(sorted({HEAVY} & set(sys.modules)))").strip() == "[]", module


def test_the_help_of_every_verb_loads_nothing_heavy():
    code = f"""
import contextlib, io, sys
from pipeline.__main__ import main
from pipeline.discovery import find_verbs
heavy = {HEAVY | {"numpy", "pyarrow", "cv2", "pydantic", "rich", "fsspec"}}
for name in find_verbs():
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
        main([name, "--help"])
    assert f"example: python -m pipeline {{name}}" in said.getvalue(), name
    print(name, sorted(heavy & set(sys.modules)))
"""
    lines = run(code).splitlines()
    assert len(lines) > 12
    assert all(line.endswith(" []") for line in lines), lines


def test_cards_load_no_torch():
    code = "import sys\nfrom jobs.generators import card, names\n[card(n).Config() for n in names()]\n"
    assert run(code + "print('torch' in sys.modules)").strip() == "False"
