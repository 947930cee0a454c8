"""Calibration errors, proper scores, selective prediction, and scaling methods fitted on a hold-out set."""
