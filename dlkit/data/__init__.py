"""Batches, loaders, the one image loader, downloads: how data reaches a network."""
