"""Frozen ResNet-50 whose features a perceptual loss compares."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights, resnet50
from torchvision.models.resnet import Bottleneck

from files.durable import file_digest
from jobs.layers.frozen import FrozenNetwork
from jobs.layers.weights import WeightsError, read_weights

Stem = Literal["conv7", "deep"]

_REMEDY = "weights are 'imagenet', 'random', or a .safetensors or .pth file"
_DEEP_STEM = {
    "conv1": "conv1.0",
    "bn1": "conv1.1",
    "conv2": "conv1.3",
    "bn2": "conv1.4",
    "conv3": "conv1.6",
    "bn3": "bn1",
}


class ResNet50(FrozenNetwork):
    """Compute the features of ResNet-50 after each of its four stages.

    He et al., "Deep Residual Learning for Image Recognition", 2016. See `FrozenNetwork`.

    weights: "imagenet": torchvision's download; "random": its initial weights; or a .safetensors or .pth file.
    dilated: whether stages 3 and 4 are dilated by 2 and 4 in place of their strides.
    stem: "conv7", one 7x7 convolution, or "deep", three 3x3 convolutions as in scene-parsing networks. "imagenet" and
        "random" have "conv7".
    sha256: digest that a file must have, in hex; "any" for no check.
    seed: of the "random" weights, which leave the global generators unchanged.

    forward(image):
        image: (N, 3, H, W), normalised by ImageNet's mean and deviation.
    Returns four maps (N, C, h, w) with C = 256, 512, 1024, 2048 at 1/4, 1/8 and, dilated, again 1/8 of the size.
    Raises WeightsError for a file that is missing, has another digest or does not fit, and for a download that fails.
    """

    def __init__(
        self, weights: str, *, dilated: bool = True, stem: Stem = "conv7", sha256: str = "any", seed: int = 0
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = resnet50(replace_stride_with_dilation=[False, dilated, dilated])
            if stem == "deep":
                _deepen(network)
        del network.avgpool, network.fc
        if weights != "random":
            self._load(network, weights, stem, sha256)
        self.stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
        self.stages = nn.ModuleList((network.layer1, network.layer2, network.layer3, network.layer4))
        self.eval().requires_grad_(False)

    def compute(self, image: Tensor) -> list[Tensor]:
        features, maps = self.stem(image), []
        for stage in self.stages:
            features = stage(features)
            maps.append(features)
        return maps

    @staticmethod
    def _load(network: nn.Module, weights: str, stem: Stem, sha256: str) -> None:
        if weights == "imagenet":
            state = _download()
        else:
            path = Path(weights)
            state = read_weights(path, _REMEDY)
            if sha256 != "any" and (digest := file_digest(path)) != sha256.lower():
                raise WeightsError(f"{path} has digest {digest}, not {sha256}; fetch the file again")
        if stem == "deep":
            state = {_deep_name(name): value for name, value in state.items()}
        wanted = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
        wrong = [name for name in wanted if name not in state or state[name].shape != wanted[name].shape]
        if wrong:
            raise WeightsError(
                f"{weights}: not the weights of this ResNet-50 (stem {stem}); missing or of another shape: "
                f"{', '.join(wrong[:5])}"
            )
        network.load_state_dict({name: state[name] for name in wanted}, strict=False)


def _deepen(network: nn.Module) -> None:
    """Replace the stem by three 3x3 convolutions, 3-64-64-128, and widen the input of the first block to match."""
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((3, 64, 2), (64, 64, 1), (64, 128, 1)):
        layers += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    network.conv1, network.bn1 = nn.Sequential(*layers[:-2]), layers[-2]
    shortcut = nn.Sequential(nn.Conv2d(128, 256, 1, bias=False), nn.BatchNorm2d(256))
    network.layer1[0] = Bottleneck(128, 64, downsample=shortcut)


def _deep_name(name: str) -> str:
    """Return the name here of a parameter of a scene-parsing encoder."""
    first, separator, rest = name.partition(".")
    return f"{_DEEP_STEM.get(first, first)}{separator}{rest}"


def _download() -> dict[str, Tensor]:
    weights = ResNet50_Weights.IMAGENET1K_V1
    try:
        return weights.get_state_dict(progress=False, check_hash=True)
    except OSError as error:  # URLError is one, too
        raise WeightsError(
            f"the ImageNet weights of ResNet-50 could not be fetched from {weights.url} into "
            f"{torch.hub.get_dir()}/checkpoints ({error}); put the file there, pass its path, or pass 'random'"
        ) from error
