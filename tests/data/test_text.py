"""Texts as tokens: learnt on the corpus, the same every time, nothing lost in silence."""

import json
import subprocess
import sys

import pytest
import torch

from medssl.data.text import HuggingFaceTokenizer, Tokenizer
from medssl.errors import UserError

CORPUS = [
    "No focal lesion. No pleural effusion.",
    "Two lesions of the liver, the largest measuring 23 mm.",
    "Small pleural effusion on the left.",
    "A single focal lesion in the left lung, up to 7 mm.",
    None,
    "",
]
TRAIN = """
import json, sys
from medssl.data.text import Tokenizer
corpus = json.loads(sys.argv[1])
print(Tokenizer.train(corpus, vocab=50)._inner.to_str())
"""


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(CORPUS, vocab=120, length=16)


def test_tokens_are_pieces_of_the_words(tokenizer):
    tokens, cut = tokenizer.encode(["Pleural effusion, left.", "", None, "   "])
    assert tokens.shape == (4, 16) and tokens.dtype == torch.int64 and cut == 0
    assert tokenizer._inner.decode(tokens[0][tokens[0] != 0].tolist()) == "pleural effusion, left."
    assert int((tokens[0] != 0).sum()) == 5  # frequent words are one piece
    assert not tokens[1:].any() and int(tokens.max()) < tokenizer.vocab <= 120
    assert torch.equal(tokenizer.encode(["PLEURAL effusion , left ."])[0], tokens[:1])


def test_letters_never_seen_are_the_unknown_piece_and_not_padding(tokenizer):
    assert tokenizer.encode(["ξ"])[0][0].tolist() == [1] + [0] * 15


def test_texts_that_are_cut_are_counted(tokenizer):
    tokens, cut = tokenizer.encode([" ".join(["lesion"] * n) for n in (3, 16, 17, 40)])
    assert cut == 2 and bool((tokens[1:] != 0).all()) and int((tokens[0] != 0).sum()) == 3


def test_the_same_corpus_gives_the_same_tokenizer_in_every_process_and_order():
    found = {
        subprocess.run(
            [sys.executable, "-c", TRAIN, json.dumps(order)], capture_output=True, text=True, check=True
        ).stdout
        for order in (CORPUS, CORPUS, CORPUS[::-1], CORPUS + CORPUS[:1])
    }
    assert len(found) == 1 and len(json.loads(found.pop())["model"]["vocab"]) == 50


def test_saved_and_loaded_it_is_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")
    again = Tokenizer.load(tmp_path / "tokenizer.json")
    assert (again.vocab, again.length) == (tokenizer.vocab, 16)
    texts = [*CORPUS, "lesion " * 30]
    (tokens, cut), (expected, as_before) = again.encode(texts), tokenizer.encode(texts)
    assert torch.equal(tokens, expected) and cut == as_before == 3  # two findings are spelt letter by letter


def test_what_cannot_be_is_said_in_one_sentence(tokenizer, tmp_path):
    broken = tmp_path / "tokenizer.json"
    broken.write_text("{}")
    for said, act in {
        "no text to train": lambda: Tokenizer.train(["", None, "  "]),
        "2 pieces and 128 tokens": lambda: Tokenizer.train(CORPUS, vocab=2),
        "no tokenizer here": lambda: Tokenizer.load(tmp_path / "none.json"),
        "cannot be read": lambda: Tokenizer.load(broken),
        "no tokenizer:": lambda: HuggingFaceTokenizer(str(tmp_path)),
    }.items():
        with pytest.raises(UserError, match=said) as caught:
            act()
        assert "\n" not in str(caught.value) and caught.value.fix


@pytest.mark.parametrize("package", ["tokenizers", "transformers"])
def test_a_missing_package_is_told_with_the_command_that_installs_it(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"needs? .*{package}: pip install 'medssl\[text\]'"):
        Tokenizer.train(CORPUS) if package == "tokenizers" else HuggingFaceTokenizer("bert")


def test_a_hugging_face_tokenizer_speaks_the_same_way(tmp_path):
    from transformers import BertTokenizerFast

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "pleural", "effusion", "left", "."]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces))
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    tokenizer = HuggingFaceTokenizer(str(tmp_path), length=6)
    tokens, cut = tokenizer.encode(["Pleural effusion.", None, "left " * 9])
    assert cut == 1 and tokenizer.vocab == len(pieces) + 1
    assert tokens.tolist() == [[3, 6, 7, 9, 4, 0], [0] * 6, [3, 8, 8, 8, 8, 4]]
