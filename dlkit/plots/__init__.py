"""Plots: learning curves, confusion matrices, sweeps, contact sheets; for files and for terminals."""
