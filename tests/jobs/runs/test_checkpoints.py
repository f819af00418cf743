import copy
import os
import signal

import numpy as np
import pytest
import torch
from torch import nn

from jobs.runs.checkpoint_writer import CheckpointWriter
from jobs.runs.checkpoints import (
    CheckpointError,
    load_checkpoint,
    load_weights,
    newest_whole_checkpoint,
    save_weights,
    take_snapshot,
    write_checkpoint,
)
from tests.faults import in_child


def networks_and_optimizers(seed=0):
    torch.manual_seed(seed)
    networks = {"generator": nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), "critic_d": nn.Linear(4, 1)}
    optimizers = {
        "generator": torch.optim.Adam(networks["generator"].parameters(), lr=1e-2, betas=(0.5, 0.9)),
        "critic_d": torch.optim.SGD(networks["critic_d"].parameters(), lr=0.1, momentum=0.9),
    }
    return networks, optimizers


def step(networks, optimizers, number):
    torch.manual_seed(number)
    loss = networks["critic_d"](networks["generator"](torch.randn(8, 4))).square().mean()
    loss.backward()
    for optimizer in optimizers.values():
        optimizer.step()
        optimizer.zero_grad()


def save(folder, number, networks, optimizers, keep=2):
    return write_checkpoint(folder, take_snapshot(number, networks, optimizers, {"count": number}), keep=keep)


def load_newest(folder, networks, optimizers, progress=None):
    """Load the newest undamaged checkpoint and return its step; 0 if there is none."""
    newest = newest_whole_checkpoint(folder)
    if newest is None:
        return 0
    number, saved_progress = load_checkpoint(newest, networks, optimizers)
    assert saved_progress == ({"count": number} if progress is None else progress)
    return number


def state(networks):
    return {f"{n}.{k}": v.clone() for n, net in networks.items() for k, v in net.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_training_goes_on_from_a_checkpoint_as_if_nothing_had_happened(tmp_path):
    networks, optimizers = networks_and_optimizers()
    for number in range(10):
        step(networks, optimizers, number)
        if number == 4:
            save(tmp_path, 5, networks, optimizers)
    again, new_optimizers = networks_and_optimizers(seed=99)
    assert load_newest(tmp_path, again, new_optimizers) == 5
    for number in range(5, 10):
        step(again, new_optimizers, number)
    assert equal(state(networks), state(again))


def test_a_fused_adam_goes_on_with_weights_channels_last(tmp_path):
    """A checkpoint stores tensors in order; a fused step would mix up the elements of two layouts without an error."""

    def build():
        torch.manual_seed(0)
        conv = nn.Conv2d(3, 4, 2).to(memory_format=torch.channels_last)
        return {"generator": conv}, {"generator": torch.optim.Adam(conv.parameters(), fused=True)}

    def train(networks, optimizers, numbers):
        for number in numbers:
            torch.manual_seed(number)
            networks["generator"](torch.randn(2, 3, 5, 5)).square().mean().backward()
            optimizers["generator"].step()
            optimizers["generator"].zero_grad()

    networks, optimizers = build()
    assert not networks["generator"].weight.is_contiguous()
    train(networks, optimizers, range(3))
    save(tmp_path, 3, networks, optimizers)
    train(networks, optimizers, range(3, 6))
    again, new_optimizers = build()
    assert load_newest(tmp_path, again, new_optimizers) == 3
    train(again, new_optimizers, range(3, 6))
    assert equal(state(networks), state(again))


def test_a_damaged_checkpoint_is_passed_over_with_a_warning(tmp_path, caplog):
    networks, optimizers = networks_and_optimizers()
    save(tmp_path, 5, networks, optimizers)
    good = state(networks)
    step(networks, optimizers, 5)
    newest = save(tmp_path, 10, networks, optimizers)
    contents = {path.name: path.read_bytes() for path in newest.iterdir()}
    rng = np.random.default_rng(0)
    faults = [(fault, name) for fault in ("cut", "emptied", "missing") for name in contents]
    faults += [("flipped", list(contents)[n % 3]) for n in range(100)]
    for fault, name in faults:
        path, content = newest / name, contents[name]
        if fault == "missing":
            path.unlink()
        elif fault == "flipped" and name == "state.json":  # only in a digest does every flip matter
            place = content.index(b"digests") + int(rng.integers(20, 60))
            path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        elif fault == "flipped":
            place = int(rng.integers(len(content)))
            path.write_bytes(
                content[:place] + bytes([content[place] ^ (1 << int(rng.integers(8)))]) + content[place + 1 :]
            )
        else:
            path.write_bytes(content[: len(content) // 2 if fault == "cut" else 0])
        caplog.clear()
        again, new_optimizers = networks_and_optimizers(seed=7)
        assert load_newest(tmp_path, again, new_optimizers) == 5, (fault, name)
        assert "step-00000010 is damaged" in caplog.text
        assert equal(state(again), good)
        path.write_bytes(content)
    again, new_optimizers = networks_and_optimizers(seed=7)
    assert load_newest(tmp_path, again, new_optimizers) == 10


def test_only_the_newest_are_kept_by_step_whatever_the_clock_says(tmp_path):
    networks, optimizers = networks_and_optimizers()
    for number in (5, 10, 15):
        folder = save(tmp_path, number, networks, optimizers)
        os.utime(folder, (1e9 - number * 3600,) * 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-00000015"]
    assert load_newest(tmp_path, networks, optimizers) == 15


def test_no_checkpoint_means_the_first_step(tmp_path):
    networks, optimizers = networks_and_optimizers()
    before = copy.deepcopy(state(networks))
    assert load_newest(tmp_path, networks, optimizers) == 0
    assert equal(before, state(networks))


def save_in_child(folder, **fault):
    networks, optimizers = networks_and_optimizers()
    step(networks, optimizers, 0)
    return in_child(lambda: save(folder, 10, networks, optimizers, keep=1), **fault)


def test_a_full_disk_keeps_the_older_checkpoint(tmp_path):
    networks, optimizers = networks_and_optimizers()
    save(tmp_path, 5, networks, optimizers)
    for size in (1, 16, 300, 600, 900):
        code, said = save_in_child(tmp_path, file_bytes=size)
        assert code == 1
        assert "OSError" in said or "CheckpointError" in said
        assert "File too large" in said
        assert load_newest(tmp_path, *networks_and_optimizers(seed=3)) == 5


def test_a_kill_at_every_point_of_a_save_leaves_a_whole_checkpoint(tmp_path):
    networks, optimizers = networks_and_optimizers()
    for number in range(1, 50):
        folder = tmp_path / str(number)
        save(folder, 5, networks, optimizers)
        code, said = save_in_child(folder, kill_at=number)
        assert load_newest(folder, *networks_and_optimizers(seed=3)) in (5, 10)
        if code == 0:
            break
        assert code == -signal.SIGKILL, said
    assert 5 < number < 49


def test_weights_with_another_digest_or_shape_are_refused(tmp_path):
    networks, _ = networks_and_optimizers()
    digest = save_weights(tmp_path / "weights.safetensors", networks)
    load_weights(tmp_path / "weights.safetensors", networks, digest)
    other = {"generator": nn.Linear(3, 3), "critic_d": networks["critic_d"]}
    with pytest.raises(CheckpointError, match="do not fit network generator"):
        load_weights(tmp_path / "weights.safetensors", other, digest)
    content = bytearray((tmp_path / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "weights.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="its receipt says"):
        load_weights(tmp_path / "weights.safetensors", networks, digest)


def test_what_fails_in_the_background_is_raised_and_the_next_snapshot_is_written(tmp_path):
    networks, optimizers = networks_and_optimizers()
    writer = CheckpointWriter(tmp_path / "checkpoints")
    (tmp_path / "checkpoints").touch()  # where a folder should be
    writer.write(take_snapshot(5, networks, optimizers))
    with pytest.raises(NotADirectoryError):
        writer.wait()
    (tmp_path / "checkpoints").unlink()
    snapshot, before = take_snapshot(10, networks, optimizers), copy.deepcopy(state(networks))
    step(networks, optimizers, 10)  # this step is not in the snapshot
    writer.write(snapshot)
    writer.close()
    again, new_optimizers = networks_and_optimizers(seed=7)
    assert load_newest(tmp_path / "checkpoints", again, new_optimizers, progress={}) == 10
    assert equal(before, state(again))
    assert not equal(state(networks), state(again))
