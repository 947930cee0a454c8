"""Decoupled training: a second stage that changes the classifier on a frozen backbone."""
