"""The inputs of a sequence model: vectors of tokens, vectors, or the rows of an image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlkit.data.text.padding import Sequences
from dlkit.layers.options import check_whole
from dlkit.specs import PADDING, ImageSpec, SequenceSpec

EMBEDDING_SPAN = 0.05  # word vectors are initialized uniformly in ± this, as in Tai, Socher and Manning's code of 2015


def steps_of(inputs: Tensor | Sequences) -> tuple[Tensor, Tensor | None]:
    """The values (N, T) or (N, T, D), and the lengths (N,) on their device, or None if all have T steps.

    An image (N, C, H, W) is read row by row from the top: H steps of C·W numbers.
    """
    if isinstance(inputs, Tensor):
        return inputs.transpose(1, 2).flatten(2), None  # (N, H, C · W)
    values, lengths = inputs.values, inputs.lengths
    # a graph traced for export must support any lengths
    if not torch.compiler.is_exporting() and bool((lengths == values.shape[1]).all()):
        return values, None
    return values, lengths.to(values.device, non_blocking=True)


def step_size(spec: ImageSpec | SequenceSpec, embedding_size: int) -> int:
    """The width of a step, with words as vectors."""
    if isinstance(spec, ImageSpec):
        return spec.channels * spec.width
    return spec.features or embedding_size


def embedding(spec: ImageSpec | SequenceSpec, size: int) -> nn.Module:
    """A vector for each word of the spec; an identity if it has no words.

    Raises: UsageError where the size is no whole number above 0.
    """
    check_whole("embedding_size", size)
    if isinstance(spec, ImageSpec) or spec.vocabulary is None:
        return nn.Identity()
    return word_vectors(spec.vocabulary, size)


@torch.no_grad()
def word_vectors(vocabulary: int, size: int) -> nn.Embedding:
    """(…,) ids -> (…, size); that of padding is always 0."""
    vectors = nn.Embedding(vocabulary, size, padding_idx=PADDING)
    vectors.weight.uniform_(-EMBEDDING_SPAN, EMBEDDING_SPAN)
    vectors.weight[PADDING] = 0
    return vectors
