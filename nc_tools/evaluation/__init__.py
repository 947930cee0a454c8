"""From a trained model to numbers: one pass over a set, then measures of its features and logits."""
