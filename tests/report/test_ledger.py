"""What a study records can be read back as it was, and says nothing of a person."""

from types import SimpleNamespace

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from medssl.errors import UserError
from medssl.report import ledger
from medssl.report.ledger import Ledger, by_content, recorded


def table(shift: float = 0.0) -> pl.DataFrame:
    columns = {"item": ["b", "a"], "patient": ["p", "q"], "dice.1": [0.1 + shift, None], "hd95.1": [1.0, 2.0]}
    return pl.DataFrame(columns, schema_overrides={"dice.1": pl.Float32, "hd95.1": pl.Float32})


def row(key: str) -> dict:
    return {"key": key, "arm": "scratch", "n_labels": 4, "seed": 0, "metrics": {"dice": 0.5}}


def test_it_is_read_as_it_was_written_in_its_order(tmp_path):
    written = Ledger()
    for key, shift in (("k2", 0.0), ("k1", 0.25)):
        written.add(row(key), table(shift))
    written.write(tmp_path)
    found = recorded(tmp_path)
    assert found.rows == [row("k2"), row("k1")] and [*found.predictions] == ["k2", "k1"]
    for key, shift in (("k2", 0.0), ("k1", 0.25)):
        assert_frame_equal(found.predictions[key], table(shift))


def test_nothing_recorded_is_an_empty_ledger(tmp_path):
    assert ledger.read(tmp_path) == Ledger()
    Ledger().write(tmp_path)
    assert ledger.read(tmp_path) == Ledger()


def test_ids_give_way_to_names_by_content(tmp_path):
    run = pl.DataFrame({"item": ["salted2", "salted1"], "patient": ["x", "y"], "prob.a": [0.1, 0.2]})
    run.write_parquet(tmp_path / "predictions.parquet")
    store = SimpleNamespace(items=pl.DataFrame({"item": ["salted1", "salted2", "salted3"]}))
    contents = SimpleNamespace(store=store, items=["c1", "c2", "c3"], patients=["p1", "p2", "p3"])
    found = by_content(tmp_path / "predictions.parquet", contents)
    wanted = {"item": ["c2", "c1"], "patient": ["p2", "p1"], "prob.a": pl.Series([0.1, 0.2], dtype=pl.Float32)}
    assert_frame_equal(found, pl.DataFrame(wanted))
    store.items = store.items.filter(pl.col("item") != "salted1")
    with pytest.raises(UserError, match="no longer hold"):
        by_content(tmp_path / "predictions.parquet", contents)
    with pytest.raises(UserError, match="the file is gone"):
        by_content(tmp_path / "none.parquet", contents)
