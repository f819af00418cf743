"""The documents: generated pages are up to date, commands and links work, worked examples run as they are printed."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from dvc.cli import parse_args
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from docs import generate
from pipeline.__main__ import main
from pipeline.params import read_params
from tests.test_floors import ROOMS

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md"), *ROOT.glob("jobs/**/*.md"))
)

# Commands that the tests cannot check here, by how they begin, and why.
NOT_RUN = {
    "cd model": "tests/jobs/tracking/test_registered_model.py runs this line",
    "eval": "changes the user's shell; tests/pipeline/verbs/test_completion.py runs the script in bash",
    "export": "sets variables of the user's shell",
    "git add .dvc/config": "tests/pipeline/lineage/test_sharing.py runs this line",
    "kubectl": "needs a Kubernetes cluster",
    "mlflow artifacts": "needs a registered model; tests/jobs/tracking/test_registered_model.py runs this line",
    "mlflow ui": "starts a server",
    "pip install": "needs a package index",
    "printf": "tests/test_dvc_at_once.py runs this line",
    "python fill.py": "is a file of a release; tests/pipeline/verbs/test_release.py runs it",
    "python -m pipeline plan --dry-run": "takes long; tests/pipeline/planning/test_dry_run.py runs it",
    "ray ": "needs a Ray cluster; tests/cluster/test_ready_files.py checks the templates",
    "sbatch": "needs Slurm; tests/cluster/test_ready_files.py runs the script with programs that stand in for it",
    "sha256sum": "needs a release; tests/pipeline/verbs/test_release.py runs it",
    "source": "needs the .venv that make creates",
}
# Options of generators and data sets that only the worked examples have.
OF_EXAMPLES = ("shepard", "kodak")


def fences(page: str) -> Iterator[tuple[str, str]]:
    """Yield the language and the text of each fenced block."""
    yield from re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Return every command line of the documents once, without comments."""
    lines = [
        line
        for page in PAGES
        for language, text in fences(page)
        if language in ("sh", "console")
        for line in text.splitlines()
    ]
    stripped = (re.sub(r"(^|\s+)#.*", "", line).strip() for line in lines)
    return sorted({line for line in stripped if line})


def words_of(command: str) -> list[str]:
    """Return the words of a command without the variables that it sets."""
    words = shlex.split(command)
    while re.match(r"[A-Z_]+=", words[0]):
        del words[0]
    return words


def check_pipeline(words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the command in a folder where no verb but `configure` finds anything to do."""
    monkeypatch.chdir(folder)
    try:
        code = main(words)
    except SystemExit as stopped:
        code = stopped.code
    assert code == 0 if words[0] == "configure" else code != 2, "the command line is refused"


def check_dvc(words: list[str], folder: Path) -> None:
    """Parse the command as DVC does, check its targets, and check the parameters that it would write."""
    arguments = parse_args(words)
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    assert {target.partition("@")[0] for target in getattr(arguments, "targets", None) or []} <= {*stages, "shards"}
    if overrides := getattr(arguments, "set_param", None):
        if arguments.queue:  # of a sweep, the first value of each list
            overrides = [override.partition(",")[0] for override in overrides]
        apply_overrides(folder / "params.yaml", overrides)
        read_params(folder / "params.yaml")


def check(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    match words_of(command):
        case ["python", "-m", "pipeline", *words]:
            check_pipeline(words, folder, monkeypatch)
        case ["python", "-m", module, *_]:
            assert (ROOT / f"{module.replace('.', '/')}.py").is_file()
        case ["make", *targets]:
            rules = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert set(targets) <= set(rules)
        case ["dvc", *words]:
            check_dvc(words, folder)
        case ["pytest", *words]:
            paths = [word.partition("::")[0] for word in words if word.startswith("tests")]
            assert all((ROOT / path).exists() for path in paths)
        case ["ruff", "check" | "format", *_]:
            pass  # run by `make lint`
        case _:
            pytest.fail(f"{command!r} is checked by nothing; check it here or name it in NOT_RUN with the reason")


@pytest.mark.parametrize("command", [each for each in commands() if not each.startswith(tuple(NOT_RUN))])
def test_a_command_of_the_documents_is_one(command, tmp_path, monkeypatch):
    if not any(name in command for name in OF_EXAMPLES):
        shutil.copy(ROOT / "params.yaml", tmp_path)
        check(command, tmp_path, monkeypatch)


def test_what_is_not_run_occurs():
    assert all(any(command.startswith(start) for command in commands()) for start in NOT_RUN)


@pytest.fixture(scope="module")
def generated():
    return generate.generated()


@pytest.mark.parametrize(
    "name",
    [
        "docs/generators.md", "docs/parameters.md", "docs/results.md", "conf/params.schema.json", "params.yaml",
    ],
)  # fmt: skip
def test_a_generated_file_is_up_to_date(generated, name):
    assert (ROOT / name).read_text(encoding="utf-8") == generated.pop(name), "run: python -m docs.generate"


def test_every_generated_file_was_compared(generated):
    assert generated == {}


def test_every_key_of_params_has_a_meaning():
    assert generate.missing() == []


def source_texts() -> str:
    """Return all text between quotes in the sources and templates, a constant per line."""
    files = [p for room in ROOMS for p in (ROOT / room.split("/")[0]).rglob("*.py")]
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in sorted(set(files)))
    nodes = (node for tree in trees for node in ast.walk(tree))
    return "\n".join(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))


def test_messages_of_the_troubleshooting_page_are_in_the_code():
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    messages = re.findall(r"^\| `(.+?)`(?: \(.*?\))? \|", page, re.MULTILINE)
    assert len(messages) > 20
    texts = source_texts()
    fragments = (part.strip(" ,?()") for message in messages for part in re.split(r"\.\.\.|[;:] |\. ", message))
    assert [part for part in fragments if len(part) > 5 and part not in texts] == []


def test_the_table_of_rooms_is_that_of_the_imports():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.partition("| Room | May import |")[2].partition("\n\n")[0]
    written = {}
    for rooms, allowed in re.findall(r"^\| (.+?) \| (.+?) \|$", table, re.MULTILINE):
        for room in re.findall(r"`(.+?)`", rooms):
            written[room] = set(re.findall(r"`(.+?)`", allowed)) if allowed != "every room" else None
    assert written == {room: None if allowed is None else set(allowed) for room, allowed in ROOMS.items()}


def anchors(page: Path) -> set[str]:
    """Return the anchors that a forge makes of the headings."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page):
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in link:
            path, _, anchor = link.partition("#")
            target = (ROOT / page).parent / path if path else ROOT / page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_every_page_is_linked_from_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"({page})" in text for page in PAGES if page.startswith("docs/"))


def test_the_readme_is_short_and_its_picture_small():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120
    assert (ROOT / "docs" / "demo.png").stat().st_size < 300_000


def copy_checkout(folder: Path, *, without: str = "$") -> Path:
    """Copy the tracked files whose names do not match `without`."""
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, names):
        if not re.match(without, name) and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


def write_examples(page: str, folder: Path) -> list[str]:
    """Write the blocks of a page that begin with a file's name; of a diff, insert what it adds. Return the names."""
    written = []
    for language, text in fences(page):
        name, _, body = text.partition("\n")
        if match := re.fullmatch(r"# ([\w/]+\.\w+)", name):
            path = folder / match[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(inserted(path.read_text(), body) if language == "diff" else body)
            written.append(match[1])
    return written


def inserted(text: str, diff: str) -> str:
    """Insert each line that begins with + behind the line that precedes it in the diff."""
    for kept, added in re.findall(r"^ (.*)\n\+(.*)$", diff, re.MULTILINE):
        assert f"{kept}\n" in text, f"no line {kept!r}"
        text = text.replace(f"{kept}\n", f"{kept}\n{added}\n", 1)
    return text


def run(folder: Path, *words: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # the networks are too small for threads to be worth it
    result = subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def check_style(folder: Path, names: list[str]) -> None:
    files = [name for name in names if name.endswith(".py")]
    run(folder, "ruff", "check", "--no-cache", *files)
    run(folder, "ruff", "format", "--check", "--no-cache", *files)


@pytest.mark.parametrize(
    "chosen",
    ["not two_processes and not ten_steps", pytest.param("two_processes or ten_steps", marks=pytest.mark.slow)],
)
def test_the_generator_that_is_added_passes_the_contract(chosen, tmp_path):
    # The other papers are left out, since the test of two processes computes the gradients of all there are.
    checkout = copy_checkout(tmp_path, without=r"jobs/generators/\w+/")
    check_style(checkout, write_examples("docs/adding_a_generator.md", checkout))
    # The published number of parameters is entered by hand, in the page's next step.
    tests = [f"tests/jobs/generators/test_{name}.py" for name in ("contract", "parameters")]
    tests += ["-k", f"shepard and not published and ({chosen})"]
    assert " passed" in run(checkout, "pytest", "-q", "-p", "no:cacheprovider", *tests)


def test_the_data_set_that_is_added_passes_its_test_and_is_chosen(tmp_path):
    checkout = copy_checkout(tmp_path)
    check_style(checkout, write_examples("docs/adding_a_data_set.md", checkout))
    run(checkout, "pytest", "-q", "-p", "no:cacheprovider", "tests/datasets/sources/test_kodak.py")
    run(checkout, "pipeline", "configure", "dataset=kodak", "dataset.root=/data/kodak")
    (listed,) = re.findall(r"kodak +pictures +(.*)", run(checkout, "pipeline", "datasets"))
    assert listed == "train 20, val 4"
