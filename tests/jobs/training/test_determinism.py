"""Operations that do not repeat to the bit. PyTorch has one on the CPU, which is tested in place of those of a GPU."""

import dataclasses
import json
import warnings

import pytest
import torch

from benchmarks.photographs import write_split
from jobs.runs.events import EventLog, losses_by_step, read_not_repeatable, read_segments
from jobs.training import loop as training_loop
from jobs.training.determinism import deterministic
from jobs.training.loop import train
from tests.jobs.training.toy import build_toy
from tests.jobs.training.trainings import make_job


def put():
    """Put two values at one index; the last one to arrive remains."""
    torch.zeros(3).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))


def test_operations_that_cannot_repeat_are_done_and_named():
    before = torch.are_deterministic_algorithms_enabled()
    for _ in range(2):  # a second training of the same process, too
        with deterministic(True) as reported:
            assert torch.are_deterministic_algorithms_enabled()
            torch.ones(3).sum()
            assert reported == set()
            put()
        assert reported == {"put_"}
    assert torch.are_deterministic_algorithms_enabled() == before
    with deterministic(False) as reported:
        put()
    assert reported == set()


def test_new_tensors_are_not_filled():
    before = torch.utils.deterministic.fill_uninitialized_memory
    with deterministic(True):
        assert not torch.utils.deterministic.fill_uninitialized_memory
    assert torch.utils.deterministic.fill_uninitialized_memory == before


def test_names_of_several_words_are_whole():
    """PyTorch's text for operations that only a GPU has."""
    with deterministic(True) as reported:
        warnings.warn(
            "median CUDA with indices output does not have a deterministic implementation, but you set", stacklevel=1
        )
    assert reported == {"median CUDA with indices output"}


def test_other_warnings_are_shown_as_ever():
    with pytest.warns(UserWarning, match="something else"), deterministic(True) as reported:
        warnings.warn("something else", stacklevel=1)
    assert reported == set()


def test_they_are_noted_once_among_the_events(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    log.segment(from_step=0, world_size=1, nodes=["a"], devices=["cpu"])
    for step in (1, 2):
        log.log(step, {"l1": 1.0})
        log.not_repeatable({"b", "a"})
    log.not_repeatable({"a", "c"})
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [line["not_repeatable"] for line in lines if "not_repeatable" in line] == [["a", "b"], ["c"]]
    assert read_not_repeatable(tmp_path / "events.jsonl") == ("a", "b", "c")
    assert list(losses_by_step(tmp_path / "events.jsonl")) == [1, 2]
    assert [segment.to_step for segment in read_segments(tmp_path / "events.jsonl")] == [2]


def test_a_training_notes_them(tmp_path, monkeypatch):
    def build(*arguments):
        recipe = build_toy(*arguments)
        (phase,) = recipe.phases
        forward = phase.forward
        odd = dataclasses.replace(phase, forward=lambda *given: put() or forward(*given))
        return dataclasses.replace(recipe, phases=(odd,))

    monkeypatch.setattr(training_loop, "build_recipe", build)
    train({"job": make_job(write_split(tmp_path / "shards", 8, size=32), tmp_path / "run", steps=2)})
    assert read_not_repeatable(tmp_path / "run" / "events.jsonl") == ("put_",)
