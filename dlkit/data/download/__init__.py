"""Named data sets: HTTP, archives, file formats, and the cache."""
