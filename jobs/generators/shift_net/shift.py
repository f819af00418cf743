"""Shift-Net's shift-connection layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jobs.recipe.precision import wide_dtype


class Shift(nn.Module):
    """Copy to every hole cell the encoder's vector of the known cell that is most similar to the decoder's guess there.

    Yan et al., "Shift-Net: Image Inpainting via Deep Feature Rearrangement", ECCV 2018, shift operation:
    x*(y) = argmax over known x of <D_y, E_x> / (|D_y| |E_x|), S_y = E_{x*(y)} at hole cells y and 0 at known ones.
    The layer has no parameters.

    forward(decoded, encoded, hole):
        decoded: D, (N, C, h, w), any range.
        encoded: E, (N, C, h, w), any range.
        hole: (N, 1, h, w), 0 or 1, one mask per sample.
    Returns S, (N, C, h, w). It is 0 everywhere in a sample without any known cell.
    S = P E with a matrix P of zeros and ones that is constant almost everywhere. So E gets the gradient P^T g, and D
    gets none.
    """

    def forward(self, decoded: Tensor, encoded: Tensor, hole: Tensor) -> Tensor:
        sources = encoded.flatten(2)  # (N, C, P)
        matches = self.matches(decoded, encoded, hole)
        shifted = sources.gather(2, matches[:, None].expand_as(sources)).view_as(encoded)
        has_known = (hole == 0).flatten(1).any(dim=1).view(-1, 1, 1, 1)
        return torch.where((hole > 0) & has_known, shifted, 0)

    @torch.no_grad()
    def matches(self, decoded: Tensor, encoded: Tensor, hole: Tensor) -> Tensor:
        """Return x*(y) of every cell y: int64 (N, h * w), row-major; meaningless in a sample without a known cell.

        decoded, encoded, hole: as in `forward`.
        Of equal similarities the first wins. They are computed in float32 at least.
        """
        # In half precision many similarities would be equal, and the first would win instead of the best.
        dtype = wide_dtype(decoded)
        with torch.autocast(decoded.device.type, enabled=False):
            queries, sources = decoded.flatten(2).to(dtype), encoded.flatten(2).to(dtype)  # (N, C, P)
            # |D_y| does not change the argmax. Without 1e-8, a vector of zeros, possible after a ReLU, would give NaN.
            sources = sources / (torch.linalg.vector_norm(sources, dim=1, keepdim=True) + 1e-8)
            similarity = torch.bmm(queries.transpose(1, 2), sources)  # (N, P of y, P of x)
        return similarity.masked_fill(hole.flatten(2) > 0, -torch.inf).argmax(dim=2)
