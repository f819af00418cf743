import contextlib
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from rich.console import Console

from pipeline import progress

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the test sets."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def lines(capsys):
    return capsys.readouterr().err.splitlines()


def test_a_line_says_how_far_how_fast_and_how_long_still(clock, capsys):
    with progress.Bar("image", 1000, "images") as bar:
        for second in range(0, 41, 4):
            clock[0] = 103 + second  # three seconds before the first pictures were done say nothing of the rate
            bar.at(10 * second, f"{second}/100 shards")
    assert lines(capsys) == [
        "image: 160/1000 images, 10.0 images/s, 84 s left, 16/100 shards",
        "image: 320/1000 images, 10.0 images/s, 68 s left, 32/100 shards",
        "image: 400 images in 43.0 s",
    ]


def test_what_an_earlier_run_did_does_not_count_as_speed(clock, capsys):
    with progress.Bar("image", 10_000, "images") as bar:
        for skipped in range(3):  # a second each to compare them with their digests
            clock[0] += 1
            bar.at(1000 * (skipped + 1), skipped=1000)
        for done in range(1, 21):
            clock[0] += 1
            bar.at(3000 + done)
    assert lines(capsys)[0] == "image: 3013/10000 images, 1.0 images/s, 1 h 56 min left"


@pytest.mark.parametrize(("seconds", "words"), [(3, "3 s"), (99, "99 s"), (720, "12 min"), (12_000, "3 h 20 min")])
def test_spans_are_as_exact_as_they_can_be(seconds, words):
    assert progress.span(seconds) == words


@pytest.mark.parametrize("width", [80, 120])
def test_a_long_note_leaves_room_for_bar_count_and_time_left(width):
    file = io.StringIO()
    bar = progress._make_progress(Console(file=file, width=width, force_terminal=True, color_system=None))
    losses = "  ".join(f"joint/some_long_name_of_a_loss_{n} 0.1234" for n in range(3))
    bar.add_task("train edge_connect", total=1400, completed=840, pace="3.5 steps/s, 2 min left", note=losses)
    bar.console.print(bar.get_renderable())
    (line,) = file.getvalue().rstrip("\n").split("\n")
    for part in ("train edge_connect", "━", "840/1400", "3.5 steps/s, 2 min left", "…"):
        assert part in line
    assert len(line) <= width


_SHOWN = """
from pipeline.progress import Bar
import time
with Bar("train edge_connect", 1400, "steps") as bar:
    for step in (10, 840):
        time.sleep(0.1)
        bar.at(step, "joint/l1 0.1234  joint/adversarial 0.5678  joint/perceptual 0.91  123.4 images/s")
"""


@pytest.mark.parametrize(
    ("width", "has_bar", "has_rate", "has_note"),
    [(120, True, True, True), (80, True, True, True), (64, True, False, False), (40, False, False, False)],
)
def test_a_terminal_of_any_width_shows_count_and_time_left(width, has_bar, has_rate, has_note):
    """On a real terminal of that width, while standard output goes elsewhere."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    environment = {**{k: v for k, v in os.environ.items() if k != "COLUMNS"}, "TERM": "xterm"}
    with subprocess.Popen(
        [sys.executable, "-c", _SHOWN], stdout=subprocess.DEVNULL, stderr=theirs, env=environment, cwd=ROOT
    ) as process:
        os.close(theirs)
        written = b""
        with contextlib.suppress(OSError):  # the terminal is gone once the process has ended
            while part := os.read(ours, 4096):
                written += part
    os.close(ours)
    assert process.returncode == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.decode())
    line = [line for line in re.split(r"[\r\n]+", text) if "840/1400" in line][-1]
    assert re.search(r"\d s left", line)
    assert "train edge_conn" in line
    assert ("━" in line, "steps/s" in line, "joint/" in line) == (has_bar, has_rate, has_note)
    assert len(line) <= width


def test_without_a_terminal_there_is_a_plain_line():
    done = subprocess.run([sys.executable, "-c", _SHOWN], capture_output=True, text=True, cwd=ROOT, check=True)
    assert re.fullmatch(r"train edge_connect: 840 steps in \d\.\d s\n", done.stderr)
    assert done.stdout == ""
