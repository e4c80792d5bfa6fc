"""Classifiers: from prepared inputs to probabilities, for any runtime."""
