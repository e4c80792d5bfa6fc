"""Export formats, one file each.

Each file defines `export(model, spec, about, *, option=default, …) -> bytes`, which returns the complete file, with
`about` in it and sealed if the format allows it (dlkit.export_metadata). model is in eval mode on the CPU and is left
unchanged. `SUFFIX` ends the names of the format's files, `NEEDS` lists the packages of the export extra that it
requires, and `classifier(data, about, device)` returns the classifier of a file in its own runtime, with which every
export is verified; `runtime()` is the name and version of the runtime. A model that the format cannot represent raises
UsageError with the reason.
"""
