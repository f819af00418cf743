"""Rank 0 writes to the run folder, the other ranks do not."""

import os

import pytest
import torch
from PIL import Image
from torch import nn

from jobs.runs.folder import RunFolder
from jobs.training import run_writer
from jobs.training.run_writer import NullRunWriter, RunWriter, open_run_writer, save_picture
from jobs.training.step import TrainingError


def use_all(writer):
    networks = {"generator": nn.Linear(2, 2)}
    writer.begin_segment(from_step=0, nodes=["here"], devices=["cpu"])
    writer.log(1, {"a/l1": 1.0}, {"images_per_second": 2.0})
    writer.log_not_repeatable({"put_"})
    writer.save_sample(1, lambda: torch.zeros(3, 4, 6))
    writer.save_checkpoint(1, networks, {}, {})
    writer.check()
    writer.stop("it stops")
    writer.finish(networks)


def test_rank_0_writes_and_the_others_do_not(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with open_run_writer(folder, None, rank=1) as writer:  # this rank need not see the folder
        use_all(writer)
    assert not folder.path.exists()
    folder.path.mkdir()
    with open_run_writer(folder, None, rank=0) as writer:
        use_all(writer)
    written = [folder.checkpoints / "step-00000001", folder.events, folder.sample(1), folder.weights]
    assert all(path.exists() for path in written)


def test_the_events_before_a_checkpoint_are_on_the_disk_before_it(tmp_path, monkeypatch):
    synced, sync = [], os.fsync

    def record(descriptor):
        synced.append(os.fstat(descriptor).st_ino)
        sync(descriptor)

    folder = RunFolder(tmp_path)
    with open_run_writer(folder, None, rank=0) as writer:
        writer.log(1, {"a/l1": 1.0}, {})
        monkeypatch.setattr(os, "fsync", record)
        writer.save_checkpoint(1, {"generator": nn.Linear(2, 2)}, {}, {})
        writer.stop("it stops")
    assert len(synced) > 2
    assert synced[0] == folder.events.stat().st_ino


def test_both_writers_have_the_same_methods():
    assert {name for name in vars(NullRunWriter) if name[0] != "_"} == {
        name for name in vars(RunWriter) if name[0] != "_"
    }


def test_a_second_writer_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(run_writer, "_LOCK_SECONDS", 0.1)
    with open_run_writer(RunFolder(tmp_path), None, rank=0):  # noqa: SIM117
        with pytest.raises(TrainingError, match="another process has written"):
            with open_run_writer(RunFolder(tmp_path), None, rank=0):
                pass


def test_pictures_are_8_bit_rgb(tmp_path):
    save_picture(tmp_path / "samples" / "step-00000005.png", torch.ones(3, 4, 6))
    with Image.open(tmp_path / "samples" / "step-00000005.png") as picture:
        assert picture.size == (6, 4)
        assert picture.getpixel((0, 0)) == (255, 255, 255)
