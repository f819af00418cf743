"""Places that cannot be used are refused before any work, in one line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from files.durable import check_replaceable
from files.errors import UserError
from pipeline.__main__ import main
from tests.faults import in_child

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize(
    ("link", "words"),
    [
        ("shards", ["ingest"]),
        ("shards/image", ["precompute", "edges"]),
        ("models", ["train", "edge_connect"]),
        ("results/baselines", ["evaluate", "baselines"]),
        ("metrics", ["evaluate", "baselines"]),
        ("report", ["report"]),
    ],
)
def test_outputs_behind_a_link_are_refused_before_any_work(tmp_path, monkeypatch, capsys, link, words):
    checkout, disk = tmp_path / "checkout", tmp_path / "disk"
    (checkout / link).parent.mkdir(parents=True)
    disk.mkdir()
    (checkout / link).symlink_to(disk)
    shutil.copy(ROOT / "params.yaml", checkout)
    monkeypatch.chdir(checkout)
    assert main(words) == 1
    said = capsys.readouterr().err
    assert f"{link} is a link, which DVC refuses after the work is done" in said
    assert said.splitlines()[1:] == ["see docs/troubleshooting.md#places"]
    assert not list(disk.iterdir())


def test_a_folder_that_cannot_be_replaced_keeps_its_files(tmp_path):
    folder = tmp_path / "shards" / "image"
    (folder / "train").mkdir(parents=True)
    (folder / "train" / "image-000000.tar").write_bytes(b"old")
    for path in (tmp_path, *tmp_path.parents):
        is_ours = path.name.startswith(("pytest", "popen", "test_"))
        if path != path.parent and path.stat().st_uid == os.getuid() and is_ours:
            path.chmod(0o755)
    folder.chmod(0o555)

    def check_as_another_user():
        if os.getuid() == 0:
            os.setuid(65534)
        check_replaceable(folder)

    code, said = in_child(check_as_another_user)
    folder.chmod(0o755)
    assert code == 1
    assert "cannot be written to by this user" in said.splitlines()[-1]
    assert "chown" in said.splitlines()[-1]
    assert (folder / "train" / "image-000000.tar").read_bytes() == b"old"


def test_a_link_in_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(UserError, match="is a link, which cannot be replaced"):
        check_replaceable(tmp_path / "link")


def test_a_user_without_a_home_folder_is_told_what_to_set():
    if os.getuid():
        pytest.skip("this user has an entry with a home folder")

    def run_as_unknown_user():
        os.environ.pop("HOME", None)
        os.setuid(54321)
        sys.exit(main(["where"]))

    _, said = in_child(run_as_unknown_user)
    assert said.splitlines()[0] == (
        "where: user 54321 has no home folder; set HOME to a folder that can be written to, and USER to any name"
    )


def test_a_stage_outlasts_the_reader_of_its_messages(tmp_path):
    """As in `... 2>&1 | head -1`: the pipe breaks, and the outcome stays."""
    code = (
        "import sys, time\n"
        "from pipeline import discovery\n"
        "from pipeline.progress import Bar\n"
        "from pipeline.__main__ import main\n"
        "from pathlib import Path\n"
        "def run(self, arguments):\n"
        "    with Bar('work', 2, 'steps') as bar:\n"
        "        for step in (1, 2):\n"
        "            bar._printed = 0\n"
        "            bar.at(step)\n"
        "            print('said', flush=True)\n"
        "    Path(sys.argv[1]).write_text('done')\n"
        "    return 0\n"
        "discovery.Verb.run = run\n"
        "sys.exit(main(['report']))\n"
    )
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", code, tmp_path / "outcome"]
    result = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=writer, check=False)
    with pytest.raises(BrokenPipeError):
        os.write(writer, b"x")  # the fault happened
    os.close(writer)
    assert result.returncode == 0
    assert (tmp_path / "outcome").read_text() == "done"
