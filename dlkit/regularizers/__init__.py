"""Regularizers: a pure function with the mathematics, then a class that puts it in one of the five places of a step."""
