"""Backbones, their weights, the freeze line, the engines that run them, and the activations of all photos."""
