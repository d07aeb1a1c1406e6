"""Fixtures of the service tests."""

import pytest

from likely.experiment import TrainConfig, start_run


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Model folder as `likely train` writes it, with its training record."""
    out = tmp_path_factory.mktemp("trained") / "digits"
    start_run(TrainConfig(data="digits", model="gaussian", label_check_folds=0), out).run()
    return out
