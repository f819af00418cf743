"""SPL's teachers: frozen networks whose features of the complete image SPL learns to predict from visible pixels."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from files.nearest import suggest
from jobs.layers.frozen import FrozenNetwork
from jobs.layers.vgg import imagenet_normalised
from jobs.layers.weights import WeightsError, read_weights

CHECKPOINT = "Open_ImagesV6_TRresNet_L_448.pth"
"""File of the authors' teacher, as the model zoo of the asymmetric loss names it."""

_REMEDY = (
    f"SPL's teacher is a TResNet-L trained on Open Images V6, {CHECKPOINT} in the model zoo of "
    "github.com/Alibaba-MIIL/ASL. Put it there, or give another teacher: a file's path, 'random', a torchvision model "
    "such as 'resnet50'; or train without: prior_weight 0"
)


class Teacher(FrozenNetwork):
    """A frozen network, built at the first call, since inpainting needs none.

    name: "tresnet_l", the authors' checkpoint in torch's folder of downloads; a .safetensors or .pth file of a whole
        TResNet-L; "random", the same layers with weights drawn from `seed`; or the name of a torchvision model such as
        "resnet50", which is downloaded and cut after its last layer at an eighth of the input's size.
    width: channels of TResNet-L's first stage, 76; others only with "random".
    seed: of the "random" weights.
    teacher(image):
        image: (N, 3, H, W) in [0, 1], H and W multiples of 8.
    Returns (N, channels, H/8, W/8), without gradient. The network moves to the device and precision of the image.
    The first call raises the errors of loading: see `TResNet.load` and `load_torchvision`.
    """

    def __init__(self, name: str, *, width: int = 76, seed: int = 0) -> None:
        super().__init__()
        self.name, self.width, self.seed = name, width, seed

    @cached_property
    def network(self) -> nn.Module:
        """Build the network, in eval mode and without gradients."""
        if not _is_tresnet(self.name):
            network = load_torchvision(self.name)
        elif self.name == "random":
            network = TResNet(self.width).draw(self.seed)
        else:
            default = Path(torch.hub.get_dir()) / "checkpoints" / CHECKPOINT
            network = TResNet(self.width).load(default if self.name == "tresnet_l" else Path(self.name))
        return network.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        self.network.to(image.device, image.dtype)  # not compiled: it builds the network and changes its parameters
        with torch.no_grad():
            return super().forward(image)

    def compute(self, image: Tensor) -> Tensor:
        """Compute the features; the network is built and in place."""
        return self.network(image)


def count_channels(name: str, width: int) -> int:
    """Return the channels of a teacher's output, without building it; arguments as of `Teacher`.

    Raises WeightsError for an unknown name.
    """
    return 2 * width if _is_tresnet(name) else torchvision_channels(name)


def _is_tresnet(name: str) -> bool:
    return name in ("tresnet_l", "random") or Path(name).suffix in (".pth", ".safetensors")


class SpaceToDepth(nn.Module):
    """Turn blocks of 4x4 pixels into channels: (N, 3, H, W) -> (N, 48, H/4, W/4), channel 3 (4 dy + dx) + c."""

    def forward(self, image: Tensor) -> Tensor:
        blocks = F.pixel_unshuffle(image, 4)  # channel 16 c + 4 dy + dx
        return blocks.unflatten(1, (-1, 16)).transpose(1, 2).flatten(1, 2)


class ConvNorm(nn.Sequential):
    """Convolution without bias, padded "same", and batch norm with fixed statistics: (N, C, H, W) -> (N, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3) -> None:
        super().__init__()
        # Skip PyTorch's own initialisation, which draws from the global generator.
        self.conv = nn.utils.skip_init(
            nn.Conv2d, in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels)


class SqueezeExcite(nn.Module):
    """Scale every channel by a function of the means of all channels: (N, C, H, W) -> the same shape."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.utils.skip_init(nn.Conv2d, channels, hidden, 1)
        self.fc2 = nn.utils.skip_init(nn.Conv2d, hidden, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        means = features.mean((2, 3), keepdim=True)
        return features * torch.sigmoid(self.fc2(F.relu(self.fc1(means))))


class Blur(nn.Module):
    """Blur every channel by [1, 2, 1] x [1, 2, 1] / 16, at every second place: (N, C, H, W) -> (N, C, H/2, W/2)."""

    def __init__(self) -> None:
        super().__init__()
        line = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("kernel", torch.outer(line, line)[None, None] / 16, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        channels = features.shape[1]
        padded = F.pad(features, (1, 1, 1, 1), mode="reflect")
        return F.conv2d(padded, self.kernel.expand(channels, 1, 3, 3), stride=2, groups=channels)


class BasicBlock(nn.Module):
    """ReLU(shortcut(x) + SE(ConvNorm(leaky ReLU(ConvNorm(x))))); with stride 2 a blur follows the leaky ReLU.

    stride: 1 or 2.
    forward(features):
        features: (N, in_channels, H, W), any range; H and W are even at stride 2.
    Returns (N, channels, H / stride, W / stride).
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(in_channels, channels)
        self.blur = Blur() if stride == 2 else nn.Identity()
        self.conv2 = ConvNorm(channels, channels)
        self.se = SqueezeExcite(channels, max(channels // 4, 64))
        self.downsample = nn.Identity()
        if stride == 2:
            pool = nn.AvgPool2d(2, stride=2, ceil_mode=True, count_include_pad=False)
            self.downsample = nn.Sequential(pool, ConvNorm(in_channels, channels, 1))

    def forward(self, features: Tensor) -> Tensor:
        inner = self.blur(F.leaky_relu(self.conv1(features), 0.001))
        return F.relu(self.se(self.conv2(inner)) + self.downsample(features))


class TResNet(nn.Module):
    """TResNet-L, cut after its second stage of four.

    Ridnik, Lawen, Noy, Ben Baruch, Sharir, Friedman, "TResNet: High Performance GPU-Dedicated Architecture", WACV 2021,
    with ordinary batch norm. Parameters are uninitialised before `draw` or `load`; they have timm's names.
    width: channels of the first stage; 76 is TResNet-L.
    forward(image):
        image: (N, 3, H, W) in [0, 1], not normalised, H and W multiples of 8.
    Returns (N, 2 * width, H/8, W/8).
    """

    def __init__(self, width: int = 76) -> None:
        super().__init__()
        self.space_to_depth = SpaceToDepth()
        self.conv1 = ConvNorm(48, width)
        self.layer1 = nn.Sequential(*(BasicBlock(width, width, 1) for _ in range(4)))
        self.layer2 = nn.Sequential(
            BasicBlock(width, 2 * width, 2), *(BasicBlock(2 * width, 2 * width, 1) for _ in range(4))
        )

    def forward(self, image: Tensor) -> Tensor:
        stem = F.leaky_relu(self.conv1(self.space_to_depth(image)), 0.01)
        return self.layer2(self.layer1(stem))

    def draw(self, seed: int) -> TResNet:
        """Draw He-normal weights, without touching the global generators. Returns itself."""
        generator = torch.Generator().manual_seed(seed)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        return self

    def load(self, path: Path) -> TResNet:
        """Load weights from a file of the whole TResNet-L. Returns itself.

        path: a file of the authors (in-place batch norm) or of timm.
        Raises WeightsError for a file that is missing or has other contents.
        """
        state = converted(read_weights(path, _REMEDY))
        wanted = {name: value for name, value in self.state_dict().items() if not name.endswith("num_batches_tracked")}
        wrong = [name for name in wanted if name not in state or state[name].shape != wanted[name].shape]
        if wrong:
            listed = ", ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
            raise WeightsError(f"{path}: not the weights of TResNet-L; missing or of another shape: {listed}")
        self.load_state_dict({name: state[name] for name in wanted}, strict=False)
        return self


def converted(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert the weights of a TResNet: the names used here, and ordinary batch norms instead of in-place ones.

    Weights of timm need no conversion and are recognised by their names.
    """
    # An in-place activated batch norm scales by |weight| + 1e-5, which becomes the weight of the ordinary one.
    renamed = {}
    for name, value in state.items():
        name = name.removeprefix("module.").removeprefix("body.")
        in_place = re.sub(r"\b(conv[12]|downsample\.1)(?:\.0)?\.([01])\.(?=[a-z])", _timm_name, name)
        is_scale = in_place != name and in_place.endswith(".bn.weight")
        renamed[in_place] = value.abs() + 1e-5 if is_scale else value
    return renamed


def _timm_name(match: re.Match[str]) -> str:
    return f"{match[1]}.{('conv', 'bn')[int(match[2])]}."


class TorchvisionTeacher(nn.Module):
    """The first layers of a torchvision model: (N, 3, H, W) in [0, 1] -> (N, C, H/8, W/8)."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(imagenet_normalised(image))


def torchvision_channels(name: str) -> int:
    """Return the channels of a torchvision model at an eighth of the size.

    Raises WeightsError for an unknown model, and for one without a layer of that size.
    """
    return _cut(name, _torchvision_shell(name))[1]


def load_torchvision(name: str) -> TorchvisionTeacher:
    """Load a torchvision model with its own weights, up to its last layer at an eighth of the input's size.

    Raises WeightsError for an unknown model, for one without such a layer, for weights that are not its own, and for a
    failed download.
    """
    model = _torchvision_shell(name)
    weights = torchvision.models.get_model_weights(name).DEFAULT
    try:
        state = weights.get_state_dict(progress=False, check_hash=True, map_location="cpu")
    except OSError as error:  # includes URLError
        raise WeightsError(
            f"the weights of torchvision's {name} could not be fetched from {weights.url} into "
            f"{torch.hub.get_dir()}/checkpoints ({error}); put the file there, or give another teacher"
        ) from error
    layers, _ = _cut(name, model)
    prefix = "features." if isinstance(getattr(model, "features", None), nn.Sequential) else ""
    own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    missing = [key for key in layers.state_dict() if key not in own]
    if missing:
        raise WeightsError(f"{weights.url}: not the weights of torchvision's {name}; missing: {', '.join(missing)}")
    layers.load_state_dict({key: own[key] for key in layers.state_dict()}, assign=True)
    return TorchvisionTeacher(layers)


def _torchvision_shell(name: str) -> nn.Module:
    """Build a model of shapes alone, without drawing from the global generators. Raises WeightsError if it cannot."""
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        hint = suggest(name, ["tresnet_l", "random", *known], otherwise="such as resnet50")
        raise WeightsError(
            f"{name!r} is no teacher: neither a .pth or .safetensors file nor 'tresnet_l' nor 'random' nor a "
            f"torchvision model; {hint}"
        )
    try:
        with torch.device("meta"):
            return torchvision.models.get_model(name, weights=None)
    except NotImplementedError as error:  # a few models read values of tensors while they are built
        raise WeightsError(f"torchvision's {name} cannot be taken apart; take one such as resnet50") from error


def _cut(name: str, model: nn.Module) -> tuple[nn.Sequential, int]:
    """Return the layers up to the last one at an eighth of the input's size, with their names, and its channels.

    Raises WeightsError for a model without such a layer.
    """
    features = getattr(model, "features", None)
    layers = features if isinstance(features, nn.Sequential) else model
    kept, cut, channels = nn.Sequential(), 0, 0
    values = torch.empty(1, 3, 128, 128, device="meta")
    with torch.no_grad():
        for key, layer in layers.eval().named_children():
            try:
                values = layer(values)
            except (RuntimeError, TypeError, ValueError):
                break
            if not isinstance(values, Tensor) or values.ndim != 4 or values.shape[-1] < 16:
                break
            kept.add_module(key, layer)
            if values.shape[-2:] == (16, 16):
                cut, channels = len(kept), values.shape[1]
    if not cut:
        raise WeightsError(f"torchvision's {name} has no layer at an eighth of the size; take one such as resnet50")
    return kept[:cut], channels
