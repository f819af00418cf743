"""GLCIC's networks: the completion network and the discriminator of a global and a local view."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from files.errors import UserError
from jobs.layers.normalization import BatchNorm2d
from jobs.recipe.padding import check_sides


class Generator(nn.Module):
    """Fill the hole with the mean colour, then predict the image by (dilated) convolutions: the completion network.

    Iizuka et al., SIGGRAPH 2017, table of the completion network. Batch norm and ReLU follow every convolution but the
    last; padding is zeros, "same".

    width: channels of the first layer.
    mean: colour of the hole, RGB in [-1, 1].

    forward(image, mask):
        image: (N, 3, H, W) in [-1, 1]. Pixels under the hole are not read.
        mask: (N, 1, H, W), 1 = hole, with any number and shape of holes.
    Returns (N, 3, H, W) in [-1, 1].
    Raises UserError if H or W is no multiple of 4: the output would have another size.
    """

    def __init__(self, *, width: int, mean: tuple[float, float, float]) -> None:
        super().__init__()
        # Not saved with the weights, since it is a setting of the config.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        c = width
        self.layers = nn.Sequential(
            *_layer(nn.Conv2d(4, c, 5, padding=2)),
            *_layer(nn.Conv2d(c, 2 * c, 3, stride=2, padding=1)),
            *_layer(nn.Conv2d(2 * c, 2 * c, 3, padding=1)),
            *_layer(nn.Conv2d(2 * c, 4 * c, 3, stride=2, padding=1)),
            *_layer(nn.Conv2d(4 * c, 4 * c, 3, padding=1)),
            *_layer(nn.Conv2d(4 * c, 4 * c, 3, padding=1)),
            *(part for d in (2, 4, 8, 16) for part in _layer(nn.Conv2d(4 * c, 4 * c, 3, padding=d, dilation=d))),
            *_layer(nn.Conv2d(4 * c, 4 * c, 3, padding=1)),
            *_layer(nn.Conv2d(4 * c, 4 * c, 3, padding=1)),
            *_layer(nn.ConvTranspose2d(4 * c, 2 * c, 4, stride=2, padding=1)),
            *_layer(nn.Conv2d(2 * c, 2 * c, 3, padding=1)),
            *_layer(nn.ConvTranspose2d(2 * c, c, 4, stride=2, padding=1)),
            *_layer(nn.Conv2d(c, c // 2, 3, padding=1)),
            nn.Conv2d(c // 2, 3, 3, padding=1),
        )

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        check_sides(image, 4)
        filled = image * (1 - mask) + self.mean * mask
        return 2 * torch.sigmoid(self.layers(torch.cat((filled, mask), dim=1))) - 1


class Discriminator(nn.Module):
    """Judge a whole image and a window of it together by one logit.

    Iizuka et al., SIGGRAPH 2017, tables of the global and the local context discriminator and their concatenation.

    image_size, local_size: sides of the images of the two views, in pixels.
    width: channels of the first layer of each view.
    units: length of the vector of each view.
    global_layers: strided convolutions of the global view: 6, or 5 for images of 160 pixels.

    forward(image, window):
        image: (N, 3, image_size, image_size) in [-1, 1].
        window: (N, 3, local_size, local_size) in [-1, 1].
    Returns logits (N, 1).
    Raises UserError for images and windows of another size.
    """

    def __init__(
        self, *, image_size: int, local_size: int, width: int = 64, units: int = 1024, global_layers: int = 6
    ) -> None:
        super().__init__()
        self.sizes = ((3, image_size, image_size), (3, local_size, local_size))
        self.global_view = _view(image_size, width, global_layers, units)
        self.local_view = _view(local_size, width, 5, units)
        self.score = nn.Linear(2 * units, 1)

    def forward(self, image: Tensor, window: Tensor) -> Tensor:
        given = (tuple(image.shape[1:]), tuple(window.shape[1:]))
        if given != self.sizes:
            raise UserError(f"image and window must be {self.sizes}, since linear layers fix their sizes; got {given}")
        return self.score(torch.cat((self.global_view(image), self.local_view(window)), dim=1))


def _layer(convolution: nn.Module) -> tuple[nn.Module, ...]:
    return convolution, BatchNorm2d(convolution.out_channels), nn.ReLU()


def _view(size: int, width: int, num_layers: int, units: int) -> nn.Sequential:
    """Build one view of the discriminator: (N, 3, size, size) -> (N, units)."""
    layers: list[nn.Module] = []
    in_channels = 3
    for factor in (1, 2, 4, 8, 8, 8)[:num_layers]:
        layers += _layer(nn.Conv2d(in_channels, factor * width, 5, stride=2, padding=2))
        in_channels = factor * width
        size = -(-size // 2)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(in_channels * size * size, units), nn.ReLU())
