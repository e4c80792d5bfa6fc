"""Evaluation and prediction: a trained model's answers, and how good they are."""
