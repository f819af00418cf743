"""Steps of every generator on a GPU that is not there: no error; waits, launches and messages within stated limits."""

import contextlib
from unittest import mock

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from jobs.generators import names
from jobs.generators.build import build_recipe
from jobs.generators.context_encoder import Config
from jobs.training.settings import TrainConfig
from jobs.training.side_stream import BatchCopier
from tests.faults import in_own_process
from tests.jobs.training.fake_gpu import (
    GPU,
    Counts,
    FakeTensorMode,
    Watch,
    believe_in_gpu,
    count_steps,
    make_bytes,
)

PLAIN = TrainConfig(ema_decay=0.999, clip_norm=1.0)
LIMITS = {
    "aot_gan": (750, 0, 1),
    "coherence_priors": (1750, 0, 6),
    "context_encoder": (320, 0, 34),
    "csa": (1120, 1, 15),
    "deepfill_v1": (1060, 0, 2),
    "deepfill_v2": (980, 0, 0),
    "edge_connect": (1290, 0, 1),
    "global_local": (820, 0, 98),
    "lama": (1630, 0, 111),
    "lbp": (1100, 0, 0),
    "neural_patch_synthesis": (320, 0, 34),
    "partial_conv": (670, 0, 16),
    "pggan": (430, 0, 38),
    "rfr_net": (920, 0, 60),
    "saca": (920, 0, 3),
    "sge_net": (1090, 0, 5),
    "shift_net": (470, 0, 0),
    "spl": (970, 0, 0),
    "unet": (410, 0, 0),
}
"""Most of one step of the tiny form: launches in one process, waits in one process, messages of one of eight.

`csa` waits once: it looks whether its attention's sweeps have settled.
"""
QUICK = ("context_encoder", "unet")


def most(counts, what):
    """Return the largest of one figure over the kinds of steps."""
    return max(getattr(each, what) for each in counts.values())


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in names()])
@in_own_process
def test_steps_stay_within_their_limits(name):
    launches, waits, messages = LIMITS[name]
    alone, eighth = (count_steps(name, PLAIN, world_size=size) for size in (1, 8))
    assert most(alone, "launches") <= launches
    assert most(alone, "num_waits") <= waits, [each.waits for each in alone.values()]
    assert most(eighth, "num_waits") <= waits, [each.waits for each in eighth.values()]
    assert most(eighth, "num_messages") <= messages, [each.messages for each in eighth.values()]
    assert most(alone, "launches") > 0.9 * launches, "lower the limit"


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("settings", [{"precision": "bf16"}, {"precision": "fp16"}, {"channels_last": True}], ids=str)
@in_own_process
def test_steps_fit_in_devices_and_dtypes(name, settings):
    counts = count_steps(name, TrainConfig(**settings))
    assert most(counts, "num_waits") <= LIMITS[name][1]


@in_own_process
def test_waits_and_mixed_devices_are_found():
    """The counters count, so that their zeros mean something."""
    with believe_in_gpu(), FakeTensorMode() as mode:
        here = mode.from_tensor(torch.ones(4))
        with Watch() as watch:
            there = here.to("cuda")
            assert watch.counts.num_waits == 1
            assert there.sum() > 0
            assert there[there > 0].ndim == 1
            assert watch.counts.num_waits == 3
            with pytest.raises(RuntimeError, match="device"):
                here + there
        assert watch.counts.launches >= 3
    assert Counts().launches == 0


@in_own_process
def test_a_batch_is_copied_beside_the_kernels_of_the_step_before():
    """PyTorch's streams are stand-ins, which note what is issued where. They have no way to let the host wait."""
    issued, present = [], ["kernels"]

    class Stream:
        def __init__(self, device=None, name="side"):
            self.name = name

        def wait_stream(self, other):
            issued.append((self.name, f"waits for {other.name}"))

    @contextlib.contextmanager
    def switch(stream):
        present.append(stream.name)
        yield
        present.pop()

    class Note(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if getattr(result, "device", None) == GPU:
                how = " without waiting" if (kwargs or {}).get("non_blocking") else ""
                issued.append((present[-1], func._overloadpacket.__name__ + how))
            return result

    with (
        believe_in_gpu(),
        FakeTensorMode() as mode,
        mock.patch.multiple(torch.cuda, Stream=Stream, stream=switch, current_stream=lambda _: Stream(name="kernels")),
        mock.patch.object(torch.Tensor, "record_stream", lambda self, stream: issued.append((stream.name, "keeps"))),
    ):
        stored = make_bytes(build_recipe("context_encoder", Config.tiny(), 0), Config.tiny())
        stored = stored.map_tensors(mode.from_tensor)
        weight = mode.from_tensor(torch.ones(2)).to(GPU)
        copy = BatchCopier(GPU)
        with Note():
            weight * weight  # of the step before
            batch = copy(stored)
    assert batch.image.device == GPU
    on_side = [what for stream, what in issued if stream == "side"]
    assert on_side == ["_to_copy without waiting"] * 3  # image, mask, seed
    assert issued[:5] == [("kernels", "mul"), *(("side", what) for what in on_side), ("kernels", "waits for side")]
    assert issued.count(("kernels", "keeps")) == 3
    assert ("kernels", "_to_copy without waiting") not in issued
