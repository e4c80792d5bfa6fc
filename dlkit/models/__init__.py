"""Networks, a family a file.

Each file defines `build(spec, *, option=default, …) -> nn.Module`. The module takes normalised float images
(N, C, H, W), in either memory format, and gives logits (N, K). build draws the weights from torch's global generator,
so that a seed repeats them, and raises UsageError for an option that it cannot use. `VARIANTS`, where a file has it,
names the family's members and the options that each fixes; a caller may still set those. `NATURAL` is the input that
the family was made for: channels, height, width, classes; `NATURAL_OF` those of members that were made for another.
Common options: activation, init (dlkit.layers.init), dropout, norm (dlkit.layers.norm), stem (dlkit.layers.stem).
A model's `feature_map` is the path of the module that gives its last maps in space (N, C, H, W), or None; its `notes`,
if it has any, say in a sentence each what was chosen for the spec, such as the stem. build raises DataError for images
that are too small. One whose parameters' shapes follow the images' size has `at_this_size(tensors, seen) -> tensors`,
which fits weights from images like the spec `seen` to its own. A module of our own that multiplies has
`multiply_adds(output) -> int`, so that the summary can count it.
"""
