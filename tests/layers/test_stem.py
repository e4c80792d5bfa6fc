from __future__ import annotations

import pytest

from dlkit.errors import DataError, UsageError
from dlkit.evaluation.model_summary import natural_spec
from dlkit.layers.stem import check_size, choose_stem


@pytest.mark.parametrize(
    ("height", "width", "stem"), [(32, 32, "small"), (63, 200, "small"), (200, 63, "small"), (64, 64, "imagenet")]
)
def test_the_shorter_side_chooses_the_stem(height: int, width: int, stem: str) -> None:
    assert choose_stem("auto", natural_spec(3, height, width, 2)) == stem


def test_a_stem_that_is_named_is_taken() -> None:
    assert choose_stem("imagenet", natural_spec(3, 28, 28, 2)) == "imagenet"
    assert choose_stem("small", natural_spec(3, 224, 224, 2)) == "small"
    with pytest.raises(UsageError, match=r"stem is 'smal'.*'small'"):
        choose_stem("smal", natural_spec(3, 28, 28, 2))


def test_an_image_too_small_is_refused_with_the_least_size() -> None:
    check_size(natural_spec(3, 15, 15, 2), 15, "AlexNet", "")
    for size in ((14, 90), (90, 14)):
        with pytest.raises(DataError, match=r"14.*AlexNet.*15 or more\. Set data\.size\."):
            check_size(natural_spec(3, *size, 2), 15, "AlexNet", "Set data.size.")
