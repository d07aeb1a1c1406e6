"""From images to Answers: what all answers to one question have in common, and each image answered as if it were alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from likely.base import GenerativeModel
from likely.classifier.inputs import InputPipeline
from likely.data.image_dataset import ImageDataset
from likely.inference.decision import ConformalClassifier
from likely.inference.posterior import log_evidence
from likely.inference.predictions import LabelNames, predictions
from likely.prediction import Prediction


@dataclass(frozen=True)
class PredictionRequest:
    """What is asked of images, and who judges: of whole ones `judge`, of those that are seen in part `judge_of_part`.

    log p(x) is under the prior of the training, `log_prior_trained`; the posterior under `log_prior`, (K,) each.
    """

    input_pipeline: InputPipeline
    conformal: ConformalClassifier
    masked_conformal: ConformalClassifier
    log_prior_trained: Tensor
    log_prior: Tensor
    alpha: float
    label_names: LabelNames

    def predictions(self, start: int, block: ImageDataset, masks: Tensor | None) -> Iterator[Prediction]:
        """To some images, the first of which has the number `start`, in their order; by what `masks` shows of all images."""
        here = None if masks is None else masks[start : start + len(block)]
        whole = torch.ones(len(block), dtype=torch.bool) if here is None else here.flatten(1).all(1)
        found: list[Prediction | None] = [None] * len(block)
        for chosen in (np.flatnonzero(whole), np.flatnonzero(~whole)):
            if not len(chosen):
                continue
            some, is_whole = block.subset(chosen), bool(whole[chosen[0]])
            examined = self.input_pipeline.outputs(
                some, None if is_whole or here is None else here[torch.from_numpy(chosen)]
            )
            judgment = (self.conformal if is_whole else self.masked_conformal)(examined, self.log_prior, self.alpha)
            names = [some.name(i) for i in range(len(some))]
            bits = self._bits_per_dim(judgment.log_likelihood) if is_whole else None  # a part has fewer dimensions
            for i, answer in zip(chosen.tolist(), predictions(judgment, names, bits, self.label_names), strict=True):
                found[i] = answer
        return filter(None, found)

    def _bits_per_dim(self, L: Tensor | None) -> Tensor | None:
        """−log2 p(x) / D, (N,), where the model's likelihood is one of 8-bit pixels."""
        model = self.input_pipeline.model
        if L is None or not isinstance(model, GenerativeModel) or not model.likelihood_type.has_bits_per_dim:
            return None
        return -log_evidence(L, self.log_prior_trained) / (model.task.n_dims * math.log(2))
