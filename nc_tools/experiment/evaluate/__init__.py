"""What a run measures: along training, at its end on the hold-out, and at the end of a final run on the test set."""
