"""Text and vector towers: padding changes nothing, empty texts are zeros, wrong descriptions are told."""

import sys

import pytest
import torch

from medssl.errors import UserError
from medssl.networks.text import Text, Vector, build_tower, filled, fingerprint, pool_words

SMALL = Text(vocab=30, length=12, width=8, depth=2, heads=2)


@pytest.fixture
def tower():
    torch.manual_seed(0)
    return build_tower(SMALL).double()


def tokens_of(*lengths, to=9):
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(1, 30, (n,), generator=generator).tolist() + [0] * (to - n) for n in lengths]
    return torch.tensor(rows)


def test_padding_changes_nothing(tower):
    tokens = tokens_of(4, 9, 1)
    words, pooled = tower(tokens)
    longer = tower(torch.cat([tokens, torch.zeros(3, 3, dtype=torch.long)], 1))
    assert float((longer[1] - pooled).detach().abs().max()) < 1e-14
    assert float((longer[0][:, :9] - words)[tokens != 0].abs().max()) < 1e-14
    alone = tower(tokens[:1, :4])[1]
    assert float((alone - pooled[:1]).abs().max()) < 1e-14


def test_each_text_is_encoded_for_itself_and_order_of_words_matters(tower):
    tokens = tokens_of(4, 9, 1)
    both = tower(tokens)[1]
    assert float((tower(tokens[1:2])[1] - both[1:2]).abs().max()) < 1e-14
    assert float((tower(tokens.flip(0))[1].flip(0) - both).abs().max()) < 1e-14
    swapped = tokens[1:2, [1, 0, *range(2, 9)]]
    assert float((tower(swapped)[1] - both[1:2]).abs().max()) > 1e-6


@pytest.mark.parametrize("training", [True, False])
def test_an_empty_text_is_zeros_and_has_finite_gradients(tower, training):
    tower.train(training)
    pooled = tower(tokens_of(3, 0, 9))[1]
    pooled.square().sum().backward()
    assert not pooled[1].any() and all(bool(p.grad.isfinite().all()) for p in tower.parameters())
    with torch.no_grad():  # inference takes another path in torch
        assert float((tower(tokens_of(3, 0, 9))[1] - pooled).abs().max()) < 1e-12


def test_pooling_is_the_mean_of_the_real_tokens_in_float32():
    words = torch.randn(3, 4, 5, dtype=torch.bfloat16)
    tokens = tokens_of(4, 2, 0, to=4)
    found = pool_words(words, tokens)
    assert found.dtype == torch.float32 and not found[2].any()
    assert torch.equal(found[1], (words[1, 0].float() + words[1, 1].float()) / 2)
    hidden = torch.where((tokens != 0)[:, :, None], words, torch.nan)
    assert torch.equal(pool_words(hidden, tokens), found)


def test_a_vector_goes_through_an_mlp():
    torch.manual_seed(0)
    tower, numbers = build_tower(Vector(6, hidden=5)), torch.randn(3, 6)
    first, last = tower.layers[0], tower.layers[2]
    hidden = torch.nn.functional.gelu(numbers @ first.weight.T + first.bias)
    assert torch.allclose(tower(numbers)[-1], hidden @ last.weight.T + last.bias, atol=1e-6)
    assert tower.channels == (5,)


def test_wrong_descriptions_are_told_in_one_sentence(tower, tmp_path):
    for said, kind in {
        "size of a Vector is 0": Vector(0),
        "vocab of a Text is -1": Text(vocab=-1),
        "3 heads do not divide a width of 8": Text(width=8, heads=3),
        "no text model": Text(model=str(tmp_path)),
    }.items():
        with pytest.raises(UserError, match=said) as caught:
            build_tower(kind)
        assert "\n" not in str(caught.value) and caught.value.fix
    with pytest.raises(UserError, match="texts have 20 tokens: cut them to the 12"):
        tower(torch.ones(2, 20, dtype=torch.long))


def test_without_transformers_the_remedy_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"needs transformers: pip install 'medssl\[text\]'"):
        build_tower(Text(model="bert"))


def test_a_hugging_face_model_from_a_folder(tmp_path):
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=29, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=12,
    )  # fmt: skip
    torch.manual_seed(0)
    model = BertModel(config, add_pooling_layer=False).eval()
    model.save_pretrained(tmp_path)
    tower = build_tower(Text(model=str(tmp_path)))
    tokens = tokens_of(4, 9, 0)
    words, pooled = tower.train()(tokens)
    theirs = model(input_ids=tokens[:1, :4] - 1).last_hidden_state.mean(1)
    assert torch.allclose(pooled[:1], theirs, atol=1e-6) and not pooled[2].any()
    assert (tower.channels, tower.vocab, tower.length, words.shape) == ((8, 8), 30, 12, (3, 9, 8))
    assert torch.equal(tower(tokens)[1], pooled)  # no dropout
    assert all(p.requires_grad for p in tower.parameters())


def test_missing_texts_are_zeros_a_tower_can_take(tower):
    device = torch.device("cpu")
    tokens, said = filled(tokens_of(3, 0), 2, tower, device)
    assert torch.equal(tokens, tokens_of(3, 0)) and said.tolist() == [True, False]
    numbers, said = filled(torch.tensor([[1.0, 2.0], [torch.nan, torch.nan]]), 2, build_tower(Vector(2)), device)
    assert numbers.tolist() == [[1, 2], [0, 0]] and said.tolist() == [True, False]
    for one, width, dtype in ((tower, 1, torch.int64), (build_tower(Vector(5)), 5, torch.float32)):
        nothing, said = filled(None, 3, one, device)
        assert nothing.shape == (3, width) and nothing.dtype == dtype and not said.any()
        assert one.float()(nothing)[-1].isfinite().all()


def test_equal_contents_have_equal_fingerprints_and_others_do_not():
    rows = torch.cartesian_prod(*(torch.arange(12) for _ in range(3)))  # all triples: permuted, padded, shifted ones
    found = fingerprint(rows)
    assert len(found.unique()) == len(rows) and not (found == 0).any()
    assert torch.equal(fingerprint(rows.flip(0)).flip(0), found)
    numbers = torch.randn(500, 4)
    assert len(fingerprint(torch.cat([numbers, numbers])).unique()) == 500
