"""The code of a registered model: complete, private, named by its content, and equal whenever it is made."""

import subprocess
import sys
import zipfile
from importlib.metadata import packages_distributions

import pytest

from files.checkout import FOLDERS, ROOT
from jobs.generators import names
from jobs.tracking.private_package import LOADER, make_package, read_sources

SOURCES = read_sources()
# A statement -> how it reads in a package of this name.
RENAMED = {
    "from jobs.recipe.batch import Batch": "from P.jobs.recipe.batch import Batch",
    "from jobs.recipe import batch as jobs": "from P.jobs.recipe import batch as jobs",
    "from  \\\n  jobs.recipe.batch \\\n  import (\n    Batch,\n)": (
        "from  \\\n  P.jobs.recipe.batch \\\n  import (\n    Batch,\n)"
    ),
    "import jobs.recipe.batch": "import P.jobs.recipe.batch, P.jobs as jobs",
    "import os, files.seeds as s, datasets": "import os, P.files.seeds as s, P.datasets, P.datasets as datasets",
    "if 1: import masks.masks; import torch": "if 1: import P.masks.masks, P.masks as masks; import torch",
    "é = 'ü'; from files.errors import UserError": "é = 'ü'; from P.files.errors import UserError",
    "import_module('jobs.layers.vgg')": "import_module('P.jobs.layers.vgg')",
    'import_module(rf"""jobs.generators.{name}.recipe""")': 'import_module(rf"""P.jobs.generators.{name}.recipe""")',
    "files = datasets['masks'] + jobs.x  # from jobs import x": (
        "files = datasets['masks'] + jobs.x  # from jobs import x"
    ),
    "log('jobs.no', f'files.{x}', f'{jobs}.files.seeds')": "log('jobs.no', f'files.{x}', f'{jobs}.files.seeds')",
    "from datasetsx import a\nimport filesystem.files": "from datasetsx import a\nimport filesystem.files",
}


def test_imports_and_nothing_else_are_renamed():
    path, end = "jobs/generators/csa/losses.py", "\n# end\n"
    package = make_package(SOURCES | {path: end.join(RENAMED).encode()}, "csa")
    renamed = package.files[f"{package.name}/{path}"].decode().split(end)
    assert renamed == [text.replace("P.", f"{package.name}.") for text in RENAMED.values()]


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_a_byte_order_mark_and_line_ends_do_no_harm(newline):
    path = "jobs/generators/csa/losses.py"
    text = b"\xef\xbb\xbf" + newline.join([b"from files.errors import UserError", b"x = 1", b""])
    package = make_package(SOURCES | {path: text}, "csa")
    lines = package.files[f"{package.name}/{path}"].split(newline)
    assert lines == [f"from {package.name}.files.errors import UserError".encode(), b"x = 1", b""]


def test_equal_code_has_equal_bytes_and_a_change_of_needed_code_another_name(tmp_path):
    package = make_package(SOURCES, "edge_connect")
    with zipfile.ZipFile(tmp_path / "code.zip", "w") as archive:
        for name in sorted(SOURCES, reverse=True):
            archive.write(ROOT / name, name)
        archive.writestr("jobs/__pycache__/x.cpython-311.pyc", b"")
        archive.writestr("README.md", b"text")
    assert make_package(read_sources(tmp_path / "code.zip"), "edge_connect") == package
    unneeded = {"pipeline/params.py": b"", "jobs/generators/csa/recipe.py": b"", "files/new.py": b"import torch\n"}
    assert make_package(SOURCES | unneeded, "edge_connect") == package
    path = "jobs/generators/edge_connect/networks.py"
    changed = make_package(SOURCES | {path: SOURCES[path] + b"\n"}, "edge_connect")
    assert changed.name != package.name
    assert len(changed.files) == len(package.files)
    assert not any(path.startswith(f"{package.name}/pipeline") or "__pycache__" in path for path in package.files)


def test_a_module_that_only_a_text_names_is_carried():
    path = "jobs/generators/csa/losses.py"
    text = SOURCES[path] + b'\nimportlib.import_module("jobs.checks.price")\n'
    package = make_package(SOURCES | {path: text}, "csa")
    assert f"{package.name}/jobs/checks/price.py" in package.files


def test_code_without_the_generator_is_refused():
    with pytest.raises(ValueError, match=r"no module jobs\.generators\.absent"):
        make_package(SOURCES, "absent")
    with pytest.raises(ValueError, match=r"no module jobs\.tracking\.registered_model"):
        make_package({}, "csa")


def test_every_generator_is_built_from_its_package_alone(tmp_path):
    """In one process, where the packages of all generators are beside other projects called as our folders are."""
    packages = {name: make_package(SOURCES, name) for name in names()}
    known = set(packages_distributions())
    assert all({"torch", "safetensors"} <= set(package.third_party) <= known for package in packages.values())
    files = {path: content for package in packages.values() for path, content in package.files.items()}
    for path, content in (files | {f"{name}/__init__.py": b"raise ImportError" for name in FOLDERS}).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    program = f"""
import importlib, sys
for generator, package in {[(name, package.name) for name, package in packages.items()]}:
    importlib.import_module(package + ".{LOADER}")
    generators = importlib.import_module(package + ".jobs.generators")
    build = importlib.import_module(package + ".jobs.generators.build")
    recipe = build.build_filler(generator, generators.card(generator).Config.tiny())
    assert type(recipe).__module__ == package + ".jobs.recipe.contract", recipe
third_party = set(sys.modules) & {{"mlflow", "ray", "dvc", *{FOLDERS}}}
assert not third_party, third_party
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
