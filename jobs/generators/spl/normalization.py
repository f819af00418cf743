"""Region normalisation: the hole and the known cells of a feature map are normalised separately.

Yu et al., "Region Normalization for Image Inpainting", AAAI 2020, in the form of SPL's code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jobs.recipe.precision import wide_dtype


def region_norm(features: Tensor, region: Tensor, eps: float = 1e-5) -> Tensor:
    """Normalise every place with the mean and the deviation of its region, per sample and channel.

    sum_r M_r (x - mu_r) / sqrt(var_r + eps / p_r), r = hole, known. mu_r and var_r (biased) are of that region alone,
    p_r is its share of the map. This is the closed form of the authors' two passes (fill the other region with mu_r,
    instance normalisation, the factor sqrt(p_r)).
    features: (N, C, H, W), any range.
    region: (N, 1, H, W), 1 = hole, one per sample; it gets no gradient. An empty region adds nothing.
    Returns (N, C, H, W). Statistics are in float32 at least, variances are sums of squares of centred values.
    """
    dtype = wide_dtype(features)
    with torch.autocast(features.device.type, enabled=False):
        hole = region.to(dtype)
        members = torch.cat((hole, 1 - hole), dim=1).flatten(2)  # (N, 2, P): sums over regions are products with it
        counts = members.sum(2).clamp_min(1)[:, None]  # (N, 1, 2), an empty region as one place
        places = members.shape[2]
        flat = features.to(dtype).flatten(2)  # (N, C, P)
        means = torch.bmm(flat, members.transpose(1, 2)) / counts  # (N, C, 2)
        centred = torch.baddbmm(flat, means, members, alpha=-1)
        variances = torch.bmm(centred.square(), members.transpose(1, 2)) / counts
        # eps is divided by p_r = counts / places: a hole of one colour has hardly any variance, and with eps alone a
        # small one would come out larger by orders of magnitude.
        scales = torch.rsqrt(variances + eps * places / counts)
        normalised = centred * torch.bmm(scales, members)
    return normalised.view_as(features).to(features.dtype)


class BasicRegionNorm(nn.Module):
    """RN-B: region normalisation with a separate scale for each region, for maps whose hole is known.

    region_bias: whether each region's beta is added there only, as in the paper of region normalisation. SPL's code
        adds both betas everywhere, so that only their sum matters.
    forward(features, mask):
        features: (N, channels, h, w), any range.
        mask: (N, 1, H, W), 1 = hole; resized to (h, w) by taking the nearest pixel, which may lose a thin stroke.
    Returns (N, channels, h, w): RN(x) (1 + gamma of the place's region) + beta. All parameters start at 0.
    """

    def __init__(self, channels: int, *, region_bias: bool = False) -> None:
        super().__init__()
        self.region_bias = region_bias
        self.hole_gamma = nn.Parameter(torch.zeros(channels, 1, 1))
        self.hole_beta = nn.Parameter(torch.zeros(channels, 1, 1))
        self.known_gamma = nn.Parameter(torch.zeros(channels, 1, 1))
        self.known_beta = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        region = F.interpolate(mask, features.shape[-2:], mode="nearest")
        inside = region == 1
        normalised = region_norm(features, region) * (1 + torch.where(inside, self.hole_gamma, self.known_gamma))
        if self.region_bias:
            return normalised + torch.where(inside, self.hole_beta, self.known_beta)
        return normalised + self.hole_beta + self.known_beta


class LearnableRegionNorm(nn.Module):
    """RN-L: region normalisation that finds its regions itself, for maps without a mask.

    threshold: a place is in the region of the hole if q >= threshold.
    forward(features):
        features: (N, C, H, W), any range.
    Returns the same shape: RN(x) (1 + gamma(q)) + beta(q). q, (N, 1, H, W) in (0, 1), is the likeness of a place to a
    hole. gamma and beta have one value per place for all channels. No gradient flows through the comparison with the
    threshold; q learns through gamma and beta.
    With initial weights q is near 0.5 and the region is empty: then this is an instance normalisation.
    """

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold
        self.likeness = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.gamma = nn.Conv2d(1, 1, 7, padding=3)
        self.beta = nn.Conv2d(1, 1, 7, padding=3)

    def forward(self, features: Tensor) -> Tensor:
        q = torch.sigmoid(self.likeness(torch.cat((features.mean(1, True), features.amax(1, True)), dim=1)))
        region = (q.detach() >= self.threshold).to(features.dtype)
        return region_norm(features, region) * (1 + self.gamma(q)) + self.beta(q)
