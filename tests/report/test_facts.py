"""The fingerprint counts right, and a leak does not pass."""

import polars as pl

from medssl.report.facts import fingerprint, seen_in_pretraining, split_checks


def test_the_fingerprint_counts_patients_scans_and_classes(items):
    facts = fingerprint(pl.concat([items, items.head(1).with_columns(item=pl.lit("again"))]), {"axes": "C,X,Y,Z"}, "ab")
    assert (facts["patients"], facts["scans"], facts["modalities"]) == (60, 61, {"CT": 61})
    assert facts["splits"]["test"]["patients"] == 18 and sum(facts["labels"]["lesion"].values()) == 61
    assert facts["shape"] == [64, 64, 32] and facts["spacing_mm"] == [1, 1, 2]


def test_split_hashes_follow_the_images_not_their_order(items):
    whole, turned = (fingerprint(f, {}, "")["splits"] for f in (items, items.reverse()))
    assert whole == turned
    moved = items.with_columns(split=pl.when(pl.col("item") == "i0").then(pl.lit("test")).otherwise("split"))
    assert fingerprint(moved, {}, "")["splits"]["test"]["hash"] != whole["test"]["hash"]


def test_a_patient_or_an_image_on_two_sides_is_found(items):
    assert all(check["ok"] for check in split_checks(items))
    patients = split_checks(
        items.with_columns(patient=pl.col("patient").replace("secret-patient-59", "secret-patient-0"))
    )
    assert [check["ok"] for check in patients] == [False, True]
    images = split_checks(items.with_columns(hash=pl.col("hash").replace("h59", "h0")))
    assert [check["ok"] for check in images] == [True, False] and images[1]["detail"] == "1 images"


def test_only_test_images_count_as_seen(items):
    assert seen_in_pretraining(items, ["h0", "h1", "elsewhere"]) == 0
    assert seen_in_pretraining(items, ["h0", "h58", "h59"]) == 2
