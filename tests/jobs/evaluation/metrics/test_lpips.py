"""LPIPS against the formula of the paper."""

from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.evaluation.metrics.lpips import load_lpips, lpips
from tests.jobs.evaluation.metrics.pictures import noise
from tests.jobs.evaluation.metrics.weight_files import MeanColour, random_alexnet_state, random_vgg16_state, save


@pytest.fixture(scope="module")
def alexnet_weights(tmp_path_factory):
    return save(random_alexnet_state(), tmp_path_factory.mktemp("weights") / "alexnet.pth")


def test_lpips_is_zero_for_equal_pictures_and_does_not_depend_on_the_batch(alexnet_weights):
    before = torch.get_rng_state()
    network = load_lpips(alexnet_weights)
    assert torch.equal(torch.get_rng_state(), before)
    real, fake = noise(5, 64, 64, 3), noise(5, 64, 64, 3, seed=1)
    fake[2] = real[2]
    distances = lpips(real, fake, network)
    assert distances.shape == (5,)
    assert distances.dtype == np.float64
    assert distances[2] == 0
    assert (np.delete(distances, 2) > 0).all()
    np.testing.assert_allclose(lpips(list(real), list(fake), network, batch_size=2), distances, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "taps"), [("alex", (1, 4, 7, 9, 11)), ("vgg", (3, 8, 15, 22, 29))], ids=["alex", "vgg"]
)
def test_lpips_is_the_formula_of_the_paper(name, taps, tmp_path):
    import torchmetrics.functional.image.lpips as shipped
    from torchvision.models import alexnet, vgg16

    state = {"alex": random_alexnet_state, "vgg": random_vgg16_state}[name]()
    network = load_lpips(save(state, tmp_path / "trunk.pth"), name)
    heads = torch.load(Path(shipped.__file__).parent / "lpips_models" / f"{name}.pth", map_location="cpu")
    with torch.device("meta"):
        trunk = {"alex": alexnet, "vgg": vgg16}[name]().features.eval()
    trunk.load_state_dict({key.removeprefix("features."): value for key, value in state.items()}, assign=True)
    real, fake = noise(1, 64, 64, 3), noise(1, 64, 64, 3, seed=1)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    features = [((torch.from_numpy(p).float() / 127.5 - 1 - shift) / scale).permute(0, 3, 1, 2) for p in (real, fake)]
    expected = 0.0
    trunk.requires_grad_(False)
    for number, layer in enumerate(trunk[: taps[-1] + 1]):
        features = [layer(feature.clone()) for feature in features]
        if number in taps:  # Eq. 1: unit length over the channels, weighted squares, mean over the map
            first, second = (f / f.square().sum(1, keepdim=True).add(1e-8).sqrt() for f in features)
            head = heads[f"lin{taps.index(number)}.model.1.weight"]
            expected += float(((first - second).square() * head).sum(1).mean())
    assert lpips(real, fake, network)[0] == pytest.approx(expected, rel=1e-4)


def test_lists_of_different_length_are_refused():
    with pytest.raises(ValueError, match="one list"):
        lpips(noise(3, 4, 4, 3), noise(2, 4, 4, 3), MeanColour())
