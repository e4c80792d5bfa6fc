"""Run folders: the files of a training, and listing, tagging and removing runs."""
