"""When probes end a pre-training, and whose weights are kept."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from medssl.engine.record import FREE
from medssl.errors import UserError
from medssl.stages import patience
from medssl.stages.options.train import Pretrain
from medssl.stages.patience import Patience
from medssl.stages.study_keys import _pretraining
from medssl.stages.study_record import _truth, flat

OPTIONS = Pretrain(method="pcrl", data=Path(), out=Path())


def watched(values, probes, start=None, before=0):
    """The steps at which probes of these values were taken until they ended training, ten steps apart."""
    seen, method = start or Patience(probes), torch.nn.Linear(1, 1, bias=False)
    for i, value in enumerate(values, 1 + before):
        torch.nn.init.constant_(method.weight, i)
        seen.see(10 * i, {"probe.linear": value, "effective_rank": 99.0 * i}, method)
        if seen.over:
            return seen, 10 * i
    return seen, None


@pytest.mark.parametrize(
    ("values", "probes", "ends", "kept"),
    [
        ([0.5, 0.6, 0.7], 1, None, 3),
        ([0.5, 0.5], 1, 20, 1),  # equal is no better
        ([0.5, 0.4, 0.6, 0.5, 0.55], 2, 50, 3),  # counted anew after a better one
        ([0.5, 0.4, 0.45, 0.49], 3, 40, 1),
        ([0.9, 0.1, 0.1], None, None, 0),  # nothing is kept aside where nobody asked for it
    ],
)
def test_training_ends_when_probes_get_no_better(values, probes, ends, kept):
    seen, ended = watched(values, probes)
    assert ended == ends
    assert seen.weights.keys() == ({"weight"} if kept else set())
    if kept:
        assert seen.step == 10 * kept and seen.weights["weight"].item() == kept and seen.best == values[kept - 1]


def test_what_a_checkpoint_keeps_goes_on_as_it_would_have():
    values = [0.5, 0.6, 0.55, 0.4, 0.3, 0.2]
    whole, ended = watched(values, 3)
    for cut in range(1, 5):
        first, _ = watched(values[:cut], 3)
        rest, then = watched(values[cut:], 3, Patience(3, **first.state()["patience"]), cut)
        assert (rest.step, rest.best, rest.waited, then) == (whole.step, whole.best, whole.waited, ended)
    assert Patience(None).state() == {}


def test_all_probes_count_alike_and_nothing_else():
    found = {"probe.knn": 0.5, "probe.linear": 0.7, "probe.voxel": 0.9, "effective_rank": 50.0}
    assert patience.score(found) == pytest.approx(0.7)
    assert patience.score({"effective_rank": 50.0}) is None


@pytest.mark.parametrize(
    ("values", "probes", "before", "said"),
    [
        ([0.5, 0.4, 0.3], 2, 0.4, "the last 2 probes were no better: training ends at step 30 of 90, LR; KEPT 10 BEST"
         " (0.500; untrained 0.400)"),
        ([0.5, 0.4], 1, None, "the last probe was no better: training ends at step 20 of 90, LR; KEPT 10 BEST (0.500)"),
        ([0.5, 0.6], 1, 0.6, "KEPT 20 BEST (0.600; untrained 0.600), though none was better than before training"),
    ],
)  # fmt: skip
def test_what_was_decided_is_said(values, probes, before, said):
    seen, ended = watched(values, probes)
    said = said.replace("LR", "its learning rate not yet down")
    said = said.replace("KEPT", "the encoder of step").replace("BEST", "is kept, with the best probe")
    assert seen.said(ended or 90, 90, {} if before is None else {"probe.knn": before}) == said


def test_without_a_probe_patience_is_refused():
    patience.check_probes(OPTIONS, there=False)
    patience.check_probes(replace(OPTIONS, patience=2), there=True)
    with pytest.raises(UserError, match=r"nothing to probe: no label .* and no masks .*--patience"):
        patience.check_probes(replace(OPTIONS, patience=2), there=False)


def test_options_of_the_probes_are_bookkeeping_unless_they_decide():
    asked = replace(OPTIONS, patience=2, probe_every=5, probe_target="size")
    assert patience.free(OPTIONS) == FREE and FREE - patience.free(asked) == {
        "probe_every",
        "probe_target",
        "log_every",
    }
    assert patience.probing(OPTIONS) == {} and "patience" not in _pretraining(flat(OPTIONS))
    assert patience.probing(asked) == {"patience": 2, "probe_every": 5, "probe_target": "size", "log_every": 10}


def test_probes_that_chose_an_encoder_have_seen_the_truth():
    class Arm:
        run, settings, options = None, {}, replace(OPTIONS, patience=2)

    assert _truth(Arm) == "patience=2"
    Arm.options = OPTIONS
    assert _truth(Arm) == ""
