"""Explanation methods, one file each: which pixels or words a network's prediction depends on.

Each file defines `explain(model, images, targets, *, option=default, …) -> maps`: model is in eval mode and is left
unchanged, images are normalized (N, C, H, W), targets (N,) are class indices, and maps (N, H, W), in float32 and on the
images' device, are higher for pixels with more evidence for the class. Maps of a method that distinguishes evidence for
and against are signed, all others nonnegative. The class's logit is what is explained. An image's map does not depend
on the rest of the batch. A model that the method cannot explain raises UsageError with the reason.

`TAKES` lists the kinds of input that a method explains (default: images). For a sequence or a tree, model is a
`_word_vectors.WordVectorModel` and images are its word vectors, (N, D, 1, T). An optional
`attribute_groups(model, targets, groups)` returns the value of several words together, groups (M, T) bool -> (M,); the
default is the sum of their values.

Common options: `layer` is the path of the module whose maps are used (None: the model's own `feature_map`); `seed`
makes random numbers repeatable. `CLASS_AGNOSTIC = True` marks a method whose map is the same for every class. An
optional `baseline(images)` returns the reference images: the map sums to the difference of the two logits.
"""
