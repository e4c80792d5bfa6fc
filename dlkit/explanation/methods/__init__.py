"""Methods that say where in an image, or by which words, a network's answer comes about, a method a file.

Each file defines `explain(model, images, targets, *, option=default, …) -> maps`: model is in eval mode and is left as
it was, images are normalised (N, C, H, W), targets (N,) are the classes asked about, and maps (N, H, W) are higher
where a pixel speaks more for the class, in float32 and on the images' device. Maps of a method that tells for from
against have signs, the others none. What is explained is the class's logit. An image's map does not depend on the
others beside it. A model that the method cannot explain is a UsageError that says why.

`TAKES` are the kinds of input that a method explains, images where it is not there. Of a sequence or a tree, model is a
`_words.Reader` and images are the vectors of its words, (N, D, 1, T). `of_parts(model, targets, parts)`, in a file that
has it, gives the value of several words together, parts (M, T) bool -> (M,); else it is the sum of theirs.

Common options: `layer` is the path of the module whose maps are looked at (None: the model's own `feature_map`); `seed`
repeats what is drawn. `BLIND = True` says that a method gives every class the same map. `baseline(images)`, in a file
that has it, gives what the image is compared with: the map sums to the difference of the two logits.
"""
