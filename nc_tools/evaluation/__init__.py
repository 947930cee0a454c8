"""Evaluate a trained model: one pass over each set, then metrics of its features and logits."""
