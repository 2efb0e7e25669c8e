"""A figure carries its alt text, and is the same file each time."""

import numpy as np
import pytest

from classroom import figures


@pytest.mark.parametrize(
    "picture",
    [
        lambda: figures.lines([0, 1], {"a": [0, 1]}, xlabel="x", ylabel="y", title="t", alt="a line"),
        lambda: figures.lines(
            [1, 8], {"a": [9, 1], "b": [9, 1]}, xlabel="x", ylabel="y", title="t", alt="a line", log=True
        ),
        lambda: figures.label_arrows(["a", "b"], {"next": 1, "itself": 0}, [False, True], alt="a line"),
        lambda: figures.attention_maps({"t": np.eye(2)}, ["a", "b"], alt="a line"),
    ],
)
def test_a_picture_is_a_png_with_alt_text_and_the_same_bytes_each_time(picture: object) -> None:
    bundle = picture()._repr_mimebundle_()
    assert bundle["image/png"].startswith(b"\x89PNG")
    assert bundle["text/plain"] == "a line"
    assert picture().png == bundle["image/png"]
