"""The texture stage: change the hole, from coarse to fine, until its features consist of the known part's patches.

Yang et al., CVPR 2017, Sec. 3; energy, matching and optimizer of the authors' code. It needs an image that any network
has filled, and its mask. It trains nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from jobs.generators.neural_patch_synthesis import Config
from jobs.generators.neural_patch_synthesis import patches as pieces
from jobs.generators.neural_patch_synthesis.losses import content, mrf, total_variation
from jobs.layers.vgg import VGG19, imagenet_normalised

CONTENT_LAYER = "relu4_2"
# Of every layer: pixels per cell, and the pixels that a cell sees beyond its own block, on each side.
STRIDES = {"relu3_1": 4, "relu4_1": 8, CONTENT_LAYER: 8}
REACHES = {"relu3_1": 10, "relu4_1": 30}
SMALLEST_SIDE = pieces.SIZE * max(STRIDES.values())  # in pixels: one patch of the coarsest layer
CAFFE_MEANS = (103.939, 116.779, 123.68)  # blue, green, red
CHUNK = 4096  # sources compared at a time


def texture_layers(config: Config) -> tuple[str, ...]:
    """Return the layers whose patches are matched."""
    return tuple(config.texture_layers.split("+"))


def build_vgg(config: Config) -> VGG19:
    """Build VGG-19 up to the deepest layer of the energy."""
    return VGG19((*texture_layers(config), CONTENT_LAYER), config.features, config.features_seed)


def refine(vgg: VGG19, filled: Tensor, mask: Tensor, config: Config) -> Tensor:
    """Minimise the texture energy of the filled hole, starting from the filled image.

    Images are computed one after another, each with an optimizer of its own, so no sample changes another one's result.
    No random numbers are drawn.

    filled: (N, 3, H, W) in [-1, 1], with the hole filled.
    mask: (N, 1, H, W), 1 = hole.
    Returns (N, 3, H, W) in [-1, 1]. Known pixels are unchanged, except within `texture_margin` of a hole.
    """
    # Inpainting runs without gradients, but the optimizer needs those of the pixels. The copies of tensors that were
    # made in inference mode are ordinary tensors.
    with torch.inference_mode(mode=False), torch.enable_grad(), torch.autocast(filled.device.type, enabled=False):
        pairs = zip(filled.clone().float().split(1), mask.clone().float().split(1), strict=True)
        return torch.cat([_refine_one(vgg, *pair, config) for pair in pairs]).to(filled.dtype)


def _refine_one(vgg: VGG19, filled: Tensor, mask: Tensor, config: Config) -> Tensor:
    if not mask.any():
        return filled
    region = torch.ones_like(mask) if config.texture_region == "image" else dilate(mask, config.texture_margin)
    margin = 0 if config.source_exclusion == "receptive_field" else config.source_margin
    unusable = dilate(mask, margin)
    content_image, pixels = to_pixels(filled), None
    for size in scales(filled.shape[-2:], config.texture_scales):
        start = base = _resized(content_image, size)
        free, hole, banned = (F.adaptive_max_pool2d(cells, size) for cells in (region, mask, unusable))
        if pixels is not None:
            start = torch.where(free > 0, F.interpolate(pixels, size, mode="bilinear"), base)
        energy = Energy(vgg, base, hole, free, banned, config)
        pixels = minimise(energy, start, free, config.texture_iterations)
    if pixels is None:
        return filled
    return torch.where(region > 0, from_pixels(pixels).clamp(-1, 1), filled)


def scales(size: Sequence[int], count: int) -> list[tuple[int, int]]:
    """Return at most `count` sizes, each half the next, the last the image's own. Too small ones are left out."""
    height, width = size
    sizes = [(round(height / 2**n), round(width / 2**n)) for n in reversed(range(count))]
    return [size for size in sizes if min(size) >= SMALLEST_SIDE]


class Energy:
    """Compute E = content + MRF + total variation of one image at one scale, as a function of its pixels.

    Sources are patches of the base and of its turned and zoomed copies. Queries are the patches with a cell that may
    change. Without any source there is no MRF term.

    base: the content image, (1, 3, h, w) in [0, 256].
    hole: (1, 1, h, w), 1 = hole.
    free: (1, 1, h, w), 1 = may change.
    banned: (1, 1, h, w), 1 = no source may contain it.

    energy(pixels, rematch=False):
        pixels: (1, 3, h, w) in [0, 256].
        rematch: whether to find the most similar source of every query first; otherwise the last matches are used.
    Returns a scalar.
    """

    def __init__(self, vgg: VGG19, base: Tensor, hole: Tensor, free: Tensor, banned: Tensor, config: Config) -> None:
        self.vgg, self.config = vgg, config
        self.layers = texture_layers(config)
        with torch.no_grad():
            features = self.features(base)
            self.target = features[CONTENT_LAYER]
            self.cells = _cells(hole, CONTENT_LAYER) if config.content_region == "hole" else None
            self.queries: dict[str, pieces.Places] = {}
            for layer in self.layers:
                places = pieces.grid(*features[layer].shape[-2:], device=base.device)
                self.queries[layer] = pieces.select(places, pieces.touching(_cells(free, layer), places))
            self.sources = self._sources(base, features, banned)
        self.matches: dict[str, tuple[Tensor, Tensor]] = {}

    def __call__(self, pixels: Tensor, *, rematch: bool = False) -> Tensor:
        features = self.features(pixels)
        if rematch:
            self._rematch({layer: features[layer].detach() for layer in self.sources})
        energy = self.config.content_weight * content(features[CONTENT_LAYER], self.target, self.cells)
        for layer, matched in self.matches.items():
            energy = energy + self.config.mrf_weight * mrf(features[layer], *matched)
        return energy + self.config.tv_weight * total_variation(pixels)

    def features(self, pixels: Tensor) -> dict[str, Tensor]:
        """Compute the features of pixels (1, 3, h, w) in [0, 256], scaled to match the weights of the terms."""
        if self.config.preprocessing == "caffe":
            return self.vgg(pixels.flip(1) - pixels.new_tensor(CAFFE_MEANS).view(3, 1, 1))
        collected = self.vgg(imagenet_normalised(pixels / 256))
        return {name: self.config.feature_scale * feature for name, feature in collected.items()}

    def _rematch(self, features: dict[str, Tensor]) -> None:
        for layer, sources in self.sources.items():
            places = self.queries[layer]
            index = pieces.match(pieces.cut(features[layer], places), sources, CHUNK)
            self.matches[layer] = pieces.blend(sources[index], places, tuple(features[layer].shape[-2:]))

    def _sources(self, base: Tensor, features: dict[str, Tensor], banned: Tensor) -> dict[str, Tensor]:
        """Return layer -> patches (S, C * 9) of all variants of the base without a banned cell. S is at least 1."""
        collected: dict[str, list[Tensor]] = {layer: [] for layer in self.layers}
        for variant in variants(self.config):
            image, blocked = (base, banned) if variant == Variant() else variant.apply(base, banned)
            if min(image.shape[-2:]) < SMALLEST_SIDE:
                continue
            seen = features if image is base else self.features(image)
            for layer in self.layers:
                reach = REACHES[layer] if self.config.source_exclusion == "receptive_field" else 0
                places = pieces.grid(*seen[layer].shape[-2:], device=base.device)
                usable = ~pieces.touching(_cells(dilate(blocked, reach), layer), places)
                collected[layer].append(pieces.cut(seen[layer], pieces.select(places, usable)))
        stacked = {layer: torch.cat(parts) for layer, parts in collected.items()}
        return {layer: sources for layer, sources in stacked.items() if len(sources)}


def minimise(energy: Energy, start: Tensor, free: Tensor, iterations: int) -> Tensor:
    """Minimise the energy over the free pixels by L-BFGS. The other pixels are unchanged.

    Patches are matched at the start, and again every `rematch_every` evaluations if that is not 0. The step is 1
    without line search, as in the authors' code. Such a run may diverge; if its last energy is above its first or not
    finite, the start is returned.

    start: (1, 3, h, w) in [0, 256].
    free: (1, 1, h, w), 1 = may change.
    iterations: of L-BFGS.
    Returns the pixels, (1, 3, h, w).
    """
    pixels = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [pixels], lr=1.0, max_iter=iterations, history_size=25, tolerance_grad=0.0, tolerance_change=0.0
    )
    every = energy.config.rematch_every
    seen: list[float] = []

    def evaluate() -> Tensor:
        rematch = not seen or (every > 0 and len(seen) % every == 0)
        optimizer.zero_grad()
        total = energy(pixels, rematch=rematch)
        total.backward()
        pixels.grad.mul_(free)
        seen.append(total.item())
        return total

    optimizer.step(evaluate)
    with torch.no_grad():
        last = energy(pixels).item()
    return pixels.detach() if math.isfinite(last) and last <= seen[0] else start


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A turned and zoomed copy of an image.

    angle: in degrees.
    zoom: factor of both sides.
    """

    angle: float = 0.0
    zoom: float = 1.0

    def apply(self, image: Tensor, banned: Tensor) -> tuple[Tensor, Tensor]:
        """Return the copy and its banned pixels, (1, 3, h', w') and (1, 1, h', w').

        A pixel of the copy is banned if a banned pixel or one beyond the border contributes to it.

        image: (1, 3, h, w).
        banned: (1, 1, h, w), 1 = banned.
        """
        height, width = image.shape[-2:]
        size = (round(height * self.zoom), round(width * self.zoom))
        cosine, sine = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        turn = [[cosine, -sine * height / width, 0.0], [sine * width / height, cosine, 0.0]]
        points = F.affine_grid(image.new_tensor([turn]), [1, 1, *size], align_corners=False)
        copy = F.grid_sample(image, points, padding_mode="reflection", align_corners=False)
        usable = F.grid_sample(1 - banned, points, padding_mode="zeros", align_corners=False)
        return copy, (usable < 1 - 1e-3).to(image.dtype)


def variants(config: Config) -> list[Variant]:
    """Return all variants, the unchanged image first."""
    angles = (0.0, -config.source_angle, config.source_angle) if config.source_angle else (0.0,)
    zooms = (1.0, 1 / config.source_zoom, config.source_zoom) if config.source_zoom != 1 else (1.0,)
    return [Variant(angle=angle, zoom=zoom) for angle in angles for zoom in zooms]


def to_pixels(image: Tensor) -> Tensor:
    """Convert an image from [-1, 1] to [0, 256], as in the authors' code (not 255)."""
    return (image + 1) * 128


def from_pixels(pixels: Tensor) -> Tensor:
    """Convert pixels from [0, 256] to [-1, 1]."""
    return pixels / 128 - 1


def dilate(mask: Tensor, radius: int) -> Tensor:
    """Return 1 where a pixel of the mask is within `radius` rows and columns."""
    if not radius:
        return mask
    rows = F.max_pool2d(mask, (2 * radius + 1, 1), stride=1, padding=(radius, 0))
    return F.max_pool2d(rows, (1, 2 * radius + 1), stride=1, padding=(0, radius))


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(image, size, mode="bilinear", antialias=True)


def _cells(mask: Tensor, layer: str) -> Tensor:
    """Reduce a mask to the cells of a layer: 1 where any pixel of a cell's own block is 1."""
    return F.max_pool2d(mask, STRIDES[layer])
