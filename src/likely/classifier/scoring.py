"""Model outputs for batches of inputs: scores, log-likelihoods and the statistics that nonconformity is computed from."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from likely import models
from likely.base import GenerativeModel, ModelOutputs, Scorer, SupportsMissingPixels, to_eight_bit
from likely.exceptions import UnsupportedError
from likely.features.feature_extraction import FeaturePipeline, ModelInput
from likely.inference.posterior import log_posterior, log_uniform


def model_outputs(model: Scorer, batches: Iterable[ModelInput]) -> ModelOutputs:
    """Return the outputs for all images of some batches."""
    found = [_batch_outputs(model, batch) for batch in batches]
    return ModelOutputs.concatenate(found) if found else ModelOutputs.empty(model.task.n_classes)


def masked_outputs(model: SupportsMissingPixels, x: Tensor, observed: Tensor) -> ModelOutputs:
    """Run the model on the observed pixels of images x (B, C, H, W), where `observed` (B, H, W) is True.

    The only statistic is log p(x_observed | c) per observed dimension.
    """
    L = model.observed_log_likelihood(x, observed).cpu()
    n = observed.flatten(1).sum(1, keepdim=True).cpu() * x.shape[1]
    return ModelOutputs(L, L, (L / n.clamp_min(1))[:, :, None])


def supports_missing_pixels(model: Scorer, features: FeaturePipeline | None) -> SupportsMissingPixels:
    """Return the model as one that scores images with missing pixels; UnsupportedError if it cannot."""
    if features is not None:
        raise UnsupportedError("features are computed from whole images; a mask needs a model of pixels")
    if not isinstance(model, SupportsMissingPixels):
        able = models.families_with(SupportsMissingPixels)
        raise UnsupportedError(f"{type(model).__name__} needs the whole image; families that support a mask: {able}")
    return model


def complexity(pixels: Tensor) -> Tensor:
    """Return the bits per dimension of losslessly compressed images, uint8 (B, C, H, W) -> (B, 1) (Serrà 2020, section 3).

    Simple images have a high likelihood under any image model. Not differentiable.
    """
    bits = [8 * len(zlib.compress(image.tobytes(), level=6)) / image.size for image in pixels.cpu().numpy()]
    return torch.tensor(bits, dtype=torch.float32).reshape(-1, 1)


def _batch_outputs(model: Scorer, batch: ModelInput) -> ModelOutputs:
    found = _own_outputs(model, batch.x)
    both = [each for each in (found.features, batch.extra_features) if each is not None]
    return replace(found, features=torch.cat(both, 1)) if both else found


def _own_outputs(model: Scorer, x: Tensor) -> ModelOutputs:
    if isinstance(model, GenerativeModel):
        found = model.outputs(x).cpu()
        if found.features is None or x.ndim != 4:
            return found
        return replace(found, features=torch.cat([found.features.float(), complexity(to_eight_bit(x.detach()))], 1))
    # A softmax classifier detects unknown images by its posterior alone (Hendrycks 2017, the maximum softmax probability).
    scores = model.log_scores(x).cpu()
    return ModelOutputs(scores, None, log_posterior(scores, log_uniform(model.task.n_classes))[..., None])
