"""Plots follow the page's colours, and their numbers are in them."""

import re

import numpy as np

from medssl.report import figures

VERDICT = {
    "margin": 0.01,
    "labels": [
        {
            "n_labels": n,
            "scores": {"scratch": [0.4, 0.5], "pcrl": [0.5, 0.6]},
            "arms": {"scratch": {"mean": 0.45, "interval": [0.3, 0.6]}, "pcrl": {"mean": 0.55, "interval": [0.4, 0.7]}},
            "comparisons": [{"arm": "pcrl", "difference": 0.1, "interval": [0.02, 0.18], "compared": 1}],
        }
        for n in (4, 16)
    ],
}


def test_colours_are_variables_of_the_page():
    colour = figures.colours(["pcrl", "scratch", "mine"])
    assert colour["scratch"] == figures.SERIES[0] and len(set(colour.values())) == 3
    svg = figures.efficiency(VERDICT, "Dice", colour)
    assert "#0102" not in svg and {"--series-0", "--series-1", "--ink", "--muted"} <= set(re.findall(r"--[\w-]+", svg))


def test_label_counts_are_the_ticks():
    for plot in (figures.efficiency, figures.differences):
        svg = plot(VERDICT, "Dice", figures.colours(["scratch", "pcrl"]))
        texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
        assert {"4", "16", "labelled patients"} <= set(texts) and "<title>" not in svg
        assert 'role="img" aria-label="' in svg


def test_intervals_that_the_words_rest_on_are_drawn_where_they_are_wider():
    def drawn(compared):
        found = {"arm": "pcrl", "difference": 0.1, "interval": [0.02, 0.18], "compared": compared}
        levels = [at | {"comparisons": [found | {"corrected": {"interval": [-0.3, 0.5]}}]} for at in VERDICT["labels"]]
        return figures.differences(VERDICT | {"labels": levels}, "Dice", figures.colours(["scratch", "pcrl"]))

    assert "corrected" not in drawn(1) and "thin: corrected for the number of arms" in drawn(2)
    assert "+0.4" in drawn(2) and "+0.4" not in drawn(1)


def test_one_label_count_is_no_empty_plot():
    one = VERDICT | {"labels": VERDICT["labels"][:1]}
    assert "4" in re.findall(r"<text[^>]*>([^<]*)</text>", figures.efficiency(one, "Dice", figures.colours(["pcrl"])))


def test_many_labels_are_summed_up_as_other():
    labels = [f"class {i}" for i in range(20)] * 2 + [""]
    svg = figures.scatter(np.random.default_rng(0).normal(size=(41, 2)), labels, "PCA of the features")
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert any(t.startswith("other (") for t in texts) and len([t for t in texts if "(" in t]) == 7


def test_a_description_is_escaped():
    svg = figures.curves('a "quoted" <name>', {"x": ([1, 2], [1.0, 2.0])}, {"x": figures.SERIES[1]})
    assert "<name>" not in svg
