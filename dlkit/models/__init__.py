"""Networks, one file per family.

Each file defines `build(spec, *, option=default, …) -> nn.Module`. The module takes normalized float images
(N, C, H, W), in either memory format, and returns logits (N, K). build draws the weights from torch's global generator,
so that a seed makes them repeatable, and raises UsageError for an invalid option. The optional `VARIANTS` lists the
members of the family with the options that each fixes; a caller can still set those. `NATURAL` is the input that
the family was made for: channels, height, width, classes; `NATURAL_OF` those of members that were made for another.
Common options: activation, init (dlkit.layers.init), dropout, norm (dlkit.layers.norm), stem (dlkit.layers.stem).
A model's `feature_map` is the path of the module with its last feature maps (N, C, H, W), or None; its optional
`notes` are sentences about what was selected for the spec, such as the stem. build raises DataError for images
that are too small. A model whose parameter shapes depend on the image size has `at_this_size(tensors, seen) ->
tensors`, which converts weights for images like the spec `seen` to its own. A module of our own with multiplications
has `multiply_adds(output) -> int` for the summary.
"""
