"""Known unknown images: p-value of the hypothesis that an image is like given images of no known class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from likely.base import ModelOutputs


@dataclass(frozen=True)
class KnownUnknowns:
    """p-value u(x) = (1 + #{j : t_j ≥ t(x)}) / (m + 1) of m unknown images, by distances t to the nearest of them.

    t(x) is the distance of an image in the embedding of the model to the nearest of the unknown images, and t_j that of an
    unknown image to the nearest other one. The image score s becomes s(x) + log u(x), the negative logarithm of a ratio of
    p-values (integrative conformal p-values: Liang, Sesia & Sun 2022, section 2): an image that is like the unknown ones is
    more atypical. It is a fixed function of the image, so its rank among calibration images is valid whatever the unknown
    images are.

    `embedding` is (m, d), and `distance` (m,) holds t_j in ascending order.
    """

    embedding: Tensor
    distance: Tensor

    @classmethod
    def none(cls) -> KnownUnknowns:
        """Return the p-value of no images, 1."""
        return cls(torch.zeros(0, 0), torch.zeros(0))

    @classmethod
    def fit(cls, embedding: Tensor) -> KnownUnknowns:
        """Fit to the embeddings (m, d) of one or more unknown images."""
        distance = torch.cdist(embedding, embedding).fill_diagonal_(torch.inf)
        return cls(embedding, distance.amin(1).sort().values)

    def log_p_values(self, outputs: ModelOutputs) -> Tensor:
        """Return log u of N images from the outputs of the model, (N,) float64."""
        m = len(self.distance)
        if not m or outputs.latent is None:
            return torch.zeros(len(outputs.log_scores), dtype=torch.float64)
        nearest = torch.cdist(outputs.latent.float(), self.embedding).amin(1)
        n_at_least = m - torch.searchsorted(self.distance, nearest)
        return ((1 + n_at_least).double() / (m + 1)).log()
