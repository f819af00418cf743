"""What fills holes is built without what only training needs, and fills equally."""

import dataclasses

import pytest
import torch

from benchmarks.batches import make_batch, visible
from jobs.checks.footprint import footprint
from jobs.evaluation.inference import load_trained
from jobs.generators import card, names
from jobs.generators.build import build_filler, build_recipe, inpaint
from jobs.layers.weights import WeightsError
from jobs.recipe.contract import is_discriminator
from jobs.runs.folder import WEIGHTS_NAME
from tests.jobs.tracking.models import write_model

FILLS_WITH_FEATURES = ("neural_patch_synthesis",)  # its texture stage runs when it fills
LOSSES = {  # settings with which each paper's losses compare features
    "coherence_priors": {"patch_weight": 1.0},
    "csa": {"feature_adversarial_weight": 1.0},
    "edge_connect": {"perceptual_weight": 1.0},
    "lbp": {"perceptual_weight": 1.0},
    "partial_conv": {"perceptual_weight": 1.0},
    "saca": {"perceptual_weight": 1.0},
    "shift_net": {"losses": "v2", "style_weight": 1.0},
}


@pytest.fixture
def built(monkeypatch):
    """The classes of all modules that are built."""
    built = []
    original = torch.nn.Module.__init__

    def note(self, *arguments, **settings):
        built.append(type(self))
        original(self, *arguments, **settings)

    monkeypatch.setattr(torch.nn.Module, "__init__", note)
    return built


@pytest.mark.parametrize("name", names())
def test_no_network_is_built_that_only_training_needs(name, built):
    config = card(name).Config()  # of the paper, with all its losses
    if name in FILLS_WITH_FEATURES:
        config = dataclasses.replace(config, features="random")
    whole = footprint(name, config).parameters
    assert built
    built.clear()
    with torch.device("meta"):
        filler = build_filler(name, config)
    sizes = {key: sum(p.numel() for p in network.parameters()) for key, network in filler.networks.items()}
    assert sizes == {key: size for key, size in whole.items() if not is_discriminator(key)}
    parts = {type(part) for network in filler.networks.values() for part in network.modules()}
    features = {kind.__name__ for kind in set(built) - parts}
    assert features == ({"VGG19", "MaxPool2d"} if name in FILLS_WITH_FEATURES else set())
    assert filler.phases == ()


@pytest.mark.parametrize("name", [name for name in names() if name not in FILLS_WITH_FEATURES])
def test_weights_fill_equally_where_the_files_of_training_are_not(name, tmp_path):
    config = LOSSES.get(name, {}) | ({"features": str(tmp_path / "vgg.pth")} if name in LOSSES else {})
    if name in LOSSES:
        with pytest.raises(WeightsError, match=r"vgg\.pth"):
            build_recipe(name, dataclasses.replace(card(name).Config.tiny(), **config), 1)
    write_model(tmp_path / "model", name, **config)
    recipe = build_recipe(name, card(name).Config.tiny(), 1)
    batch = visible(make_batch((64, 64), recipe.columns))
    for trained in (True, False):  # the weights were saved before the first step
        filler, _ = load_trained(tmp_path / "model", trained=trained)
        (tmp_path / "model" / WEIGHTS_NAME).unlink(missing_ok=True)
        assert torch.equal(inpaint(filler, batch)["output"], inpaint(recipe, batch)["output"])
