"""A registered version: it runs its own code, of files that were checked, with nothing of the checkout."""

import ast
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import mlflow
import numpy as np
import pytest
from PIL import Image

from benchmarks.photographs import photograph
from files.checkout import FOLDERS, ROOT
from files.errors import UserError
from jobs.evaluation.inference import inpaint_images, load_trained
from jobs.tracking.mlflow_registry import FILES_TAG, load_model
from jobs.tracking.mlflow_runs import tracking_uri
from jobs.tracking.model_files import DIGESTS, ModelError, check_files, write_digests
from tests.jobs.tracking.models import register, write_model

NAME = "inpaint-edge_connect"
IMAGE, MASK = photograph(3, 32)[None], np.zeros((1, 32, 32, 1), np.uint8)
MASK[:, 6:22, 4:20] = 1
PAGE = (ROOT / "docs" / "lineage.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def registry(empty_database, tmp_path_factory):
    """Two versions with equal weights; the code of the second one fills with grey. The VGG of training is absent."""
    folder = tmp_path_factory.mktemp("registry")
    edited = folder / "edited"
    for name in FOLDERS:
        shutil.copytree(ROOT / name, edited / name, ignore=shutil.ignore_patterns("__pycache__"))
    code = edited / "jobs/recipe/padding.py"
    code.write_text(code.read_text().replace("    return tensor[", "    return 0 * tensor[") + "\n# edited\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{shutil.copy(empty_database, folder / 'mlflow.db')}")
        absent = str(folder / "vgg.pth")
        assert register(folder / "1", "edge_connect", features=absent) == "1"
        shutil.make_archive(str(folder / "code"), "zip", edited)
        assert register(folder / "2", "edge_connect", features=absent, code=folder / "code.zip") == "2"
        yield folder


def expected(registry):
    recipe, receipt = load_trained(registry / "1" / "model")
    return inpaint_images(recipe, receipt.edges, IMAGE, MASK[..., 0])["composite"]


def files_of(version):
    """The folder of a version in the artifact store."""
    client = mlflow.MlflowClient(tracking_uri())
    return Path(client.get_model_version_download_uri(NAME, version).removeprefix("file://"))


@pytest.fixture
def store(registry):
    """The files of version 1 in the artifact store; a test may change them."""
    folder = files_of("1")
    shutil.copytree(folder, registry / "whole")
    yield folder
    shutil.rmtree(folder)
    (registry / "whole").rename(folder)


def test_two_versions_in_one_process_run_their_own_code(registry):
    one, two, again = (load_model(NAME, version)(IMAGE, MASK) for version in ("1", "2", "1"))
    assert np.array_equal(one, expected(registry))
    assert np.array_equal(again, one)
    assert np.array_equal(two[MASK[..., 0] == 0], one[MASK[..., 0] == 0])
    assert not np.array_equal(two, one)
    assert np.array_equal(load_model(NAME, "candidate")(IMAGE, MASK), two)


def test_nothing_of_the_checkout_is_used(registry, monkeypatch):
    """Every module of the checkout is withdrawn that filling would import."""
    wanted = expected(registry)
    path = list(sys.path)
    for name in [name for name in sys.modules if name.split(".")[0] in FOLDERS]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError):
        __import__("jobs.generators.build")
    fill = load_model(NAME, "1")
    assert np.array_equal(fill(IMAGE, MASK), wanted)
    assert sys.path == path


def test_a_picture_that_cannot_be_filled_is_an_error_of_the_user(registry):
    with pytest.raises(UserError, match="at least 9 pixels"):
        load_model(NAME, "1")(IMAGE[:, :8], MASK[:, :8])


def test_every_file_that_is_changed_missing_or_new_is_named(registry, tmp_path):
    sha256 = mlflow.MlflowClient(tracking_uri()).get_model_version(NAME, "1").tags[FILES_TAG]
    folder = Path(shutil.copytree(files_of("1"), tmp_path / "copy"))
    check_files(folder, sha256)
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    assert {"MLmodel", "requirements.txt", "data/model/weights.safetensors", "data/model/receipt.json"} < set(names)
    assert len([name for name in names if name.startswith("code/")]) > 30
    for name in names:
        content = (folder / name).read_bytes()
        for spoil in (lambda path: path.write_bytes(path.read_bytes() + b"\n"), Path.unlink):
            spoil(folder / name)
            with pytest.raises(ModelError, match=re.escape(name)):
                check_files(folder, sha256)
            (folder / name).write_bytes(content)
    for name in ("code/torch.py", "code/sitecustomize/__init__.py", "new", "data/model/.hidden"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"")
        with pytest.raises(ModelError, match=f"{re.escape(name)} was not registered"):
            check_files(folder, sha256)
        (folder / name).unlink()
    (folder / "code" / "torch").symlink_to(tmp_path)
    with pytest.raises(ModelError, match="code/torch was not registered"):
        check_files(folder, sha256)


def spoil_code(store, marker):
    """Change every file of code so that it makes a file when it is run."""
    for path in (store / "code").rglob("*.py"):
        path.write_text(path.read_text() + f"\nimport pathlib\npathlib.Path({str(marker)!r}).touch()\n")


def test_nothing_of_a_changed_version_is_run(store, tmp_path):
    spoil_code(store, tmp_path / "ran")
    with pytest.raises(ModelError, match=rf"{NAME} 1 cannot be loaded: its file code/.*\.py is not the one"):
        load_model(NAME, "1")
    write_digests(store)
    with pytest.raises(ModelError, match=f"its {DIGESTS} is not the one that was registered"):
        load_model(NAME, "1")
    assert not (tmp_path / "ran").exists()


def test_what_others_imported_or_left_beside_the_code_is_not_run(store, registry, tmp_path, monkeypatch):
    """MLflow's own loader has imported the same package from a folder where it was changed, and left caches."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    for name in [name for name in sys.modules if name.startswith("inpaint_")]:
        monkeypatch.delitem(sys.modules, name)
    spoil_code(store, tmp_path / "ran")
    mlflow.pyfunc.load_model(str(store))
    (tmp_path / "ran").unlink()  # it was run
    assert list((store / "code").rglob("*.pyc"))
    whole = registry / "whole"
    for path in whole.rglob("*.py"):
        shutil.copyfile(path, store / path.relative_to(whole))
    assert np.array_equal(load_model(NAME, "1")(IMAGE, MASK), expected(registry))
    assert not (tmp_path / "ran").exists()


def test_weights_and_receipt_that_were_changed_together_are_refused(store, tmp_path):
    write_model(tmp_path / "other", "edge_connect", seed=2)
    for path in (tmp_path / "other").iterdir():
        shutil.copyfile(path, store / "data" / "model" / path.name)
    load_trained(store / "data" / "model")  # they fit each other
    with pytest.raises(ModelError, match=r"data/model/(receipt.json|weights.safetensors) is not the one"):
        load_model(NAME, "1")


def test_a_version_without_a_digest_is_refused(registry, monkeypatch):
    client = mlflow.MlflowClient(tracking_uri())
    sha256 = client.get_model_version(NAME, "1").tags[FILES_TAG]
    client.delete_model_version_tag(NAME, "1", FILES_TAG)
    with pytest.raises(ModelError, match=f"{NAME} 1 cannot be loaded: it was registered without the tag {FILES_TAG}"):
        load_model(NAME, "1")
    client.set_model_version_tag(NAME, "1", FILES_TAG, sha256)


def test_files_that_are_gone_are_one_line(store, registry):
    shutil.rmtree(store)
    with pytest.raises(ModelError, match=rf"{NAME} 1 cannot be loaded: .*"):
        load_model(NAME, "1")
    store.mkdir()


def test_requirements_name_every_project_that_the_code_imports(registry):
    folder = files_of("1")
    written = dict(line.split("==") for line in (folder / "requirements.txt").read_text().split())
    own = next((folder / "code").iterdir()).name
    imported = set()
    for path in (folder / "code").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module.split(".")[0])
    others = imported - set(sys.stdlib_module_names) - {own}
    assert {"torch", "cv2"} <= others
    packages = packages_distributions()
    assert all(set(packages[module]) & set(written) for module in others | {"mlflow", "PIL"})


def test_the_commands_of_the_documents_get_and_check_a_version(registry, tmp_path):
    (download,) = re.findall("^(mlflow artifacts .*)$", PAGE, re.MULTILINE)
    (check,) = re.findall("^(cd model .*)$", PAGE, re.MULTILINE)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    said = subprocess.run(
        f"({download}) 2>&1 >/dev/null && {check}",
        shell=True, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True, check=True,
    ).stdout  # fmt: skip
    sha256 = mlflow.MlflowClient(tracking_uri()).get_model_version_by_alias(NAME, "candidate").tags[FILES_TAG]
    assert said.splitlines()[-1] == f"{sha256}  {DIGESTS}"


def run(program, folder):
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "MLFLOW_TRACKING_URI")}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_program_of_the_documents_fills_a_picture_beside_a_library_called_datasets(registry, tmp_path):
    """The program runs with version 1, then version 2; a library `datasets` is imported before and after."""
    (program,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len([line for line in program.splitlines() if line]) == 6
    for version in "12":
        mlflow.artifacts.download_artifacts(f"models:/{NAME}/{version}", dst_path=str(tmp_path / f"model{version}"))
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").write_text("NAME = 'of others'\n")
    (tmp_path / "datasets" / "later.py").write_text("")
    (tmp_path / "files.py").write_text("raise RuntimeError\n")
    Image.fromarray(IMAGE[0]).save(tmp_path / "photo.png")
    Image.fromarray(255 * MASK[0, ..., 0]).save(tmp_path / "hole.png")
    check = f"\nassert set({FOLDERS}) & set(sys.modules) <= {{'datasets'}}, sys.path\n"
    one = program.replace('"model"', '"model1"').replace("filled.png", "one.png")
    two = program.replace('"model"', '"model2"').replace("filled.png", "two.png")
    said = run(f"import datasets, sys\n{one}{two}{check}import datasets.later\nprint(datasets.NAME)", tmp_path)
    assert said.strip() == "of others"
    assert np.array_equal(np.array(Image.open(tmp_path / "one.png")), expected(registry)[0])
    assert np.array_equal(np.array(Image.open(tmp_path / "two.png")), load_model(NAME, "2")(IMAGE, MASK)[0])
