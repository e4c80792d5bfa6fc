"""Networks, a family a file. Each file defines `build(spec, *, option=default, …) -> nn.Module`: images in, logits out."""
