"""Prepare the data of a run, the training loop, and one strategy from photos to bundle."""
