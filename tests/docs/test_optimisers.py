"""The table of optimisers is what `medssl pretrain` does, method by method."""

import re
from pathlib import Path

from medssl.methods import METHODS, resolve

PAGE = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "optimisers.md"


def test_the_table_shows_what_is_usual_for_each_method():
    shown = {row[0]: row[1:6] for row in (re.findall(r"[^|]+", line) for line in PAGE.read_text().splitlines())
             if row and row[0].strip() in METHODS}  # fmt: skip
    assert [name.strip() for name in shown] == list(METHODS)
    for name, cells in shown.items():
        usual = resolve(name.strip())[0].usual
        betas = ", ".join(map(str, usual.betas))
        expected = [usual.optimizer, str(usual.lr), str(usual.weight_decay), betas, str(usual.warmup)]
        assert [cell.strip() for cell in cells] == expected
