from medssl.volume import family


def test_the_family_of_a_modality_is_what_stands_before_the_hyphen() -> None:
    assert [family(name) for name in ("MR-T1", "MR", "CT-CE-LATE", "")] == ["MR", "MR", "CT", ""]
