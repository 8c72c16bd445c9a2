"""Named entries of a user's own loop as one flat list; what is missing is simply not in it."""

import pytest
import torch

from medssl.data.entries import flat_entries, read_entries, read_entry
from medssl.errors import UserError

NAN = torch.nan


def test_rows_are_missing_by_none_nan_or_zeros():
    floats = torch.tensor([[1.0, 2.0], [NAN, NAN], [3.0, 4.0]])
    tokens = torch.tensor([[5, 0], [0, 0], [6, 7]])
    listed = [torch.tensor([1.0, 2.0]), None, torch.tensor([3.0, 4.0])]
    for entry in (floats, tokens, listed):
        found = read_entry("x", entry)
        assert found.index.tolist() == [0, 2] and len(found.value) == 2
    assert read_entry("x", listed).value.tolist() == [[1, 2], [3, 4]]
    assert read_entry("x", [None, None]).index.tolist() == []
    black = torch.zeros(2, 1, 4, 4)
    assert read_entry("x", black).index.tolist() == [0, 1]  # black is a picture, and no number is none


def test_images_of_all_entries_are_one_list_with_their_subjects_and_texts():
    ct = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 2, 2).clone()
    mr = 10 + ct
    ct[1], mr[3] = NAN, NAN
    text = torch.tensor([[1.0, 1.0], [2.0, 2.0], [NAN, NAN], [4.0, 4.0]])
    flat = flat_entries({"MR": mr, "CT": ct, "text": text}, ("CT", "MR"), "text")
    assert flat.codes.tolist() == [0, 0, 0, 1, 1, 1] and flat.subject.tolist() == [0, 2, 3, 0, 1, 2]
    assert flat.images[:, 0, 0, 0].tolist() == [0, 2, 3, 10, 11, 12] and flat.subjects == 4
    assert flat.text[[0, 2, 3, 4], 0].tolist() == [1, 4, 1, 2] and bool(flat.text[[1, 5]].isnan().all())


def test_tokens_that_are_missing_are_zeros_and_no_text_is_none():
    images = torch.rand(3, 1, 2, 2)
    flat = flat_entries({"CT": images, "report": [torch.tensor([3, 4]), None, None]}, ("CT",), "report")
    assert flat.text.tolist() == [[3, 4], [0, 0], [0, 0]] and flat.text.dtype == torch.int64
    for nothing in ({"CT": images}, {"CT": images, "report": None}, {"CT": images, "report": [None] * 3}):
        assert flat_entries(nothing, ("CT",), "report").text is None


IMAGES = torch.rand(3, 1, 2, 2)
HOLES = IMAGES.clone()
HOLES[1, 0, 0, 0] = NAN
WRONG = {
    "no tower 'PET': the towers are CT, MR": {"PET": IMAGES},
    "the entries differ in their rows: CT 3, MR 2": {"CT": IMAGES, "MR": IMAGES[:2]},
    "no entry has a row: give tensors for CT, MR": {"CT": None},
    "images of shapes (1, 2, 2) and (1, 2, 3): resample": {"CT": IMAGES, "MR": torch.rand(3, 1, 2, 3)},
    "'CT' is of shape (3,): give a tensor, a row a subject": {"CT": torch.rand(3)},
    "'CT' is a str": {"CT": "abc"},
    "rows of 'CT' have shapes (1,) and (2,)": {"CT": [torch.rand(2), torch.rand(1)]},
    "row 1 of 'CT' is NaN in part": {"CT": HOLES},
}


@pytest.mark.parametrize("said", WRONG)
def test_mistakes_are_told_in_one_sentence(said):
    with pytest.raises(UserError) as caught:
        flat_entries(WRONG[said], ("CT", "MR"), None)
    assert said in str(caught.value) and "\n" not in str(caught.value) and caught.value.fix


def test_the_number_of_subjects_is_that_of_the_rows_missing_ones_included():
    assert read_entries({"CT": [None, torch.rand(2, 2), None]}, ["CT"])[1] == 3
