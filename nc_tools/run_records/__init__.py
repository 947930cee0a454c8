"""The record of a run on disk: written atomically while it runs, read back afterwards."""
