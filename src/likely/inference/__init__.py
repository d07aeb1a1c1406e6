"""Inference from the log-likelihood matrix L[b, k] = log p(x_b | c = k): arithmetic on small tensors that needs no network."""
