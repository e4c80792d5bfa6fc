"""From prepared inputs to probabilities, whichever runtime computes them."""
