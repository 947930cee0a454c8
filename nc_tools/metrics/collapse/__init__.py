"""Measures of neural collapse, as pure functions of features, labels and head weights."""
