"""Export: a trained network as a file that other runtimes read, verified before it is kept."""
