"""How many parameters every network has at its paper's scale: the published counts, the card's and the built ones."""

import dataclasses

import pytest
import torch

from jobs.generators import card, load, names

PUBLISHED = {
    "aot_gan": {"generator": 15_200_835, "generator_d": 2_763_777},
    "coherence_priors": {"generator": 61_911_735, "texture_d": 2_772_929, "structure_d": 2_772_929},
    "context_encoder": {"generator": 6_048_640, "generator_d": 2_831_232},
    "csa": {"rough": 54_419_459, "generator": 77_692_291, "generator_d": 2_766_529, "features_d": 10_487_296},
    "deepfill_v1": {"generator": 3_601_542, "global_d": 2_733_441, "local_d": 4_339_329},
    "deepfill_v2": {"generator": 4_052_478, "generator_d": 5_946_816},
    "edge_connect": {"edges": 10_761_089, "edges_d": 2_762_752, "image": 10_774_595, "image_d": 2_763_776},
    "global_local": {"generator": 6_072_131, "generator_d": 45_063_681},
    "lama": {"generator": 27_048_835, "generator_d": 6_962_369},
    "lbp": {"lbp": 54_404_481, "generator": 54_935_939, "lbp_d": 2_764_481, "generator_d": 2_766_529},
    "neural_patch_synthesis": {"generator": 71_124_544, "generator_d": 2_765_568},
    "partial_conv": {"generator": 32_859_732},
    "pggan": {"generator": 6_662_595, "generator_d": 13_324_866},
    "rfr_net": {"generator": 31_224_065},
    "saca": {"generator": 10_824_325, "generator_d": 2_764_737},
    "sge_net": {"generator": 54_602_871, "generator_d": 2_764_737},
    "shift_net": {"generator": 54_944_771, "generator_d": 2_766_529},
    "spl": {"generator": 45_597_223, "generator_d": 2_763_776},
    "unet": {"generator": 54_420_483},
}

# Where the published count is not that of the default, which takes masks of any shape.
VARIANTS = {"neural_patch_synthesis": {"variant": "centre"}}


def without_downloads(config):
    """The config with feature networks of random weights, which change no count."""
    kinds = {field.name for field in dataclasses.fields(config)}
    return dataclasses.replace(config, **dict.fromkeys(kinds & {"features", "teacher"}, "random"))


def count(name: str, **changes) -> dict[str, int]:
    with torch.device("meta"):  # shapes only
        networks = load(name).build(dataclasses.replace(without_downloads(card(name).Config()), **changes)).networks
    return {key: sum(parameter.numel() for parameter in network.parameters()) for key, network in networks.items()}


@pytest.mark.parametrize("name", names())
def test_networks_have_the_published_number_of_parameters(name):
    assert count(name, **VARIANTS.get(name, {})) == PUBLISHED[name]


@pytest.mark.parametrize("name", names())
def test_the_card_counts_what_is_built_by_default(name):
    assert count(name) == card(name).PARAMETERS
