"""Data sets, one a file.

A file on this shelf defines

    ABOUT = About(...)                      what `dlkit dataset list` and `info` print, and the files to fetch with
                                            their sources in order; absent where the images are the user's own
    CONTENTS = {file: (bytes, sha256)}      the prepared files whose digests are known; optional
    fetch(folder, download) -> None         fill an empty folder; `download(name)` gives the path of a verified file of
                                            ABOUT.files. Absent where there is nothing to download
    load(folder, *, option=default, …) -> Splits
                                            the samples; `folder` is what fetch filled, or the user's --data-dir
    bring(place, allow_download, log) -> Path
                                            where a --data-dir that may be an address or a name is on this machine,
                                            fetched into the cache where need be. Absent where it is a path, no more

    GIVES = ("sequences", "trees")          the kinds of spec that it comes in, images where it has none; of several,
                                            the option `form` chooses, and by default it is what the model takes
    NUMBERS = True                          a number is asked for and no class

The verb (dlkit.data.download.store) holds the lock, renames the folder into the cache when fetch is through, and writes
down the digest of each file, so that one altered later is noticed.
"""
