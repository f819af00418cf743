"""What git knows of a checkout: its code, its commit, and the inputs that differ from the commit."""

import io
import subprocess
import zipfile

import pytest

from files.checkout import CodeList, list_changes, list_code, read_commit
from files.code_archive import CodeError, process_code, read_archive

TRACKED = ("files/__init__.py", "files/checkout.py", "jobs/__init__.py", "jobs/a.py", "jobs/ä b.py", "jobs/page.j2",
           "jobs/templates/run.sh", "jobs/gone.py", "dvc.yaml", "requirements.lock", "params.yaml", "tombstones.jsonl",
           "dvc.lock", "docs/page.md")  # fmt: skip
SHIPPED = ("dvc.yaml", "files/__init__.py", "files/checkout.py", "jobs/__init__.py", "jobs/a.py", "jobs/link.py",
           "jobs/page.j2", "jobs/templates/run.sh", "jobs/ä b.py", "requirements.lock")  # fmt: skip


def git(folder, *words):
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    done = subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def write(root, *names, text="1\n"):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.fixture
def root(tmp_path):
    """A committed checkout of a few files, a link into it and a link out of it."""
    folder = tmp_path / "checkout"
    write(folder, *TRACKED)
    write(folder, ".gitignore", text="jobs/ignored.py\n")
    write(tmp_path, "beside/data.bin")
    (folder / "jobs/link.py").symlink_to("a.py")
    (folder / "jobs/data").symlink_to(tmp_path / "beside")
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=first")
    (folder / "jobs/gone.py").unlink()
    git(folder, "commit", "--quiet", "--all", "--message=second")
    return folder


def test_a_clean_checkout_is_its_commit(root):
    assert list_code(root) == CodeList(files=SHIPPED, left_out=("jobs/data",))
    assert read_commit(root) == git(root, "rev-parse", "HEAD")
    assert list_changes(root) == ()
    code = process_code(root)
    assert not code.is_dirty
    assert code.describe_changes() == "nothing"
    assert code.describe_differences() == "left out (links, submodules, ignored by git): jobs/data"


CHANGES = {
    "jobs/a.py": "modified code", "jobs/page.j2": "modified, no module", "params.yaml": "parameters",
    "dvc.yaml": "stages", "requirements.lock": "packages", "tombstones.jsonl": "images that stay out",
    "jobs/new.py": "an untracked module", "jobs/ignored.py": "a module that git ignores",
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_an_input_that_the_commit_has_not_makes_a_checkout_dirty(root, name):
    write(root, name, text="2\n")
    assert list_changes(root) == (name,)
    git(root, "add", "--all")  # staged, and not committed
    assert list_changes(root) == (name,)


@pytest.mark.parametrize("name", ["dvc.lock", "docs/page.md", "notes.txt", "shards/1.tar", "jobs/pictures/1.jpg"])
def test_what_decides_no_output_leaves_a_checkout_clean(root, name):
    write(root, name, text="2\n")
    assert list_changes(root) == ()
    assert list_code(root).files == SHIPPED


def test_a_new_generator_is_shipped_and_named_and_another_environment_is_not(root):
    new = ("jobs/mine/__init__.py", "jobs/mine/recipe.py")
    write(root, *new, "jobs/ignored.py", "jobs/env/lib/python3.11/site-packages/six/__init__.py", "jobs/env/bin/x.py",
          "jobs/mine/weights.bin", "jobs/.hidden/__init__.py")  # fmt: skip
    (root / "jobs/a.py").unlink()
    assert list_code(root) == CodeList(
        files=tuple(sorted({*SHIPPED, *new} - {"jobs/a.py", "jobs/link.py"})),
        untracked=new,
        left_out=("jobs/data", "jobs/ignored.py", "jobs/link.py"),
    )
    assert process_code(root).describe_differences() == (
        "modified: jobs/a.py; untracked: jobs/mine/__init__.py, jobs/mine/recipe.py; left out (links, submodules, "
        "ignored by git): jobs/data, jobs/ignored.py, jobs/link.py"
    )


def test_the_code_of_a_process_stays_that_of_its_start(root):
    write(root, "jobs/a.py", text="at the start\n")
    code, first = process_code(root), read_commit(root)
    write(root, "jobs/a.py", "jobs/b.py", text="meanwhile\n")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message=meanwhile")
    assert process_code(root) is code
    assert (code.commit, code.changes) == (first, ("jobs/a.py",))
    assert zipfile.ZipFile(io.BytesIO(code.archive)).read("jobs/a.py") == b"at the start\n"


def test_equal_files_give_equal_archives(root):
    archive = process_code.__wrapped__(root).archive
    for name in SHIPPED:
        (root / name).touch(mode=0o600)
    assert process_code.__wrapped__(root).archive == archive


@pytest.mark.parametrize("place", ["alone", "in another repository", "without a commit"])
def test_a_copy_that_git_does_not_know_has_code_and_no_commit(tmp_path, place):
    """An unpacked release, also inside a repository of other work, whose commit is not its own."""
    folder = tmp_path / "unpacked"
    write(folder, *TRACKED, "jobs/env/six.py", "jobs/.x.py")
    if place == "in another repository":
        write(tmp_path, "other.txt")
        git(tmp_path, "init", "--quiet")
        git(tmp_path, "add", "other.txt")
        git(tmp_path, "commit", "--quiet", "--message=other")
    elif place == "without a commit":
        git(folder, "init", "--quiet")
    modules = {name for name in TRACKED if name.endswith(".py") and " " not in name}
    assert list_code(folder).files == tuple(sorted({*modules, "dvc.yaml", "requirements.lock"}))
    code = process_code(folder)
    assert (code.commit, code.changes, code.is_dirty) == ("unknown", None, True)


def test_data_among_the_code_is_named_before_it_is_sent(root):
    with (root / "jobs/big.bin").open("wb") as file:
        file.truncate(200_000_000)
    git(root, "add", "jobs/big.bin")
    with pytest.raises(CodeError, match=r"have 200 MB, more than the 100 MB that workers get; .* is .*jobs/big\.bin"):
        process_code(root)


@pytest.mark.parametrize("name", ["../x.py", "jobs/../../x.py", "/etc/x.py", "home/x.py", "params.yaml"])
def test_an_archive_with_other_files_is_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "code.zip", "w") as archive:
        archive.writestr(name, "x")
    with pytest.raises(CodeError, match="is no code of a checkout"):
        read_archive(tmp_path / "code.zip")
