"""What trains a model: the loop, its state on disk, and everything a step uses."""
