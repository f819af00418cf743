"""Frozen convolutions of VGG-16 and VGG-19, whose features perceptual and style losses compare."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import VGG16_Weights, VGG19_Weights

from files.colours import IMAGENET_DEVIATION, IMAGENET_MEAN
from files.nearest import suggest
from jobs.layers.constants import constant
from jobs.layers.frozen import FrozenNetwork
from jobs.layers.weights import WeightsError, read_weights

# Simonyan and Zisserman, 2015, Table 1, columns D and E: convolutions of each block, and their channels.
_CHANNELS = (64, 128, 256, 512, 512)
_CONVOLUTIONS = {"VGG-16": (2, 2, 3, 3, 3), "VGG-19": (2, 2, 4, 4, 4)}
_REMEDY = "weights are 'imagenet', 'random', or a .safetensors or .pth file"


def to_unit(image: Tensor) -> Tensor:
    """Convert an image from [-1, 1] to [0, 1], the range of the input of feature networks."""
    return (image + 1) / 2


def imagenet_normalised(image: Tensor) -> Tensor:
    """Subtract ImageNet's mean and divide by its deviation.

    image: (N, 3, H, W), RGB in [0, 1].
    Returns the same shape.
    """
    mean = constant(IMAGENET_MEAN, image.device, image.dtype).view(3, 1, 1)
    deviation = constant(IMAGENET_DEVIATION, image.device, image.dtype).view(3, 1, 1)
    return (image - mean) / deviation


class VGG(FrozenNetwork):
    """Compute the features of a VGG after the named ReLUs and pools, and no layer beyond the deepest of them.

    Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015. Use `VGG16`
    or `VGG19`. See `FrozenNetwork`.

    layers: names such as "relu1_1", "relu5_2" or "pool3"; `layer_names` of the class lists them all.
    weights: "imagenet": torchvision's download; "random": He-normal weights; or a .safetensors or .pth file of a whole
        torchvision VGG or of its features.
    seed: of the "random" weights, which leave the global generators unchanged.

    forward(image):
        image: (N, 3, H, W). It is not normalised here, since the papers differ.
    Returns {layer: (N, C, h, w)}, with h and w halved by every pool.
    Raises ValueError for no layer and for an unknown one. Raises WeightsError for a file that is missing or does not
    fit, and for a download that fails.
    """

    name: str
    layer_names: tuple[str, ...]
    download: VGG16_Weights | VGG19_Weights

    def __init__(self, layers: Iterable[str], weights: str, seed: int = 0) -> None:
        super().__init__()
        self.layers = tuple(layers)
        self._check_layers()
        self.features = nn.Sequential()  # numbered as in torchvision, so that the names of the weights agree
        self.names: dict[int, str] = {}  # position of a wanted ReLU or pool -> its name
        depth = max(map(self.layer_names.index, self.layers)) + 1
        channels = 3
        for name in self.layer_names[:depth]:
            if name.startswith("pool"):
                self.features.append(nn.MaxPool2d(2))
            else:
                width = _CHANNELS[int(name[4]) - 1]
                # PyTorch's own initialisation would draw from the global generator.
                self.features.append(nn.utils.skip_init(nn.Conv2d, channels, width, 3, padding=1))
                self.features.append(nn.ReLU(inplace=True))
                channels = width
            if name in self.layers:
                self.names[len(self.features) - 1] = name
        if weights == "random":
            self._draw(seed)
        else:
            self._load(weights)
        self.eval().requires_grad_(False)

    def compute(self, image: Tensor) -> dict[str, Tensor]:
        named, features = {}, image
        for position, layer in enumerate(self.features):
            features = layer(features)
            if position in self.names:
                named[self.names[position]] = features
        return named

    def _draw(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
                nn.init.zeros_(layer.bias)

    def _load(self, weights: str) -> None:
        state = self._download() if weights == "imagenet" else read_weights(Path(weights), _REMEDY)
        state = {name.removeprefix("features."): value for name, value in state.items()}
        wanted = self.features.state_dict()
        wrong = [name for name in wanted if name not in state or state[name].shape != wanted[name].shape]
        if wrong:
            listed = ", ".join(wrong)
            raise WeightsError(f"{weights}: not the weights of {self.name}; missing or of another shape: {listed}")
        self.features.load_state_dict({name: state[name] for name in wanted})

    def _check_layers(self) -> None:
        if not self.layers:
            raise ValueError("name at least one layer, such as relu1_1")
        for name in self.layers:
            if name not in self.layer_names:
                raise ValueError(f"{self.name} has no layer {name!r}; {suggest(name, self.layer_names)}")

    def _download(self) -> dict[str, Tensor]:
        try:
            return self.download.get_state_dict(progress=False, check_hash=True)
        except OSError as error:  # URLError is one, too
            raise WeightsError(
                f"the ImageNet weights of {self.name} could not be fetched from {self.download.url} into "
                f"{torch.hub.get_dir()}/checkpoints ({error}); put the file there, pass its path, or pass 'random'"
            ) from error


def _layer_names(convolutions: tuple[int, ...]) -> tuple[str, ...]:
    """Return the names of the ReLUs and the pool of every block, in order of execution."""
    return tuple(
        name
        for block, count in enumerate(convolutions, 1)
        for name in (*(f"relu{block}_{n}" for n in range(1, count + 1)), f"pool{block}")
    )


class VGG16(VGG):
    """See `VGG`."""

    name = "VGG-16"
    layer_names = _layer_names(_CONVOLUTIONS["VGG-16"])
    download = VGG16_Weights.IMAGENET1K_V1


class VGG19(VGG):
    """See `VGG`."""

    name = "VGG-19"
    layer_names = _layer_names(_CONVOLUTIONS["VGG-19"])
    download = VGG19_Weights.IMAGENET1K_V1
