"""Data sets, one per module.

A module defines

    ABOUT = About(...)                      the information of `dlkit dataset list` and `info`, and the files to
                                            download with their sources in order; absent for the user's own images
    CONTENTS = {file: (bytes, sha256)}      prepared files with known digests; optional
    fetch(folder, download) -> None         fills an empty folder; `download(name)` returns the path of a verified file
                                            of ABOUT.files. Absent if there is nothing to download
    load(folder, *, option=default, …) -> Splits
                                            the samples; `folder` is the result of fetch, or the user's --data-dir
    locate(name, allow_download, log) -> Path
                                            the local path of a --data-dir that may be a URL or a name, downloaded into
                                            the cache if necessary. Absent if --data-dir is always a path

    GIVES = ("sequences", "trees")          the kinds of spec, by default images; if there are several, the option
                                            `form` selects one, by default the one that the model takes
    NUMBERS = True                          the targets are numbers, not classes

dlkit.data.download.store holds the lock, renames the folder into the cache when fetch is complete, and records the
digest of each file to detect later changes.
"""
