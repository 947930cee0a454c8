"""Measures of neural collapse: pure functions of features, labels and the weight of the head."""
