"""likely explain: explain the classification of one image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from likely.cli.masks import TRANSPARENT, alpha_masks, decision_rule_for_mask, load_mask_file
from likely.cli.model_argument import ModelArgument, model_command
from likely.exceptions import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

    from likely.classifier import Predictor
    from likely.classifier.explanation import Explanation
    from likely.cli.masks import Mask
    from likely.inference.decision import DecisionRule
    from likely.reporting.images.image_layout import Pixels

N_NEAREST = 7  # training images of each class


@click.command()
@model_command
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--against", metavar="NAME", help="Class to compare with.  [default: the second most probable one]")
@click.option("--data", metavar="DATA", help="Where the training images are now.  [default: where they were]")
@click.option(
    "--mask",
    metavar="MASK|transparent",
    help="Impute the hidden pixels for every class: those that are not white in the image MASK, or the transparent ones.",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The image to write.")
@click.option("--overwrite", is_flag=True, help="Replace the file --out.")
def command(
    model: ModelArgument,
    image: Path,
    against: str | None,
    data: str | None,
    mask: str | None,
    out: Path,
    overwrite: bool,
) -> None:
    """Explain, in one picture, why MODEL assigns IMAGE to one class rather than another.

    \b
    - pixel attributions: which pixels favor which of the two classes;
    - a counterfactual: what would have to change for the other class;
    - the nearest training images of both classes.

    With --mask, it shows what the hidden pixels most likely are for every class.
    """
    from likely.data.preprocessing import write_image
    from likely.reporting.images.image_grid import TRANSPARENT_FORMATS, opaque

    if out.exists() and not overwrite:
        raise click.UsageError(f"{out} exists; --overwrite replaces it")
    classifier = model.classifier_of_images("explain")
    pixels = None
    if mask is not None:
        pixels = alpha_masks(classifier, [image])[0] if mask == TRANSPARENT else load_mask_file(classifier, Path(mask))
    if pixels is None or pixels.all():
        result, sentences = _explain(classifier, image, against, model.folder, data)
    elif against is not None:
        raise click.UsageError("--mask shows all classes; leave out --against")
    else:
        decision_rule = None if mask == TRANSPARENT else decision_rule_for_mask(classifier, pixels, model.folder, data)
        result, sentences = _impute(classifier, image, pixels, decision_rule)
    write_image(out, result if out.suffix.lower() in TRANSPARENT_FORMATS else opaque(result))
    for sentence in (*sentences, f"picture: {out}"):
        click.echo(sentence, err=True)


def _explain(
    classifier: Predictor, image: Path, against: str | None, folder: Path, data: str | None
) -> tuple[Image, list[str]]:
    """Return the picture of an explanation and a summary in sentences."""
    from likely.classifier.explanation import explain
    from likely.cli.console import console
    from likely.reporting.images.explanation import explanation_image

    with console.status("explaining"):
        found = explain(classifier, image, against=against)
    nearest = _nearest(classifier, found, folder, data)
    return explanation_image(found, classifier.labels, nearest), _sentences(classifier, image, found)


def _impute(
    classifier: Predictor, image: Path, mask: Mask, decision_rule: DecisionRule | None
) -> tuple[Image, list[str]]:
    """Return the picture of an image whose hidden pixels are imputed for every class, and a summary in sentences."""
    from likely.classifier.explanation import impute
    from likely.cli.console import console
    from likely.reporting.images.explanation import imputation_image

    with console.status("imputing"):
        found = impute(
            classifier, image, mask, temperature=None if decision_rule is None else decision_rule.temperature
        )
    names, p = classifier.labels, found.log_posterior.exp()
    best = [f"{names[c]} {p[c]:.3f}" for c in p.argsort(descending=True)[:2].tolist()]
    return imputation_image(found, names), [f"from {100 * mask.mean():.0f} % of the pixels: {', '.join(best)}"]


def _sentences(classifier: Predictor, image: Path, found: Explanation) -> list[str]:
    """Summarize the prediction and the counterfactual."""
    from likely.prediction import Status

    names = classifier.labels
    a, b = names[found.label], names[found.against]
    (prediction,) = classifier.classify([image])
    sentences = [f"{a} {found.probability(found.label):.3f}, {b} {found.probability(found.against):.3f}"]
    if prediction.status is Status.UNKNOWN:
        sentences.append(
            f"the image is unknown (p = {prediction.p_value:.2g}): the explanation only says why {a} is more probable than {b}"
        )
    if found.counterfactual_path is None:
        sentences.append(f"no counterfactual: {classifier.family!r} has no latent space that the classes share")
    elif found.counterfactual_path.flip is None:
        sentences.append(f"no image on the path to {b} is classified as {b}")
    return sentences


def _nearest(classifier: Predictor, found: Explanation, folder: Path, data: str | None) -> dict[int, Pixels]:
    """Return the nearest training images of both classes; none, with a warning, if DATA cannot be found."""
    from likely.classifier.explanation import nearest_images
    from likely.cli.progress import progress_bar
    from likely.evaluation.eval_split import training_images
    from likely.experiment import load_config

    try:
        with progress_bar("reading images") as progress:
            images = training_images(classifier, data or load_config(folder).data, progress)
    except DataError as error:
        if data is not None:
            raise
        click.echo(f"without training images: {error}; name their folder with --data", err=True)
        return {}
    classes = (found.label, found.against)
    nearest = {c: nearest_images(classifier, found.image, images, c, N_NEAREST) for c in classes}
    return {c: near.images.batch(range(len(near))).numpy() for c, near in nearest.items()}
