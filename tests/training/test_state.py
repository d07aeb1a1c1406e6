"""Training state: snapshots, best weights and the moving average."""

import json
from copy import deepcopy

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_trainings import feed, state, vae
from torch import nn
from torch.testing import assert_close

from likely.base import Trainable
from likely.training.loop import fit
from likely.training.options import TrainingOptions
from likely.training.state import TrainingState

OPTIMIZERS = ["adamw", "adam", "adagrad", "sgd"]


def trained(n_steps=3, **options):
    """A training that has taken a few steps and knows a best."""
    training = state(vae(), **options)
    for step in fit(training, feed(13)):
        if step.number == n_steps - 1:
            training.update_best(1.5)
        if step.number == n_steps:
            break
    return training


def equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def through_a_file(tensors, document):
    return safetensors.torch.load(safetensors.torch.save(tensors)), json.loads(json.dumps(document))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_snapshot_survives_a_file(optimizer):
    tensors, document = trained(optimizer=optimizer).snapshot()
    fresh = state(vae(), optimizer=optimizer, seed=99)
    fresh.restore(*through_a_file(tensors, document))
    tensors_again, document_again = fresh.snapshot()
    equal(tensors, tensors_again)
    assert json.dumps(document) == json.dumps(document_again)
    assert fresh.seed == 0


@pytest.mark.parametrize(("optimizer", "moments"), [("adamw", 2), ("adam", 2), ("adagrad", 1), ("sgd", 1)])
def test_snapshot_contains_parameters_and_moments(optimizer, moments):
    training = trained(optimizer=optimizer)
    tensors, _ = training.snapshot()
    n_parameters = len(list(training.model.parameters()))
    of_optimizer = [name for name in tensors if name.startswith("optimizer0/") and not name.endswith("/step")]
    assert len(of_optimizer) == moments * n_parameters
    for prefix in ("model", "best"):
        assert {f"{prefix}/{name}" for name in training.model.state_dict()} <= tensors.keys()
    assert "ema/n_averaged" in tensors


def test_snapshot_before_the_first_step_restores():
    training = state(vae())
    tensors, document = training.snapshot()
    assert not any(name.startswith(("optimizer", "best")) for name in tensors)
    other = trained()
    other.restore(tensors, document)
    equal(other.snapshot()[0], tensors)


def test_snapshot_is_a_copy():
    training = trained()
    tensors, document = training.snapshot()
    copied, copied_document = {name: t.clone() for name, t in tensors.items()}, deepcopy(document)
    for _ in fit(training, feed(13)):
        pass
    equal(tensors, copied)
    assert document == copied_document


def test_training_after_restore_does_not_change_the_snapshot():
    tensors, document = trained().snapshot()
    copied, copied_document = {name: t.clone() for name, t in tensors.items()}, deepcopy(document)
    training = state(vae())
    training.restore(tensors, document)
    for step in fit(training, feed(13)):
        training.update_best(-step.number)
    equal(tensors, copied)
    assert document == copied_document


def test_restore_writes_into_existing_tensors():
    """The objectives and the optimizers go on holding the model's own parameters, in the memory format it is in."""
    training = state(vae())
    before = [(id(p), p.stride()) for p in training.model.parameters()]
    training.restore(*trained().snapshot())
    assert [(id(p), p.stride()) for p in training.model.parameters()] == before
    of_optimizer = {id(p) for group in training.optimizers[0].param_groups for p in group["params"]}
    assert of_optimizer == {identity for identity, _ in before}


def test_best_weights_are_replaced_by_better_ones_only():
    training = state(vae())
    assert training.update_best(2.0)
    best = {name: t.clone() for name, t in training.best.items()}
    with torch.no_grad():
        training.ema_model.component_mean += 1
    assert not training.update_best(2.0)
    assert not training.update_best(float("nan"))
    assert training.progress.stale == 2
    equal(training.best, best)
    assert training.update_best(1.0)
    assert training.progress.stale == 0
    assert training.progress.best_score == 1.0
    assert_close(training.best["component_mean"], best["component_mean"] + 1)


def test_load_best_loads_the_best_weights():
    training = trained()
    best = {name: t.clone() for name, t in training.best.items()}
    training.load_best()
    equal(dict(training.model.state_dict()), best)


def test_load_best_without_a_score_loads_the_average():
    training = state(vae())
    for _ in fit(training, feed(13)):
        pass
    assert not torch.equal(training.ema_model.component_mean, training.model.component_mean)
    training.load_best()
    equal(dict(training.model.state_dict()), dict(training.ema_model.state_dict()))


def test_reset_ema_restarts_from_the_current_weights():
    training = state(vae())
    with torch.no_grad():
        training.model.component_mean += 1
    training.reset_ema()
    assert torch.equal(training.ema_model.component_mean, training.model.component_mean)


def test_state_has_the_objectives_of_the_model_and_the_learning_rate():
    training = state(vae(), learning_rate=0.25)
    assert [objective.name for objective in training.objectives] == ["bound"]
    assert {group["lr"] for group in training.optimizers[0].param_groups} == {0.25}
    assert training.device == torch.device("cpu")


# --- exponential moving average --------------------------------------------------------------------------------------


class Averaged(Trainable):
    """A weight, a running mean and a counter, without objectives."""

    def __init__(self, value=0.0):
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.set(value)

    def set(self, value):
        nn.init.constant_(self.norm.weight, value)

    def objectives(self):
        return ()


def averaging(value, decay):
    model = Averaged(value)
    return model, TrainingState(model, TrainingOptions(ema_decay=decay), seed=0)


def decay_at(n, decay):
    return min(decay, (1 + n) / (10 + n))


@given(st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=8), st.sampled_from([0.0, 0.3, 0.9, 0.998]))
def test_moving_average_agrees_with_its_closed_form(values, decay):
    """The first update copies the weights; each later one moves by 1 − d."""
    model, training = averaging(100.0, decay)
    expected = values[0]
    for n, value in enumerate(values):
        model.set(value)
        training.ema.update_parameters(model)
        if n:
            d = decay_at(n, decay)
            expected = d * expected + (1 - d) * value
        assert training.ema_model.norm.weight.tolist() == pytest.approx([expected] * 2, rel=1e-4, abs=1e-4)


@given(st.floats(-10, 10, width=32), st.floats(0, 0.999))
def test_moving_average_of_constant_weights_is_constant(value, decay):
    model, training = averaging(value, decay)
    for _ in range(5):
        training.ema.update_parameters(model)
    assert torch.equal(training.ema_model.norm.weight, model.norm.weight)


def test_moving_average_without_decay_is_the_model():
    model, training = averaging(1.0, 0.0)
    for value in (2.0, 3.0, 4.0):
        model.set(value)
        training.ema.update_parameters(model)
        assert torch.equal(training.ema_model.norm.weight, model.norm.weight)


def test_moving_average_copies_counters_and_averages_running_means():
    model, training = averaging(1.0, 0.5)
    expected = None
    for n in range(4):
        model.norm(torch.full((3, 2), float(n)))
        training.ema.update_parameters(model)
        current, d = model.norm.running_mean, decay_at(n, 0.5)
        expected = current.clone() if expected is None else d * expected + (1 - d) * current
    average = training.ema_model.norm
    assert average.num_batches_tracked == model.norm.num_batches_tracked == 4
    assert_close(average.running_mean, expected)
    assert not torch.equal(average.running_mean, model.norm.running_mean)


def test_moving_average_of_several_precisions():
    model, _ = averaging(1.0, 0.5)
    model.register_buffer("in_float32", torch.ones(2))
    model.register_buffer("in_float64", torch.ones(2, dtype=torch.float64))
    training = TrainingState(model, TrainingOptions(ema_decay=0.5), seed=0)
    for value in (0.0, 1.0):
        model.in_float32.fill_(value)
        model.in_float64.fill_(value)
        training.ema.update_parameters(model)
    assert training.ema_model.in_float64.dtype == torch.float64
    assert_close(training.ema_model.in_float64.float(), training.ema_model.in_float32)


def test_moving_average_is_a_copy_without_gradients():
    model, training = averaging(1.0, 0.5)
    training.ema.update_parameters(model)
    model.set(7.0)
    assert training.ema_model.norm.weight.tolist() == [1.0, 1.0]
    assert training.ema_model.norm.weight.grad_fn is None
