"""likely explain: why an image is of one class rather than another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from likely.cli.masks import TRANSPARENT, conformal_for_mask, load_mask
from likely.cli.model_argument import ModelArgument, model_command
from likely.exceptions import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

    from likely.classifier import Predictor
    from likely.classifier.explanation import Explanation
    from likely.cli.masks import Mask
    from likely.inference.decision import ConformalClassifier
    from likely.reporting.images.image_layout import Pixels

N_ALIKE = 7  # training images of each class


@click.command()
@model_command
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--against", metavar="NAME", help="The other class; the second most probable one, if left out.")
@click.option("--data", metavar="DATA", help="Where the training images are now; where they were then, if left out.")
@click.option(
    "--mask",
    metavar="MASK|transparent",
    help="Show what each class would have where the image is hidden: but for the white pixels of the picture MASK, or where "
    "IMAGE is transparent.",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The picture, FILE.png.")
@click.option("--overwrite", is_flag=True, help="Replace the file that --out names.")
def command(
    model: ModelArgument,
    image: Path,
    against: str | None,
    data: str | None,
    mask: str | None,
    out: Path,
    overwrite: bool,
) -> None:
    """Show why MODEL takes IMAGE for one class rather than another, in a picture.

    \b
    - which pixels speak for which of the two classes;
    - what would have to change for it to be of the other class;
    - the training images of both classes that the model finds most alike.

    With --mask, what each class would most likely have behind the mask.
    """
    from likely.data.preprocessing import write_image
    from likely.reporting.images.image_grid import TRANSPARENT_FORMATS, opaque

    if out.exists() and not overwrite:
        raise click.UsageError(f"{out} exists; --overwrite replaces it")
    classifier = model.classifier_of_images("explain")
    pixels = None if mask is None else load_mask(classifier, mask, image)
    if pixels is None or pixels.all():
        drawn, said = _whole(classifier, image, against, model.folder, data)
    elif against is not None:
        raise click.UsageError("--mask shows all classes beside each other; leave --against out")
    else:
        judge = None if mask == TRANSPARENT else conformal_for_mask(classifier, pixels, model.folder, data)
        drawn, said = _part(classifier, image, pixels, judge)
    write_image(out, drawn if out.suffix.lower() in TRANSPARENT_FORMATS else opaque(drawn))
    for sentence in said:
        click.echo(sentence, err=True)
    click.echo(f"picture: {out}", err=True)


def _whole(
    classifier: Predictor, image: Path, against: str | None, folder: Path, data: str | None
) -> tuple[Image, list[str]]:
    """The picture of an explanation, and what it shows in words."""
    from likely.classifier.explanation import explain
    from likely.cli.console import console
    from likely.reporting.images.explanation import explanation_image

    with console.status("explaining"):
        found = explain(classifier, image, against=against)
    return explanation_image(found, classifier.labels, _alike(classifier, found, folder, data)), _sentences(
        classifier, image, found
    )


def _part(classifier: Predictor, image: Path, mask: Mask, judge: ConformalClassifier | None) -> tuple[Image, list[str]]:
    """The same of an image of which only a part is seen."""
    from likely.classifier.explanation import impute
    from likely.cli.console import console
    from likely.reporting.images.explanation import imputation_image

    with console.status("imagining"):
        found = impute(classifier, image, mask, temperature=None if judge is None else judge.temperature)
    names, p = classifier.labels, found.log_posterior.exp()
    best = [f"{names[c]} {p[c]:.3f}" for c in p.argsort(descending=True)[:2].tolist()]
    return imputation_image(found, names), [f"by {100 * mask.mean():.0f} % of its pixels: {', '.join(best)}"]


def _sentences(classifier: Predictor, image: Path, found: Explanation) -> list[str]:
    """The answer, and what the picture shows of it, in words."""
    from likely.prediction import Status

    names = classifier.labels
    a, b = names[found.label], names[found.against]
    (answer,) = classifier.classify([image])
    said = [f"{a} {found.probability(found.label):.3f}, {b} {found.probability(found.against):.3f}"]
    if answer.status is Status.UNKNOWN:
        said.append(
            f"none of the classes finds the image typical (p = {answer.p_value:.2g}); what follows is why {a} leads"
        )
    if found.counterfactual_path is None:
        said.append(f"{classifier.family!r} has no latent space of all classes, and so no way from {a} to {b} to show")
    elif found.counterfactual_path.flip is None:
        said.append(f"the way to {b} never comes to be one for the model")
    return said


def _alike(classifier: Predictor, found: Explanation, folder: Path, data: str | None) -> dict[int, Pixels]:
    """Training images of both classes, if they are still to be found; else a sentence says that they are not."""
    from likely.cli.progress import progress_bar
    from likely.evaluation.eval_split import training_images
    from likely.evaluation.nearest_neighbors import nearest_images
    from likely.experiment import load_config

    try:
        with progress_bar("reading images") as progress:
            part = training_images(classifier, data or load_config(folder).data, progress)
    except DataError as error:
        if data is not None:
            raise
        click.echo(f"without training images: {error}; --data names where they are now", err=True)
        return {}
    classes = (found.label, found.against)
    near = {c: nearest_images(classifier, found.image, part, c, N_ALIKE) for c in classes}
    return {c: part.images.batch(range(len(part))).numpy() for c, part in near.items()}
