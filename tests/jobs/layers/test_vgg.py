"""The frozen features agree with torchvision's and leave everything around them alone."""

from __future__ import annotations

from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import VGG19_Weights
from torchvision.models.vgg import cfgs, make_layers

from jobs.layers.vgg import VGG16, VGG19, imagenet_normalised
from jobs.layers.weights import WeightsError

SHALLOW = ("relu1_1", "relu2_2")


def make_image(size: int = 32) -> torch.Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("network", "letter", "relus"), [(VGG16, "D", 13), (VGG19, "E", 16)])
def test_features_equal_torchvisions_at_the_same_positions(network, letter, relus):
    ours = network(network.layer_names, "random")
    theirs = make_layers(cfgs[letter], batch_norm=False)
    theirs.load_state_dict(ours.features.state_dict())
    found, features, expected = ours(make_image()), make_image(), []
    for layer in theirs:
        features = layer(features)
        if isinstance(layer, torch.nn.ReLU | torch.nn.MaxPool2d):
            expected.append(features.clone())
    assert len(expected) == len(network.layer_names) == relus + 5
    for name, feature in zip(network.layer_names, expected, strict=True):
        assert torch.equal(found[name], feature), name


def test_normalised_images_have_imagenets_mean_at_zero():
    image = torch.tensor([0.485, 0.456 + 0.224, 0.406 - 0.225]).view(1, 3, 1, 1)
    torch.testing.assert_close(imagenet_normalised(image).flatten(), torch.tensor([0.0, 1.0, -1.0]))


def test_positions_are_those_of_the_torchvision_weights():
    wanted = {1: "relu1_1", 6: "relu2_1", 8: "relu2_2", 11: "relu3_1", 17: "relu3_4", 20: "relu4_1", 26: "relu4_4"}
    wanted |= {29: "relu5_1", 31: "relu5_2"}
    vgg = VGG19(wanted.values(), "random")
    assert vgg.names == wanted
    assert len(vgg.features) == 32


def test_nothing_is_built_beyond_the_deepest_layer():
    vgg = VGG19(("relu2_1", "relu1_1"), "random")
    assert len(vgg.features) == 7
    assert set(vgg(make_image())) == {"relu1_1", "relu2_1"}


def test_it_is_frozen_but_passes_gradients_to_the_image():
    vgg = VGG19(SHALLOW, "random").train()
    assert not vgg.training
    assert not any(parameter.requires_grad for parameter in vgg.parameters())
    image = make_image().requires_grad_()
    vgg(image)["relu2_2"].sum().backward()
    assert image.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in vgg.parameters())


def test_it_follows_its_input_to_another_device():
    vgg = VGG19(SHALLOW, "random")
    assert vgg(make_image().to("meta"))["relu2_2"].device.type == "meta"
    assert next(vgg.parameters()).device.type == "meta"


def test_random_weights_follow_their_seed_alone():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = VGG19(SHALLOW, "random", seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    again, other = VGG19(SHALLOW, "random", seed=3), VGG19(SHALLOW, "random", seed=4)
    assert torch.equal(first.features[0].weight, again.features[0].weight)
    assert not torch.equal(first.features[0].weight, other.features[0].weight)
    assert all(not layer.bias.any() for layer in first.features if isinstance(layer, torch.nn.Conv2d))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("prefix", ["features.", ""])
def test_weights_come_from_a_file(tmp_path, suffix, prefix):
    source = VGG19(SHALLOW, "random", seed=5)
    state = {prefix + name: value.contiguous() for name, value in source.features.state_dict().items()}
    state["classifier.6.bias"] = torch.zeros(1000)  # a whole VGG-19 has more than we ask for
    path = tmp_path / f"vgg19{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    assert torch.equal(VGG19(SHALLOW, str(path))(make_image())["relu2_2"], source(make_image())["relu2_2"])


def test_a_missing_file_is_named_with_the_choices(tmp_path):
    with pytest.raises(WeightsError, match=r"absent\.pth: no such file; weights are 'imagenet', 'random'"):
        VGG19(SHALLOW, str(tmp_path / "absent.pth"))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_of_something_else_is_refused(tmp_path, suffix):
    path = tmp_path / f"text{suffix}"
    path.write_text("not weights")
    with pytest.raises(ValueError, match="not a file of weights"):
        VGG19(SHALLOW, str(path))
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="of a list"):
        VGG19(SHALLOW, str(tmp_path / "list.pth"))


def test_weights_of_another_network_are_refused_by_name(tmp_path):
    state = VGG19(SHALLOW, "random").features.state_dict()
    state["2.weight"] = torch.zeros(64, 64, 5, 5)
    del state["7.bias"]
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth: not the weights of VGG-19.*: 2\.weight, 7\.bias"):
        VGG19(SHALLOW, str(tmp_path / "other.pth"))


def test_a_failed_download_says_what_to_do(monkeypatch):
    def refuse(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr(VGG19_Weights, "get_state_dict", refuse)
    with pytest.raises(WeightsError, match=r"could not be fetched .*no route to host.*pass its path, or pass 'random'"):
        VGG19(SHALLOW, "imagenet")


def test_unknown_layers_are_named_with_the_nearest():
    with pytest.raises(ValueError, match=r"no layer 'relu3_5'; did you mean relu"):
        VGG19(("relu3_5",), "random")
    with pytest.raises(ValueError, match="at least one layer"):
        VGG19((), "random")
