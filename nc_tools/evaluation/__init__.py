"""Evaluate a trained model: pass each image set through it once, then compute metrics of features and logits."""
