"""What tests of the service have in common."""

import pytest

from likely.experiment import TrainConfig, start_run


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A model folder as the command line leaves it, with all that is remembered of its training."""
    out = tmp_path_factory.mktemp("trained") / "digits"
    start_run(TrainConfig(data="digits", model="gaussian", label_check_folds=0), out).run()
    return out
