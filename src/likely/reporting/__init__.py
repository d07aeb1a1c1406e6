"""Reports, model cards and images of evaluation results."""
