"""Vector quantization: a convolutional tokenizer with finite scalar quantization, trained as an autoencoder."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from likely.base import Domain, Task
from likely.networks.blocks import PyramidOptions, make_decoder, make_encoder
from likely.networks.likelihoods import class_cross_entropy
from likely.networks.masked_encoder import MaskedEncoderOptions, random_masks
from likely.networks.tokenizer import Tokenizer, straight_through
from likely.options import Options

MASKS = MaskedEncoderOptions()
MIN_ERROR = 1e-5  # mean squared error below which a reconstruction counts as perfect


class QuantizerOptions(Options):
    """Options of the tokenizer with finite scalar quantization."""

    grid: int = Field(4, ge=1, description="Maximum side of the grid of tokens.")
    code_levels: int = Field(5, ge=2, description="Levels of each coordinate of a code.")
    code_dims: int = Field(3, ge=1, description="Coordinates of a code: there are code_levels ^ code_dims codes.")
    width: int = Field(32, ge=4, description="Channels of the tokenizer's first convolution.")
    depth: int = Field(1, ge=0, description="Residual blocks of the tokenizer at the lowest resolution.")
    class_weight: float = Field(1.0, ge=0, description="Weight of the cross-entropy on the quantized grid.")
    masked_fraction: float = Field(0.25, ge=0, le=1, description="Fraction of masked training images.")


class FiniteScalarQuantizer(nn.Module):
    """u = (n − 1)(1 + tanh z) / 2 rounded, per coordinate: n^d codes without a codebook (Mentzer 2024, section 3)."""

    code_vectors: Tensor

    def __init__(self, n_levels: int, n_dims: int) -> None:
        super().__init__()
        self.n_levels = n_levels
        levels = torch.linspace(-1, 1, n_levels)
        self.powers: Tensor
        self.register_buffer(
            "code_vectors", torch.cartesian_prod(*[levels] * n_dims).reshape(-1, n_dims), persistent=False
        )
        self.register_buffer("powers", n_levels ** torch.arange(n_dims).flip(0), persistent=False)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Quantize (..., d): codes (...), and vectors in [-1, 1] with the gradient of tanh (..., d)."""
        bounded = z.float().tanh()
        digits = ((self.n_levels - 1) * (1 + bounded.detach()) / 2).round()
        vectors = 2 * digits / (self.n_levels - 1) - 1
        return (digits.long() * self.powers).sum(-1), straight_through(vectors, bounded)


class QuantizingTokenizer(Tokenizer):
    """s = FSQ(normalize(encoder(x))): a small grid of integers (van den Oord 2017, VQ-VAE, with Mentzer 2024's quantizer).

    Trained on ½ log MSE of the reconstruction (Rybkin 2021, σ-VAE, eq. 8) plus the weighted cross-entropy of a classifier of
    the quantized grid. The encoder sees a mask beside the image; a token counts as observed if at least half of its cell is.
    """

    def __init__(self, task: Task, options: QuantizerOptions) -> None:
        super().__init__(task.shape)
        self.options, self.is_image = options, task.domain is Domain.PIXELS8
        pyramid = PyramidOptions(min_map_side=options.grid, max_width_factor=2)
        shape = (task.shape[0] + 1, *task.shape[1:]) if self.is_image else task.shape
        self.encoder = make_encoder(shape, width=options.width, depth=options.depth, pyramid=pyramid)
        n_maps, *sides = self.encoder.map_shape
        cell = 1 if self.is_image else options.grid
        self.grid_shape = tuple(side * cell for side in sides)
        self.to_grid = nn.Sequential(
            nn.Unflatten(1, self.encoder.map_shape),
            nn.ConvTranspose2d(n_maps, options.code_dims, cell),
            nn.BatchNorm2d(options.code_dims),
        )
        self.quantizer = FiniteScalarQuantizer(options.code_levels, options.code_dims)
        n = self.n_tokens * options.code_dims
        self.decoder = make_decoder(n, task.shape, width=max(4, options.width // 2), depth=0, pyramid=pyramid)
        head = (nn.Linear(n, 4 * options.width), nn.SiLU(), nn.Linear(4 * options.width, task.n_classes))
        self.to_class = nn.Sequential(*head) if options.class_weight else None

    @property
    def code_vectors(self) -> Tensor:  # type: ignore[override]
        return self.quantizer.code_vectors

    def quantize(self, x: Tensor, observed: Tensor | None = None) -> tuple[Tensor, Tensor]:
        grid = self.to_grid(self.encoder(self._input(x, observed)))
        codes, vectors = self.quantizer(grid.flatten(2).mT)
        return codes, vectors

    def decode(self, codes: Tensor) -> Tensor:
        x = self._decode_vectors(self.code_vectors[codes])
        return x.clamp(0, 1) if self.is_image else x

    def observed_tokens(self, observed: Tensor) -> Tensor:
        h, w = self.grid_shape
        return F.adaptive_avg_pool2d(observed[:, None].float(), (h, w)).flatten(1) >= 0.5

    def spread(self, values: Tensor) -> Tensor:
        if not self.is_image:
            return (values.sum(-1, keepdim=True) / self.shape[0]).expand(*values.shape[:-1], *self.shape)
        channels, *sides = self.shape
        rows, columns = (_cells(n, side, values) for n, side in zip(self.grid_shape, sides, strict=True))
        cells = values.reshape(*values.shape[:-1], 1, *self.grid_shape)
        return (rows.mT @ cells @ columns / channels).expand(*values.shape[:-1], *self.shape)

    def features(self, x: Tensor) -> Tensor:
        """Return a summary of the encoder's activations, and the reconstruction error in the cells of a 4 x 4 grid."""
        _, activations = self.encoder.forward_with_activations(self._input(x, None))
        error = (self._decode_vectors(self.quantize(x)[1]) - x).square().mean(1, keepdim=True)
        regions = F.adaptive_avg_pool2d(error, 4).flatten(1) if self.is_image else error
        return torch.cat([activations, (regions + MIN_ERROR).log()], 1)

    def loss(self, x: Tensor, y: Tensor, rng: Generator) -> Tensor:
        """Return ½ log MSE of the observed pixels + weight · cross-entropy, with random masks on the first images."""
        observed = self.random_masks(x, rng)
        _, vectors = self.quantize(x, observed)
        weight = torch.ones_like(x[:, :1]) if observed is None else observed[:, None].to(x.dtype)
        error = (self._decode_vectors(vectors) - x).square()
        loss = 0.5 * ((weight * error).sum() / (weight.expand_as(error).sum() + 1) + MIN_ERROR).log()
        if self.to_class is None:
            return loss
        return loss + self.options.class_weight * class_cross_entropy(
            self.to_class(vectors.flatten(1)).float(), y, smoothing=0
        )

    def random_masks(self, x: Tensor, rng: Generator) -> Tensor | None:
        """Sample masks (B, H, W) bool, True if observed, that leave all but the first images whole; None for vectors."""
        n = round(self.options.masked_fraction * len(x)) if self.is_image else 0
        if not n:
            return None
        observed = random_masks(x, MASKS, rng)
        observed[n:] = True
        return observed

    def _input(self, x: Tensor, observed: Tensor | None) -> Tensor:
        """Append the mask to images, with hidden pixels in mid-gray."""
        if not self.is_image:
            return x
        mask = torch.ones_like(x[:, :1]) if observed is None else observed[:, None].to(x.dtype)
        return torch.cat([torch.where(mask > 0, x, 0.5), mask], 1)

    def _decode_vectors(self, vectors: Tensor) -> Tensor:
        x: Tensor = self.decoder(vectors.flatten(1)).float()
        return x + 0.5 if self.is_image else x


def _cells(n: int, side: int, like: Tensor) -> Tensor:
    """Return the matrix (n, side) that spreads a value per cell evenly over the pixels of a side."""
    cell = torch.arange(side, device=like.device) * n // side
    inside = (cell == torch.arange(n, device=like.device)[:, None]).to(like.dtype)
    return inside / inside.sum(1, keepdim=True)
