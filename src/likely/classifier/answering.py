"""From images to Answers: what all answers to one question have in common, and each image answered as if it were alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from likely.answer import Answer
from likely.classifier.sight import Sight
from likely.contract import GenerativeModel
from likely.data.collection import Images
from likely.inference.answers import Naming, answers
from likely.inference.judgement import Judge
from likely.inference.posterior import log_evidence


@dataclass(frozen=True)
class Question:
    """What is asked of images, and who judges: of whole ones `judge`, of those that are seen in part `judge_of_part`.

    log p(x) is under the prior of the training, `log_prior_trained`; the posterior under `log_prior`, (K,) each.
    """

    sight: Sight
    judge: Judge
    judge_of_part: Judge
    log_prior_trained: Tensor
    log_prior: Tensor
    alpha: float
    naming: Naming

    def answers(self, start: int, block: Images, masks: Tensor | None) -> Iterator[Answer]:
        """To some images, the first of which has the number `start`, in their order; by what `masks` shows of all images."""
        here = None if masks is None else masks[start : start + len(block)]
        whole = torch.ones(len(block), dtype=torch.bool) if here is None else here.flatten(1).all(1)
        found: list[Answer | None] = [None] * len(block)
        for chosen in (np.flatnonzero(whole), np.flatnonzero(~whole)):
            if not len(chosen):
                continue
            some, is_whole = block.subset(chosen), bool(whole[chosen[0]])
            examined = self.sight.examine(some, None if is_whole or here is None else here[torch.from_numpy(chosen)])
            judgement = (self.judge if is_whole else self.judge_of_part)(examined, self.log_prior, self.alpha)
            names = [some.name(i) for i in range(len(some))]
            bits = self._bits_per_dim(judgement.log_likelihood) if is_whole else None  # a part has fewer dimensions
            for i, answer in zip(chosen.tolist(), answers(judgement, names, bits, self.naming), strict=True):
                found[i] = answer
        return filter(None, found)

    def _bits_per_dim(self, L: Tensor | None) -> Tensor | None:
        """−log2 p(x) / D, (N,), where the model's likelihood is one of 8-bit pixels."""
        model = self.sight.model
        if L is None or not isinstance(model, GenerativeModel) or not model.evidence.has_bits_per_dim:
            return None
        return -log_evidence(L, self.log_prior_trained) / (model.task.n_dims * math.log(2))
