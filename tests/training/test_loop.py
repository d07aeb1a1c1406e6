"""The loop: its length, its Steps, its way back from a bad loss, and a resumption that leaves no trace."""

import dataclasses
import json
import math
from dataclasses import replace

import pytest
import torch
from tiny_trainings import ROUGH, Store, Weights, feed, state, vae
from torch.testing import assert_close

from likely.base import Task
from likely.exceptions import DivergenceError
from likely.models.gaussian import Gaussian, GaussianOptions
from likely.training.loop import fit, fit_closed_form
from likely.training.optimizers import SCHEDULES

N = 13  # images: three batches an epoch, the last with the one left over


def run(training, n=N, **options):
    return list(fit(training, feed(n), **options))


def at_loss(*numbers):
    """A spoiler that makes the given losses, counted from 1, what `of` says; by default not a number."""

    def spoil(loss, weight, n, of=lambda loss: loss * math.nan):
        return of(loss) if n in numbers else loss

    return spoil


# --- lengths and Steps ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epochs", [1, 4])
def test_training_lasts_for_the_epochs(epochs):
    steps = run(state(Weights(), epochs=epochs))
    assert [step.number for step in steps] == list(range(1, 3 * epochs + 1))
    assert [step.epoch for step in steps] == [i // 3 for i in range(3 * epochs)]
    assert [step.ends_epoch for step in steps] == [False, False, True] * epochs
    assert [step.n_images for step in steps] == [4, 4, 5] * epochs
    assert [step.fraction for step in steps] == [i / (3 * epochs) for i in range(1, 3 * epochs + 1)]


def test_training_lasts_for_the_minutes():
    minutes = 0.2 / 60
    steps = run(state(Weights(), epochs=None, minutes=minutes))
    assert steps[-1].fraction == 1
    assert steps[-1].ends_epoch  # in the middle of one, perhaps: there will be no other moment to validate
    assert steps[-1].elapsed >= 60 * minutes
    assert all(step.fraction < 1 for step in steps[:-1])
    assert len(steps) > 3
    assert [step.fraction for step in steps[:-1]] == pytest.approx([s.elapsed / 60 / minutes for s in steps[:-1]])


def test_minutes_include_an_interrupted_run():
    training = state(Weights(), epochs=None, minutes=1)
    training.progress.elapsed = 59.999
    steps = run(training)
    assert steps[-1].elapsed >= 60
    assert len(steps) < 1000


def test_finished_training_takes_no_step():
    training = state(Weights())
    run(training)
    assert run(training) == []


def test_model_without_objectives_takes_no_step():
    assert run(state(Gaussian(Task((1, 8, 8), (6, 7)), GaussianOptions()))) == []


def test_step_reports_progress():
    training = state(Weights())
    steps = run(training)
    for step in steps:
        assert step.losses.keys() == {"weight0"}
        assert step.note is None
        assert step.validation == {}
    assert steps == sorted(steps, key=lambda step: step.elapsed)
    assert training.progress.lowest["weight0"] == min(step.losses["weight0"] for step in steps)
    assert training.progress.first["weight0"] == steps[0].losses["weight0"]


@pytest.mark.parametrize("name", SCHEDULES)
def test_learning_rate_follows_the_schedule(name):
    steps = run(state(Weights(), schedule=name, learning_rate=0.5))
    rates = [0.5 * SCHEDULES[name](i / len(steps)) for i in range(len(steps))]
    assert [step.learning_rate for step in steps] == pytest.approx(rates)


def test_stopping_leaves_the_state_at_the_last_step():
    training = state(Weights())
    for step in fit(training, feed(N)):
        if step.number == 4:
            break
    assert (training.progress.step, training.progress.epoch, training.progress.position) == (4, 1, 1)


def test_loss_falls_and_the_average_follows():
    training = state(vae(), epochs=20, learning_rate=0.01)
    steps = run(training)
    losses = [step.losses["bound"] for step in steps]
    assert sum(losses[-6:]) < sum(losses[:6])
    x, y = next(iter(feed(N)(0, 0)))
    assert not torch.equal(training.ema_model.component_mean, training.model.component_mean)
    with torch.no_grad():
        L = [model.eval().log_likelihood(x).gather(1, y[:, None]).mean() for model in (vae(), training.ema_model)]
    assert L[1] > L[0]


def test_training_in_bfloat16():
    steps = run(state(vae(), epochs=1), dtype=torch.bfloat16)
    assert all(math.isfinite(step.losses["bound"]) for step in steps)


def test_unlabeled_images_are_trained_on():
    batches = feed(N)
    batches.labels = torch.full_like(batches.labels, -1)
    assert len(list(fit(state(vae(), epochs=1), batches))) == 3


def test_closed_form_fit_sees_every_image_once():
    store = Store(N, (5,))
    batches = feed(N, shape=(5,))
    model = Gaussian(Task((5,), (7, 6)), GaussianOptions(shrinkage=0.1))
    assert list(fit_closed_form(model, batches)) == [None]
    assert_close(model.mean[0], store.x[::2].double().mean(0))
    assert_close(model.mean[1], store.x[1::2].double().mean(0))


# --- gradients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_gradient_is_clipped_to_the_maximum_norm(size):
    """The first step of SGD with Nesterov's momentum of 0.9 is 1.9 times the gradient."""
    training = state(
        Weights(lambda loss, weight, n: size * weight),
        optimizer="sgd",
        schedule="constant",
        learning_rate=0.1,
        max_grad_norm=0.5,
    )
    before = training.model.weights[0].item()
    next(fit(training, feed(N)))
    moved = before - training.model.weights[0].item()
    assert moved == pytest.approx(1.9 * 0.1 * min(size, 0.5), rel=1e-2, abs=1e-6)


def test_gradient_clipping_uses_the_total_norm():
    training = state(vae(), optimizer="sgd", schedule="constant", learning_rate=0.1, max_grad_norm=1e-3, weight_decay=0)
    before = [parameter.detach().clone() for parameter in training.model.parameters()]
    next(fit(training, feed(N)))
    moved = torch.cat([(p - b).flatten() for p, b in zip(training.model.parameters(), before, strict=True)])
    assert moved.norm().item() == pytest.approx(1.9 * 0.1 * 1e-3, rel=1e-2)


def test_gradients_are_cleared_after_each_step():
    training = state(vae(), epochs=1)
    run(training)
    assert all(parameter.grad is None for parameter in training.model.parameters())


# --- several objectives ---------------------------------------------------------------------------------------------


def test_objective_is_updated_at_its_interval():
    training = state(Weights(every=(1, 3)))
    before = [weight.item() for weight in training.model.weights]
    for step in fit(training, feed(N)):
        is_due = (step.number - 1) % 3 == 0
        assert step.losses.keys() == ({"weight0", "weight1"} if is_due else {"weight0"})
        now = [weight.item() for weight in training.model.weights]
        assert now[0] != before[0]
        assert (now[1] != before[1]) == is_due
        before = now


def test_objective_uses_its_lr_ratio():
    class Uneven(Weights):
        def objectives(self):
            first, second = super().objectives()
            return first, dataclasses.replace(second, lr_ratio=0.25)

    training = state(Uneven(every=(1, 1)), epochs=1, learning_rate=0.5, schedule="constant")
    next(fit(training, feed(8)))
    assert [each.param_groups[0]["lr"] for each in training.optimizers] == [0.5, 0.125]


def test_losses_have_separate_reproducible_generators():
    one, other = Weights(every=(1, 1)), Weights(every=(1, 1))
    run(state(one))
    run(state(other))
    assert one.noise == other.noise
    assert len(set(one.noise)) == len(one.noise) == 18
    another_seed = Weights(every=(1, 1))
    run(state(another_seed, seed=1))
    assert set(one.noise).isdisjoint(another_seed.noise)


# --- the way back ---------------------------------------------------------------------------------------------------


def infinite(loss):
    return loss + math.inf


def exploded(loss):
    return loss + 1e6


def not_a_number(loss):
    return loss * math.nan


def without_a_slope(loss):
    """Finite, but its gradient is 0 · ∞."""
    return loss + (loss - loss.detach()).square().sqrt()


BAD = [infinite, exploded, not_a_number, without_a_slope]


@pytest.mark.parametrize("bad", BAD)
def test_divergence_rolls_back_to_the_snapshot_at_half_the_rate(bad):
    model = Weights(lambda loss, weight, n: bad(loss) if n == 5 else loss)
    training = state(model, schedule="constant", learning_rate=0.1)
    steps, weights = [], []
    for step in fit(training, feed(N)):
        steps.append(step)
        weights.append(training.model.weights[0].item())
    assert [step.number for step in steps] == [1, 2, 3, 4, 3, 4, 5, 6, 7, 8, 9]
    assert weights[4] == weights[2]
    assert [step.learning_rate for step in steps] == pytest.approx([0.1] * 5 + [0.05] * 6)
    noted = steps[4]
    assert noted.n_images == 0
    assert not noted.ends_epoch
    assert [step for step in steps if step.note] == [noted]
    for words in ("weight0", "epoch 2, step 5", "back to step 3", "learning rate halved"):
        assert words in noted.note
    assert training.progress.rollbacks == 1


def test_rollback_restores_moments_average_and_counters():
    clean, spoiled = state(vae()), state(vae())
    run(clean)
    objective = spoiled.objectives[0].loss
    losses = []

    def once_bad(x, y, rng):
        losses.append(objective(x, y, rng))
        return losses[-1] * math.nan if len(losses) == 6 else losses[-1]

    object.__setattr__(spoiled.objectives[0], "loss", once_bad)
    for step in fit(spoiled, feed(N)):
        if step.note:
            spoiled.progress.rate_scale = 1.0  # as if nothing had happened
    one, other = clean.snapshot()[0], spoiled.snapshot()[0]
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_moderate_rise_of_the_loss_is_tolerated():
    rising = Weights(lambda loss, weight, n: loss + n)
    assert all(step.note is None for step in run(state(rising)))


def test_unbounded_loss_may_rise_but_must_be_finite():
    model = Weights(lambda loss, weight, n: loss + 1e4 * n if n != 5 else loss * math.nan)
    model.objectives = lambda: tuple(replace(objective, bounded=False) for objective in Weights.objectives(model))
    assert [step.number for step in run(state(model)) if step.note] == [3]


@pytest.mark.parametrize("bad", BAD)
def test_fourth_divergence_raises(bad):
    model = Weights(lambda loss, weight, n: bad(loss) if n > 4 else loss)
    training = state(model, schedule="constant", learning_rate=0.1)
    steps = fit(training, feed(N))
    notes = [next(steps).note for _ in range(4 + 3)]
    assert sum(note is not None for note in notes) == 3
    with pytest.raises(DivergenceError, match="weight0"):
        next(steps)
    assert training.progress.rollbacks == 3
    assert training.progress.rate_scale == 1 / 8


def test_rollbacks_are_counted_over_the_whole_training():
    model = Weights(at_loss(2, 6, 10))
    training = state(model, epochs=6)
    run(training)
    assert training.progress.rollbacks == 3
    assert training.progress.rate_scale == 1 / 8


@pytest.mark.parametrize("ruin", [{2: -1e4, 3: 1e6}, {2: 1e6, 3: -1e4, 4: 1e6}], ids=["once", "twice"])
def test_rollback_restores_the_lowest_loss(ruin):
    """A loss that plunges on its way to ruin is no measure for the losses after, however often it leads to one place."""
    model = Weights(lambda loss, weight, n: loss + ruin.get(n, 0.0))
    steps = run(state(model))
    assert [step.number for step in steps if step.note] == [1] * sum(added > 0 for added in ruin.values())


def test_long_epoch_has_intermediate_snapshots():
    n = 2 * 200 + 100
    model = Weights(at_loss(200 + 10))
    training = state(model, epochs=1)
    steps = list(fit(training, feed(n, batch_size=2)))
    assert [step.number for step in steps if step.note] == [200]
    assert steps[-1].number == n // 2


# --- resumption -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_resumed_training_ends_identically(optimizer):
    batches = feed(N, augment=ROUGH)

    def fresh():
        return state(vae(), optimizer=optimizer)

    training = fresh()
    snapshots, losses = [training.snapshot()], []
    for step in fit(training, batches):
        if step.ends_epoch:
            training.update_best(step.losses["bound"])
        losses.append(step.losses["bound"])
        snapshots.append(training.snapshot())
    expected, _ = snapshots[-1]
    for i, (tensors, document) in enumerate(snapshots[:-1]):
        resumed = fresh()
        resumed.restore(tensors, json.loads(json.dumps(document)))
        rest = []
        for step in fit(resumed, batches):
            if step.ends_epoch:
                resumed.update_best(step.losses["bound"])
            rest.append(step.losses["bound"])
        assert rest == losses[i:]
        tensors, _ = resumed.snapshot()
        assert tensors.keys() == expected.keys()
        for name in expected:
            assert torch.equal(tensors[name], expected[name]), name


@pytest.mark.parametrize("bad", [2, 4, 6, 10])
def test_resumed_training_rolls_back_identically(bad):
    def ruined_once():
        training = state(Weights(), epochs=4)

        def spoil(loss, weight, n):
            return loss * math.nan if (training.progress.step, training.progress.rollbacks) == (bad, 0) else loss

        training.model.spoil = spoil
        return training

    training, points = ruined_once(), []
    for _ in fit(training, feed(N)):
        if training.is_snapshot_point and not training.progress.rollbacks:
            points.append(training.snapshot())
    resumed = ruined_once()
    resumed.restore(*points[-1])
    run(resumed)
    (one, document), (other, document_other) = training.snapshot(), resumed.snapshot()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert document["progress"]["rollbacks"] == 1
    assert document["progress"] | {"elapsed": 0} == document_other["progress"] | {"elapsed": 0}


def test_resumed_training_keeps_objective_intervals():
    whole, first, second = (Weights(every=(1, 2)) for _ in range(3))
    run(state(whole))
    training = state(first)
    for step in fit(training, feed(N)):
        if step.number == 4:
            break
    resumed = state(second)
    resumed.restore(*training.snapshot())
    run(resumed)
    assert first.noise + second.noise == whole.noise
    assert [w.item() for w in second.weights] == [w.item() for w in whole.weights]


def test_resumed_training_keeps_the_reduced_rate():
    training = state(Weights(at_loss(2)), schedule="constant", learning_rate=0.1)
    run(training)
    resumed = state(Weights(), epochs=6, schedule="constant", learning_rate=0.1)
    resumed.restore(*training.snapshot())
    assert {step.learning_rate for step in run(resumed)} == {0.05}


# --- phases ---------------------------------------------------------------------------------------------------------


def in_two_phases(training):
    first, second = training.objectives
    training.objectives = (replace(first, span=(0.0, 0.5)), replace(second, span=(0.5, 1.0)))
    return training


def test_objectives_are_active_in_their_span_with_the_whole_schedule():
    training = in_two_phases(state(Weights(every=(1, 1)), epochs=4, schedule="cosine"))
    steps = run(training)
    assert [list(step.losses) for step in steps] == [["weight0"]] * 6 + [["weight1"]] * 6
    rates = [step.learning_rate for step in steps]
    assert rates[:6] == pytest.approx(rates[6:])
    assert rates == pytest.approx([training.options.learning_rate * SCHEDULES["cosine"](i / 6) for i in range(6)] * 2)


def test_next_phase_continues_from_the_averages_and_leaves_them():
    training = in_two_phases(state(Weights(every=(1, 1)), epochs=4))
    averaged = None
    for step in fit(training, feed(N)):
        assert training.is_last_phase == (step.number > 6)
        if step.number == 6:
            averaged = training.ema_model.weights[0].clone()
            assert not torch.equal(averaged, training.model.weights[0])
        if step.number > 6:
            assert torch.equal(training.model.weights[0], averaged)
            assert torch.equal(training.ema_model.weights[0], averaged)


@pytest.mark.parametrize("at", [5, 6, 7])
def test_resumed_training_in_phases_ends_identically(at):
    whole, half, resumed = (in_two_phases(state(Weights(every=(1, 1)), epochs=4)) for _ in range(3))
    run(whole)
    for step in fit(half, feed(N)):
        if step.number == at:
            break
    resumed.restore(*half.snapshot())
    run(resumed)
    for a, b in zip(whole.ema_model.weights, resumed.ema_model.weights, strict=True):
        assert torch.equal(a, b)


def test_l1_penalty_shrinks_matrices():
    plain, penalized = (state(vae(), epochs=4, l1_weight=weight) for weight in (0.0, 0.1))
    sizes = []
    for training in (plain, penalized):
        run(training)
        sizes.append(sum(p.abs().sum() for p in training.model.parameters() if p.ndim > 1))
    assert sizes[1] < 0.9 * sizes[0]
