"""Steps of every generator on a GPU that is not there: no error; waits, launches and messages within stated limits."""

import pytest
import torch

from jobs.generators import names
from jobs.training.settings import TrainConfig
from tests.faults import in_own_process
from tests.jobs.training.fake_gpu import Counts, FakeTensorMode, Watch, believe_in_gpu, count_steps

PLAIN = TrainConfig(ema_decay=0.999, clip_norm=1.0)
LIMITS = {
    "aot_gan": (750, 0, 1),
    "coherence_priors": (1750, 1, 6),
    "context_encoder": (320, 0, 34),
    "csa": (780, 1, 15),
    "deepfill_v1": (1060, 0, 2),
    "deepfill_v2": (980, 0, 0),
    "edge_connect": (1290, 0, 1),
    "global_local": (820, 2, 98),
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

Waits that remain:
- `csa` counts the hole cells of a batch, since its scan has as many steps;
- `coherence_priors` collects the cells that its patch loss compares;
- `global_local` has Adadelta, of which PyTorch has no fused form, and waits once per update, as PyTorch's scaler does.
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
