"""Training options and their defaults."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from likely.training.options import AugmentOptions, TrainingOptions

numbers_of_images = st.integers(1, 10**7)


def test_epochs_and_minutes_together_are_rejected():
    with pytest.raises(ValidationError, match=r"epochs \(3\) and minutes \(0\.5\) are alternatives"):
        TrainingOptions(epochs=3, minutes=0.5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"minutes": 0},
        {"batch_size": 1},
        {"learning_rate": 0},
        {"ema": 1},
        {"device": "tpu"},
        {"precision": "float16"},
        {"schedule": "linear"},
        {"epoch": 3},
        {"augment": {"shift": 0.6}},
        {"augment": {"blur": 1}},
    ],
    ids=str,
)
def test_invalid_option_is_named(wrong):
    with pytest.raises(ValidationError) as refusal:
        TrainingOptions(**wrong)
    assert next(iter(wrong)) in str(refusal.value)


@given(numbers_of_images)
def test_resolve_fills_in_defaults(n_images):
    options = TrainingOptions().resolve(n_images)
    assert options.batch_size in {16, 32, 64, 128, 256}
    assert 5 <= options.epochs <= 200
    if 16 < options.batch_size < 256:
        assert 1 / 2 <= n_images / 32 / options.batch_size <= 1
    if 5 < options.epochs < 200:
        assert 4000 * (1 - 1 / options.epochs) - 1 <= options.epochs * n_images / options.batch_size <= 4000


@given(numbers_of_images)
def test_resolve_is_idempotent(n_images):
    options = TrainingOptions().resolve(n_images)
    assert options.resolve(n_images) == options
    assert options.resolve(n_images // 2 + 1) == options


@given(numbers_of_images, numbers_of_images)
def test_resolve_is_monotonic_in_the_number_of_images(one, other):
    few, many = (TrainingOptions().resolve(n) for n in sorted((one, other)))
    assert few.batch_size <= many.batch_size
    assert few.batch_size < many.batch_size or few.epochs >= many.epochs


def test_resolve_keeps_explicit_options():
    options = TrainingOptions(epochs=7, batch_size=3).resolve(10_000)
    assert (options.epochs, options.batch_size) == (7, 3)
    by_minutes = TrainingOptions(minutes=2).resolve(10_000)
    assert by_minutes.epochs is None
    assert by_minutes.minutes == 2


def test_options_are_frozen_and_survive_json():
    options = TrainingOptions(augment=AugmentOptions(flip=True), minutes=1.5)
    with pytest.raises(ValidationError):
        options.epochs = 3
    assert TrainingOptions.model_validate_json(options.model_dump_json()) == options


def test_every_option_is_described():
    for kind in (TrainingOptions, AugmentOptions):
        assert all(field.description for field in kind.model_fields.values())


def test_explicit_options_override_family_defaults():
    better = {"learning_rate": 1e-4, "momentum": 0.5}
    found = TrainingOptions(learning_rate=4e-3, augment=AugmentOptions(flip=True)).with_defaults(better)
    assert (found.learning_rate, found.momentum) == (4e-3, 0.5)
    assert found.augment.flip
    assert found.schedule == TrainingOptions().schedule


def test_family_defaults_survive_a_round_trip():
    found = TrainingOptions(epochs=3).with_defaults({"momentum": 0.5})
    stored = TrainingOptions.model_validate(found.model_dump())
    assert stored.with_defaults({"momentum": 0.1}) == found
