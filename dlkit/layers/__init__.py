"""Blocks that two papers share: activations, initializations, layers."""
