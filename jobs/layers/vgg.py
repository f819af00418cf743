"""VGG-19's convolutions, frozen: the features that perceptual and style losses compare."""

from __future__ import annotations

import difflib
import pickle
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import VGG19_Weights

# Simonyan and Zisserman, 2015, Table 1, column E: (convolutions, channels) of each block; a max pool between blocks.
BLOCKS = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))
LAYERS = tuple(f"relu{block}_{n}" for block, (count, _) in enumerate(BLOCKS, 1) for n in range(1, count + 1))


class VGG19(nn.Module):
    """The features of VGG-19 after the named ReLUs, computed no further than the deepest of them.

    Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015.
    layers: names such as "relu1_1" or "relu5_2"; `LAYERS` has them all.
    weights: "imagenet", torchvision's own download; "random", He-normal ones drawn from `seed`, without touching the
        global generators; or a .safetensors or .pth file of a whole torchvision VGG-19 or of its features.
    forward(image): (N, 3, H, W), passed on as it is: the mean and deviation of ImageNet are the caller's choice, as
        the papers differ. Returns {layer: (N, C, H / 2^(block - 1), W / 2^(block - 1))}.
    Fixed: always in eval mode, no parameter asks for a gradient, though gradients pass through to the image. Belongs to
    no recipe's networks, so it is neither trained nor saved nor moved with them: it follows its input's device.
    Raises ValueError for an unknown layer, no layer, or weights that do not fit; FileNotFoundError for no such file;
    RuntimeError if the download fails.
    """

    def __init__(self, layers: Iterable[str], weights: str, seed: int = 0) -> None:
        super().__init__()
        self.layers = tuple(layers)
        _check_layers(self.layers)
        self.features = nn.Sequential()  # numbered as in torchvision, so that the names of the weights agree
        self.names: dict[int, str] = {}  # position of a wanted ReLU -> its name
        depth = max(map(LAYERS.index, self.layers)) + 1
        channels = 3
        for name in LAYERS[:depth]:
            block, number = int(name[4]), int(name[6])
            if number == 1 and block > 1:
                self.features.append(nn.MaxPool2d(2))
            width = BLOCKS[block - 1][1]
            # Without PyTorch's own initialisation, which would draw from the global generator.
            self.features.append(nn.utils.skip_init(nn.Conv2d, channels, width, 3, padding=1))
            self.features.append(nn.ReLU(inplace=True))
            if name in self.layers:
                self.names[len(self.features) - 1] = name
            channels = width
        if weights == "random":
            self._draw(seed)
        else:
            self._load(weights)
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        self.to(image.device)
        found, features = {}, image
        for position, layer in enumerate(self.features):
            features = layer(features)
            if position in self.names:
                found[self.names[position]] = features
        return found

    def train(self, mode: bool = True) -> VGG19:
        """Stays in eval mode, whatever the mode."""
        return super().train(False)

    def _draw(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
                nn.init.zeros_(layer.bias)

    def _load(self, weights: str) -> None:
        state = _download() if weights == "imagenet" else _read(Path(weights))
        state = {name.removeprefix("features."): value for name, value in state.items()}
        wanted = self.features.state_dict()
        wrong = [name for name in wanted if name not in state or state[name].shape != wanted[name].shape]
        if wrong:
            raise ValueError(f"{weights}: not the weights of VGG-19; missing or of another shape: {', '.join(wrong)}")
        self.features.load_state_dict({name: state[name] for name in wanted})


def _check_layers(layers: tuple[str, ...]) -> None:
    if not layers:
        raise ValueError("name at least one layer, such as relu1_1")
    for name in layers:
        if name not in LAYERS:
            near = difflib.get_close_matches(name, LAYERS, n=1) or [", ".join(LAYERS)]
            raise ValueError(f"VGG-19 has no layer {name!r}; did you mean {near[0]}?")


def _download() -> dict[str, Tensor]:
    try:
        return VGG19_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True)
    except OSError as error:  # URLError is one, too
        raise RuntimeError(
            f"the ImageNet weights of VGG-19 could not be fetched from {VGG19_Weights.IMAGENET1K_V1.url} into "
            f"{torch.hub.get_dir()}/checkpoints ({error}); put the file there, pass its path, or pass 'random'"
        ) from error


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; weights are 'imagenet', 'random', or a .safetensors or .pth file"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path}: not a file of weights ({error})") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path}: not a file of weights, but of a {type(state).__name__}")
    return state
