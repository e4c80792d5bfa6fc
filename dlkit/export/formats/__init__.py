"""Formats that a trained network can be exported to, a format a file.

Each file defines `export(model, spec, about, *, option=default, …) -> bytes`: the whole file, with `about` in it and
sealed where it can be (dlkit.export_metadata). model is in eval mode on the CPU; it is left as it is. `SUFFIX` ends the
format's file names, `NEEDS` are the packages of the export extra that it cannot do without, and
`classifier(data, about, device)` gives what computes the file's answers in the runtime that it is meant for, with which
every export is verified; `runtime()` names that and its version. A model that the format cannot hold is a UsageError
that says why.
"""
