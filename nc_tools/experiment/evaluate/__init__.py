"""What a final run measures: the test set, noisy labels, out-of-distribution sets, the transfer set."""
