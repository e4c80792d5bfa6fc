"""Export of a trained network as a file for other runtimes, verified before it is written."""
