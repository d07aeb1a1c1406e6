"""Calibration data: values of labeled images to which a decision rule is fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from likely.base import ModelOutputs, concatenate
from likely.inference.image_score import candidates, named_distances
from likely.inference.known_unknowns import KnownUnknowns
from likely.inference.nonconformity import NonconformityScore, Statistics, StatisticsOfTrueClass
from likely.inference.posterior import entropy, log_posterior_uniform
from likely.inference.temperature_scaling import fit_temperature


@dataclass(frozen=True)
class CalibrationData:
    """Values of N labeled images under their true classes `labels` (N,), to which a DecisionRule is fitted.

    `statistics` (N, D) are the true-class statistics, `surprisal` (N,) = −log p(y | x) under a uniform prior in nats,
    `entropy` (N,) that of the posterior under a uniform prior. `distances` (N, n) are those of a model that computes them;
    else they are None, and `candidates` (N, m) are the most probable classes and `candidate_statistics`
    (N, m, n) the statistics under them. `log_unknown_p` (N,) is the logarithm of the p-value that an image is like known
    unknown images, 0 without any. `log_scores` (N, K) may be left out to save memory.
    """

    labels: Tensor
    statistics: Tensor
    surprisal: Tensor
    entropy: Tensor
    candidates: Tensor
    candidate_statistics: Tensor | None
    distances: Tensor | None
    log_unknown_p: Tensor
    log_scores: Tensor | None

    @classmethod
    def from_outputs(
        cls, outputs: ModelOutputs, labels: Tensor, temperature: float, known_unknowns: KnownUnknowns | None = None
    ) -> CalibrationData:
        """Compute the values from the outputs for labeled images."""
        scores = outputs.log_scores
        statistics, classes = Statistics.of(outputs), candidates(scores)
        none, index = torch.zeros(len(labels)), torch.arange(len(labels))[:, None]
        return cls(
            labels=labels,
            statistics=statistics.of_true_class(labels),
            surprisal=none,
            entropy=none,
            candidates=classes,
            candidate_statistics=statistics.by_class[index, classes] if outputs.distances is None else None,
            distances=outputs.distances,
            log_unknown_p=(known_unknowns or KnownUnknowns.none()).log_p_values(outputs),
            log_scores=scores,
        ).with_temperature(temperature)

    @classmethod
    def concatenate(cls, batches: Sequence[CalibrationData]) -> CalibrationData:
        """Concatenate one or more batches."""
        return cls(*(concatenate([getattr(batch, f.name) for batch in batches]) for f in fields(cls)))

    @property
    def labeled_statistics(self) -> StatisticsOfTrueClass:
        """Statistics and labels, to which a nonconformity score is fitted."""
        return self.statistics, self.labels

    @property
    def n_scores(self) -> int:
        """Number of entries of `log_scores`; 0 if they were left out."""
        return 0 if self.log_scores is None else self.log_scores.numel()

    def fit_temperature(self, log_prior: Tensor, prior_temperature: float = 1.0) -> float:
        """Fit the temperature to the scores, which must not have been left out."""
        assert self.log_scores is not None
        return fit_temperature(self.log_scores, self.labels, log_prior, prior_temperature)

    def with_temperature(self, temperature: float) -> CalibrationData:
        """Recompute surprisal and entropy for another temperature; the scores must not have been left out."""
        assert self.log_scores is not None
        posterior = log_posterior_uniform(self.log_scores, temperature)
        surprisal = -posterior.gather(1, self.labels[:, None])[:, 0]
        return replace(self, surprisal=surprisal, entropy=entropy(posterior))

    def without_scores(self) -> CalibrationData:
        """Leave out the scores, so that the size does not depend on the number of classes."""
        return replace(self, log_scores=None)

    def components(self, nonconformity: NonconformityScore) -> dict[str, Tensor]:
        """Return the components of the image score, (N,) each.

        The nonconformity score of a model with learned features contains the uncertainty between classes, to which the
        entropy would only add noise.
        """
        if self.distances is not None:
            return {"entropy": self.entropy} | named_distances(self.distances)
        assert self.candidate_statistics is not None
        features = self.statistics[:, : self.statistics.shape[1] - self.candidate_statistics.shape[2]]
        pairs = zip(self.candidate_statistics.unbind(1), self.candidates.unbind(1), strict=True)
        scores = [nonconformity.score_true_class(torch.cat([features, v], 1), c) for v, c in pairs]
        distance = named_distances(torch.stack(scores, 1).amin(1, keepdim=True))
        return distance if features.shape[1] else {"entropy": self.entropy} | distance
