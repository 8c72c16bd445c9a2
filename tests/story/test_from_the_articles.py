"""docs/how-to/from-the-articles.md, run as it stands; and what it says of the sketch is true."""

import re
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "from-the-articles.md"


def snippets() -> dict[str, str]:
    found = re.findall(r"<!-- snippet: (\w+) -->\n```python\n(.*?)```", PAGE.read_text(), flags=re.S)
    return dict(found)


@pytest.fixture
def names():
    torch.manual_seed(0)
    images = [torch.rand(4, 1, 64, 64) for _ in range(3)]
    return {"loader": images, "labelled_loader": [(x, torch.arange(4)) for x in images]}


def test_the_sketch_runs_and_its_momentum_encoder_never_moves(names):
    code = snippets()["sketch"]
    before, after = code.split("for images in loader")
    exec(before, names)
    start = [p.clone() for p in names["momentum"].parameters()]
    exec("for images in loader" + after, names)
    assert all(torch.allclose(a, b) for a, b in zip(start, names["momentum"].parameters(), strict=True))


def test_our_loop_runs_and_its_teacher_moves(names):
    pages = snippets()
    exec(pages["ours"], names)
    model = names["model"]
    assert all(value == value for value in names["terms"].values())
    student = dict(model.encoder.named_parameters())
    teacher = list(model.teacher.parameters())
    assert teacher and not any(p.requires_grad for p in teacher)
    assert len(names["features"]) >= 4 and student
    exec(pages["ids"], names)
