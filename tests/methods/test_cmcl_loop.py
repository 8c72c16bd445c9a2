"""CMCL in a user's own loop: named entries, missing rows, and every mistake in one sentence."""

import pytest
import torch

import medssl
from medssl.errors import UserError
from medssl.rng import Rng


def make(towers=None, **options):
    towers = towers or {"image": "unet", "text": medssl.Vector(7)}
    return medssl.CMCL(towers=towers, embed_dim=8, **{"width": 4, "patch": (16, 16), **options})


def optimizer_of(model):
    return torch.optim.AdamW(model.parameters(), lr=3e-3)


def data(b=6, seed=0):
    """Stripes of b directions, and numbers that know nothing of them."""
    angle, side = torch.arange(b) * torch.pi / b, torch.arange(16.0)
    phase = side[:, None] * angle.cos()[:, None, None] + side * angle.sin()[:, None, None]
    generator = torch.Generator().manual_seed(seed)
    return {"image": (0.5 + 0.5 * phase.sin())[:, None], "text": torch.randn(b, 7, generator=generator)}


def test_images_and_vectors_come_together():
    model, pairs = make(crop=(0.9, 1.0)), data()
    optimizer = optimizer_of(model)
    terms = [model.step(pairs, optimizer)["align"] for _ in range(150)]
    assert terms[-1] < 0.5 * terms[0]
    image, text = (model.encode(name, pairs[name]) for name in ("image", "text"))
    assert image.shape == text.shape == (6, 8) and not image.requires_grad and model.training
    assert torch.allclose(image.norm(dim=1), torch.ones(6)) and torch.allclose(text.norm(dim=1), torch.ones(6))
    assert (image @ text.T).argmax(1).tolist() == list(range(6))
    losses = model(pairs)
    losses.total.backward()
    assert losses.terms.keys() == {"align"} and all(p.grad is not None for p in model.parameters())


def test_missing_rows_are_told_by_none_or_nan_and_mean_the_same():
    pairs = data()
    nan = {name: x.clone() for name, x in pairs.items()}
    nan["image"][1], nan["text"][4] = torch.nan, torch.nan
    none = {name: list(x) for name, x in pairs.items()}
    none["image"][1] = none["text"][4] = None
    model = make(norm="group")
    views = [model.views(model._wrap(x, None), Rng(0, 0)) for x in (nan, none)]
    assert all(torch.equal(views[0][name], views[1][name]) for name in ("x", "text", "subject", "content"))
    assert views[0]["subject"].tolist() == [0, 2, 3, 4, 5] and views[0]["content"].ne(0).tolist() == [1, 1, 1, 0, 1]
    assert float(model(nan).total.detach()) == float(model(none).total.detach()) > 0
    z = model.encode("image", none["image"])
    assert bool(z[1].isnan().all()) and not bool(z[[0, 2, 3, 4, 5]].isnan().any())
    assert torch.equal(model.encode("image", nan["image"])[0], z[0])


def test_an_entry_that_is_none_or_absent_gives_a_zero_loss():
    model = make()
    for pairs in ({"image": data()["image"], "text": None}, {"image": data()["image"]}):
        assert model.step(pairs, optimizer_of(model)) == {"align": 0.0}


def test_subjects_with_one_id_are_not_each_others_negatives():
    model, pairs = make(), data()
    one = model(pairs, ids=torch.zeros(6, dtype=torch.long))
    assert float(one.total.detach()) == 0 and float(model(pairs).total.detach()) > 0


def test_texts_by_a_tokenizer_of_their_own():
    reports = ["no lesion", "a small lesion of the liver", "large pleural effusion", None]
    tokenizer = medssl.Tokenizer.train(reports, vocab=60, length=40)
    tokens, cut = tokenizer.encode(reports)
    text = medssl.Text(vocab=tokenizer.vocab, length=tokenizer.length, width=8, depth=1, heads=2)
    model = make({"CT": "unet", "MR": "unet", "report": text}, local_weight=0.5, anchors=8)
    images = {"CT": torch.rand(4, 1, 16, 16), "MR": torch.rand(4, 1, 16, 16)}
    terms = model.step({**images, "report": tokens}, optimizer_of(model))
    assert cut == 0 and terms.keys() == {"align", "local", "words"} and all(v > 0 for v in terms.values())
    z = model.encode("report", tokens)
    assert bool(z[3].isnan().all()) and torch.allclose(z[:3].norm(dim=1), torch.ones(3))
    assert torch.allclose(model.encode("report", tokens[:1]), z[:1], atol=1e-6)


def test_volumes_and_a_rebuilding_decoder():
    model = make({"CT": "unet", "MR": "resnet18"}, dims=3, patch=(32, 32, 32), rebuild_weight=1.0, norm="group")
    terms = model.step({name: torch.rand(2, 1, 32, 32, 32) for name in ("CT", "MR")}, optimizer_of(model))
    assert terms.keys() == {"align", "rebuild"} and terms["rebuild"] > 0


def test_the_same_seed_gives_the_same_steps_and_other_chance_is_left_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    model = make()
    assert torch.equal(torch.get_rng_state(), before)
    again = make()
    steps = [[m.step(data(), o) for _ in range(2)] for m, o in ((m, optimizer_of(m)) for m in (model, again))]
    assert steps[0] == steps[1] and steps[0][0] != steps[0][1]


GOOD = data(4)
IMAGE, TEXT = GOOD["image"], GOOD["text"]
HOLES = TEXT.index_put((torch.tensor([2]), torch.tensor([3])), torch.tensor(torch.nan))
WRONG = {
    "no tower 'report': the towers are image, text": {"image": IMAGE, "report": TEXT},
    "entries differ in their rows: image 4, text 3": {"image": IMAGE, "text": TEXT[:3]},
    "'text' is torch.float32 (4, 5): its tower takes float (b, 7)": {"image": IMAGE, "text": TEXT[:, :5]},
    "'text' is torch.int64 (4, 7): its tower takes float": {"image": IMAGE, "text": torch.ones(4, 7).long()},
    "images have shape (4, 16, 16)": {"image": IMAGE[:, 0], "text": TEXT},
    "images have 3 channels": {"image": IMAGE.repeat(1, 3, 1, 1), "text": TEXT},
    "images are torch.uint8": {"image": (255 * IMAGE).byte(), "text": TEXT},
    "'image' is a ndarray": {"image": IMAGE.numpy(), "text": TEXT},
    "row 2 of 'text' is NaN in part": {"image": IMAGE, "text": HOLES},
    "no image in this batch: give rows for image": {"image": None, "text": TEXT},
    "no entry has a row": {"image": None, "text": None},
    "rows of 'image' have shapes (1, 8, 8) and (1, 16, 16)": {"image": [torch.rand(1, 8, 8), *IMAGE[1:]], "text": TEXT},
    "the modalities of the images are not told": IMAGE,
}


@pytest.mark.parametrize("said", WRONG)
def test_mistakes_are_told_in_one_sentence(said):
    model = make()
    with pytest.raises(UserError) as caught:
        model.step(WRONG[said], optimizer_of(model))
    assert said in str(caught.value) and "\n" not in str(caught.value) and caught.value.fix


def test_mistakes_of_tokens_ids_and_names():
    model = make({"image": "unet", "text": medssl.Text(vocab=9, length=5, width=8, heads=2)})

    def step(text=None, ids=None):
        return model.step({"image": IMAGE, "text": text}, optimizer_of(model), ids=ids)

    for said, act in {
        "2 ids for 4 subjects": lambda: step(ids=torch.arange(2)),
        "tokens from 3 to 9: its tower knows tokens from 0 to 8": lambda: step(torch.tensor([[3, 9]] * 4)),
        "int64 tokens (b, up to 5)": lambda: step(torch.ones(4, 6).long()),
        "no tower 'x'": lambda: model.encode("x", IMAGE),
        "unknown key 'towrs'": lambda: medssl.CMCL(towrs={}),
    }.items():
        with pytest.raises(UserError) as caught:
            act()
        assert said in str(caught.value) and "\n" not in str(caught.value)
