"""Explanations: which pixels or words a prediction rests on."""
