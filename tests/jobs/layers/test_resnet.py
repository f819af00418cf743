"""The frozen ResNet-50: its stages, its files of weights, and what is refused."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from files.durable import file_digest
from jobs.layers.resnet import ResNet50
from jobs.layers.weights import WeightsError


def test_dilation_keeps_the_last_stages_at_an_eighth():
    image = torch.rand(1, 3, 64, 64)
    for dilated, sides in ((True, [16, 8, 8, 8]), (False, [16, 8, 4, 2])):
        network = ResNet50("random", dilated=dilated)
        assert [tuple(m.shape[1:]) for m in network(image)] == [
            (channels, side, side) for channels, side in zip((256, 512, 1024, 2048), sides, strict=True)
        ]
    dilations = [block.conv2.dilation[0] for stage in ResNet50("random").stages[2:] for block in stage]
    assert dilations == [1, 2, 2, 2, 2, 2, 2, 4, 4]
    assert sum(p.numel() for p in network.parameters()) == 23_508_032


def test_random_weights_leave_the_global_generator_unchanged_and_follow_their_seed():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first, again, other = (ResNet50("random", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    weights = [network.stem[0].weight for network in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not any(p.requires_grad for p in first.parameters())
    assert not first.train().training


def deep_state() -> dict[str, torch.Tensor]:
    """The weights of a scene-parsing encoder under the names of its authors' file."""
    network = ResNet50("random", stem="deep", seed=3)
    names = {"0.0": "conv1", "0.1": "bn1", "0.3": "conv2", "0.4": "bn2", "0.6": "conv3", "1": "bn3"}
    state = {}
    for name, value in network.state_dict().items():
        if name.startswith("stem."):
            place, _, kind = name.removeprefix("stem.").rpartition(".")
            state[f"{names[place]}.{kind}"] = value.clone()
        else:
            _, stage, rest = name.split(".", 2)
            state[f"layer{int(stage) + 1}.{rest}"] = value.clone()
    return state


def test_a_scene_parsing_encoder_loads_from_its_own_names(tmp_path):
    path = tmp_path / "encoder.safetensors"
    save_file(deep_state(), path)
    network = ResNet50(str(path), stem="deep", sha256=file_digest(path))
    assert sum(p.numel() for p in network.parameters()) == 23_631_808
    image = torch.rand(1, 3, 32, 32)
    expected = ResNet50("random", stem="deep", seed=3)(image)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(network(image), expected, strict=True))


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "encoder.safetensors"
    save_file(deep_state(), path)
    with pytest.raises(WeightsError, match="has digest"):
        ResNet50(str(path), stem="deep", sha256="0" * 64)
    with pytest.raises(WeightsError, match="not the weights of this ResNet-50"):
        ResNet50(str(path))
    with pytest.raises(WeightsError, match="no such file"):
        ResNet50(str(tmp_path / "missing.pth"))
    torch.save(nn.Linear(1, 1), tmp_path / "pickle.pth")
    with pytest.raises(WeightsError, match="not a file of weights"):
        ResNet50(str(tmp_path / "pickle.pth"))
