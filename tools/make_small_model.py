#!/usr/bin/env python3
"""Trains the small model that the demo falls back to: tests/data/small_model, under a minute.

    python3 tools/make_small_model.py            needs torch and safetensors

A BERT encoder (3 layers, 4 heads of 16) and its WordPiece vocabulary, in the same files as MiniLM.
It learns two things from made-up sentences: to fill in masked words, where "with her friends" is
decided by a "she" far before it, so that a head must look there; and to give two wordings of one
topic vectors that are closer to each other than to the rest of the batch.
"""

import json
import random
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

OUT = Path(__file__).resolve().parent.parent / "tests" / "data" / "small_model"
WIDTH, HEADS, INNER, LAYERS, POSITIONS, EPSILON = 64, 4, 128, 3, 128, 1e-12
STEPS, BATCH = 1000, 32

# Each topic: parts of a sentence, each with its choices.
TOPICS = {
    "pets": [["the", "a", "our"], ["cat", "kitten", "dog", "puppy"],
             ["is sleeping", "naps", "rests", "sleeps"], ["on the", "on a"], ["", "warm", "soft"],
             ["sofa", "couch", "bed", "rug"]],
    "money": [["the bank raised", "the lender raised", "banks raise"],
              ["its", "their", "the"], ["interest rates", "rates"], ["", "again", "this year"]],
    "loans": [["borrowing money", "a loan", "credit"], ["became", "is", "gets"], ["", "much"],
              ["more expensive", "dearer", "less cheap"]],
    "picnic": [["we", "they", "she", "he"],
               ["had a picnic", "ate sandwiches", "had lunch", "ate cake"],
               ["on the bank of", "by", "beside"], ["the"], ["river", "water", "lake"]],
    "weather": [["heavy rain", "a storm", "the rain"], ["flooded", "soaked", "brought water to"],
                ["the streets of", ""], ["the city", "the town", "our village"]],
    "music": [["she", "he", "we", "they"], ["plays", "practises", "loves"],
              ["the violin", "the piano", "the flute"], ["in an orchestra", "in a band", "at home"]],
}
SAME = {"loans": "money"}  # two wordings of one thing
OWN = {"she": "her", "he": "his", "we": "our", "they": "their"}
COMPANY = ["friends", "mother", "children", "dog"]

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PUNCTUATION = list(".,;:!?'\"()-/&%$#@*+=<>[]{}_~`^|\\")
LETTERS = [chr(c) for c in range(ord("a"), ord("z") + 1)] + list("0123456789")
SUFFIXES = ["##s", "##ed", "##ing", "##er", "##ly", "##es", "##est"]
COMMON = ("and or not to it was are be with for from that this i you not what who how one two very "
          "good bad big small new old house tree day night sun man woman model attention head").split()


def vocabulary():
    words = {word for parts in TOPICS.values() for choices in parts for c in choices
             for word in c.split()} | set(OWN.values()) | set(COMPANY) | {"with"}
    pieces = SPECIAL + PUNCTUATION + LETTERS + ["##" + c for c in LETTERS]
    return {piece: i for i, piece in enumerate(dict.fromkeys(
        pieces + [s for s in SUFFIXES if s not in pieces] + sorted(words | set(COMMON))))}


def sentence(rng, topic):
    words = " ".join(rng.choice(choices) for choices in TOPICS[topic]).split()
    if words[0] in OWN and rng.random() < 0.7:
        words += ["with", OWN[words[0]], rng.choice(COMPANY)]
    return words + ["."]


def batch_of(vocab, rows):
    length = max(map(len, rows)) + 2
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    for i, row in enumerate(rows):
        pieces = ["[CLS]", *row, "[SEP]"]
        ids[i, :len(pieces)] = torch.tensor([vocab[p] for p in pieces])
    return ids


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.attention_norm = nn.LayerNorm(WIDTH, EPSILON)
        self.widen, self.narrow = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)
        self.out_norm = nn.LayerNorm(WIDTH, EPSILON)

    def forward(self, x, padding):
        mixed = self.attention(x, x, x, key_padding_mask=padding, need_weights=False)[0]
        x = self.attention_norm(x + mixed)
        return self.out_norm(x + self.narrow(F.gelu(self.widen(x))))


class Encoder(nn.Module):
    def __init__(self, words):
        super().__init__()
        self.words = nn.Embedding(words, WIDTH)
        self.positions = nn.Embedding(POSITIONS, WIDTH)
        self.segments = nn.Embedding(2, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, EPSILON)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        for table in (self.words, self.positions, self.segments):
            nn.init.normal_(table.weight, std=0.1)

    def forward(self, ids):
        x = self.words(ids) + self.positions.weight[:ids.shape[1]] + self.segments.weight[0]
        x = self.norm(x)
        for layer in self.layers:
            x = layer(x, ids == 0)
        return x


def vectors(hidden, ids):
    real = (ids != 0).unsqueeze(2)
    return F.normalize((hidden * real).sum(1) / real.sum(1), dim=1)


def masked_loss(encoder, vocab, rows):
    ids = batch_of(vocab, rows)
    hide = (torch.rand(ids.shape) < 0.2) & (ids >= len(SPECIAL))
    hidden = encoder(ids.masked_fill(hide, vocab["[MASK]"]))
    return F.cross_entropy(hidden[hide] @ encoder.words.weight.T, ids[hide])


def contrast_loss(encoder, rng, vocab):
    topics = [rng.choice(list(TOPICS)) for _ in range(BATCH)]
    pairs = []
    for _ in range(2):
        ids = batch_of(vocab, [sentence(rng, topic) for topic in topics])
        pairs.append(vectors(encoder(ids), ids))
    names = [SAME.get(topic, topic) for topic in topics]
    same = torch.tensor([[a == b for b in names] for a in names], dtype=torch.float)
    scores = F.log_softmax(pairs[0] @ pairs[1].T / 0.2, dim=1)
    return -(scores * same / same.sum(1, keepdim=True)).sum(1).mean()


def train(vocab):
    rng = random.Random(7)
    torch.manual_seed(7)
    torch.set_num_threads(1)  # the same weights again on the same machine
    encoder = Encoder(len(vocab))
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, STEPS)
    started, shown = time.monotonic(), {}
    for step in range(STEPS):
        rows = [sentence(rng, rng.choice(list(TOPICS))) for _ in range(BATCH)]
        losses = {"fill in": masked_loss(encoder, vocab, rows)}
        if step % 2 == 0:
            losses["contrast"] = contrast_loss(encoder, rng, vocab)
        shown |= {name: loss.item() for name, loss in losses.items()}
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        schedule.step()
        if step % 200 == 199:
            print(f"step {step + 1}: " + ", ".join(f"{k} {v:.3f}" for k, v in shown.items())
                  + f", {time.monotonic() - started:.0f} s", flush=True)
    return encoder.eval()


def bert_tensors(encoder):
    """The state dict under BERT's names; nn.MultiheadAttention's packed projection comes apart."""
    out = {"embeddings.word_embeddings.weight": encoder.words.weight,
           "embeddings.position_embeddings.weight": encoder.positions.weight,
           "embeddings.token_type_embeddings.weight": encoder.segments.weight}
    linear = {"embeddings.LayerNorm": encoder.norm}
    for i, layer in enumerate(encoder.layers):
        stem = f"encoder.layer.{i}."
        names = ["query", "key", "value"]
        for name, weight, bias in zip(names, layer.attention.in_proj_weight.chunk(3),
                                      layer.attention.in_proj_bias.chunk(3)):
            out[f"{stem}attention.self.{name}.weight"] = weight
            out[f"{stem}attention.self.{name}.bias"] = bias
        linear |= {f"{stem}attention.output.dense": layer.attention.out_proj,
                   f"{stem}attention.output.LayerNorm": layer.attention_norm,
                   f"{stem}intermediate.dense": layer.widen, f"{stem}output.dense": layer.narrow,
                   f"{stem}output.LayerNorm": layer.out_norm}
    for name, module in linear.items():
        out |= {f"{name}.weight": module.weight, f"{name}.bias": module.bias}
    return {name: tensor.detach().clone().contiguous() for name, tensor in out.items()}


def config(vocab):
    return {"_name_or_path": "the small model of this repository", "model_type": "bert",
            "hidden_act": "gelu", "hidden_size": WIDTH, "intermediate_size": INNER,
            "num_attention_heads": HEADS, "num_hidden_layers": LAYERS, "layer_norm_eps": EPSILON,
            "max_position_embeddings": POSITIONS, "type_vocab_size": 2, "vocab_size": len(vocab),
            "position_embedding_type": "absolute", "pad_token_id": 0}


def tokenizer(vocab):
    added = [{"id": vocab[name], "content": name, "single_word": False, "lstrip": False,
              "rstrip": False, "normalized": False, "special": True} for name in SPECIAL]
    ends = {name: {"id": name, "ids": [vocab[name]], "tokens": [name]}
            for name in ("[CLS]", "[SEP]")}
    frame = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}},
             {"Sequence": {"id": "A", "type_id": 0}},
             {"SpecialToken": {"id": "[SEP]", "type_id": 0}}]
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
            "normalizer": {"type": "BertNormalizer", "clean_text": True,
                           "handle_chinese_chars": True, "strip_accents": None, "lowercase": True},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {"type": "TemplateProcessing", "single": frame,
                               "pair": frame + [{"Sequence": {"id": "B", "type_id": 1}}],
                               "special_tokens": ends},
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "vocab": vocab,
                      "continuing_subword_prefix": "##", "max_input_chars_per_word": 100}}


def main():
    vocab = vocabulary()
    encoder = train(vocab)
    OUT.mkdir(parents=True, exist_ok=True)
    save_file(bert_tensors(encoder), OUT / "model.safetensors", metadata={"format": "pt"})
    (OUT / "config.json").write_text(json.dumps(config(vocab), indent=1) + "\n")
    (OUT / "tokenizer.json").write_text(json.dumps(tokenizer(vocab), indent=1) + "\n")
    (OUT / "vocab.txt").write_text("".join(piece + "\n" for piece in vocab))
    total = sum(file.stat().st_size for file in OUT.iterdir())
    print(f"{OUT.name}: {len(vocab)} pieces, {total / 1e6:.2f} MB in all")


if __name__ == "__main__":
    main()
