"""Run folders: what a training leaves on disk, and how runs are listed, compared and removed."""
