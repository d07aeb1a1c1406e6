"""What follows from L[b, k] = log p(x_b | c = k), as arithmetic on small tensors: no network, no model."""
