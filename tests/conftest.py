"""What every test runs under."""

import os

os.environ.setdefault("SCIPY_ARRAY_API", "1")  # read when scipy is first imported; lets scikit-learn's array checks run

import torch
from hypothesis import settings

torch.set_num_threads(1)  # tensors this small gain nothing from a second thread, and tests may run side by side
settings.register_profile("likely", deadline=None)  # a busy machine is no failure
settings.load_profile("likely")
