"""Averaging gradients: nothing on one process, the mean on two."""

import pytest
import torch
from torch import distributed, multiprocessing
from torch.testing import assert_close

from likely.training.distributed import average

SHAPE = (4, 3, 2, 2)


def gradients(rank):
    """As autograd returns them: two that are one tensor, one whose order in memory is the process's own, one of a number."""
    one, other = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(rank))
    format = torch.channels_last if rank else torch.contiguous_format
    return [one, one, other.contiguous(memory_format=format), torch.tensor(float(rank)).expand(5)]


def of_one_process(rank, path):
    distributed.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    try:
        for mean, one, other in zip(average(gradients(rank)), gradients(0), gradients(1), strict=True):
            assert_close(mean, (one + other) / 2)
    finally:
        distributed.destroy_process_group()


def test_on_one_process_nothing_happens():
    given = gradients(0)
    assert average(given) is given
    for one, other in zip(given, gradients(0), strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
@pytest.mark.skipif(not distributed.is_available(), reason="this torch has no torch.distributed")
def test_on_two_processes_it_is_the_mean(tmp_path):
    multiprocessing.spawn(of_one_process, (tmp_path / "meeting",), nprocs=2)
