"""Networks, a family a file.

Each file defines `build(spec, *, option=default, …) -> nn.Module`. The module takes normalised float images
(N, C, H, W), in either memory format, and gives logits (N, K). build draws the weights from torch's global generator,
so that a seed repeats them, and raises UsageError for an option that it cannot use. `VARIANTS`, where a file has it,
names the family's members and the options that each fixes; a caller may still set those. `NATURAL` is the input that
the family was made for: channels, height, width, classes. Common options: activation, init (dlkit.nn.init), dropout.
A module of our own that multiplies has `multiply_adds(output) -> int`, so that the summary can count it.
"""
