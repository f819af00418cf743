import signal
import subprocess
import sys
import textwrap

import pytest

from files.durable import durable_file, file_digest, write_durably


def test_a_failed_writer_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_durably(path, b"old")
    with pytest.raises(TypeError, match="bytes-like"), durable_file(path) as file:
        file.write("no bytes")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    digest = write_durably(path, b"old")
    writer = textwrap.dedent(
        """
        import resource, signal, sys
        from pathlib import Path
        from files.durable import write_durably
        sys.dont_write_bytecode = True  # Python would cache modules cut at the limit
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        write_durably(Path(sys.argv[1]), bytes(100_000))
        """
    )
    result = subprocess.run([sys.executable, "-c", writer, str(path)], capture_output=True, text=True, check=False)
    assert "File too large" in result.stderr  # the fault happened
    assert file_digest(path) == digest
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_killed_writer_leaves_no_file_under_the_final_name(tmp_path):
    writer = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        from files.durable import durable_file
        with durable_file(Path(sys.argv[1])) as file:
            file.write(bytes(100_000))
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    result = subprocess.run([sys.executable, "-c", writer, str(tmp_path / "file")], check=False)
    assert result.returncode == -signal.SIGKILL
    assert not (tmp_path / "file").exists()
