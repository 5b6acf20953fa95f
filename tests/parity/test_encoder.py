"""MiniLM through our encoder against torch.nn.TransformerEncoder with the same weights: every
layer's hidden states, and every head's weights."""

import subprocess

import numpy as np
import pytest
import safetensors.torch
import tokenizers
import torch

from error_rule import expect_as_good

LAYERS, WIDTH, HEADS, INNER, EPSILON = 6, 384, 12, 1536, 1e-12
SENTENCES = [
    "Attention is all you need.",
    "The bank by the river was covered in grass, and the bank in town was closed.",
    "Ein Satz auf Deutsch; une phrase en français; una frase en español.",
    "A",
    "Long sentences matter too: " + "the cat that chased the rat that ate the malt " * 14,
]


def encoder_of(state, dtype):
    """torch's own encoder, BERT's weights under torch's names."""
    layer = torch.nn.TransformerEncoderLayer(WIDTH, HEADS, INNER, dropout=0.0, activation="gelu",
                                             layer_norm_eps=EPSILON, batch_first=True)
    encoder = torch.nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
    names = {"self_attn.out_proj": "attention.output.dense", "linear1": "intermediate.dense",
             "linear2": "output.dense", "norm1": "attention.output.LayerNorm",
             "norm2": "output.LayerNorm"}
    renamed = {}
    for i in range(LAYERS):
        bert, ours = f"encoder.layer.{i}.", f"layers.{i}."
        for kind in ("weight", "bias"):
            parts = [state[f"{bert}attention.self.{n}.{kind}"] for n in ("query", "key", "value")]
            renamed[f"{ours}self_attn.in_proj_{kind}"] = torch.cat(parts)
            for name, source in names.items():
                renamed[f"{ours}{name}.{kind}"] = state[f"{bert}{source}.{kind}"]
    encoder.load_state_dict(renamed)
    return encoder.to(dtype).eval()


def embedded(state, ids, dtype):
    tables = {n: state[f"embeddings.{n}_embeddings.weight"].to(dtype)
              for n in ("word", "position", "token_type")}
    x = tables["word"][ids] + tables["position"][: ids.shape[1]] + tables["token_type"][0]
    return torch.nn.functional.layer_norm(
        x, (WIDTH,), state["embeddings.LayerNorm.weight"].to(dtype),
        state["embeddings.LayerNorm.bias"].to(dtype), EPSILON)


def torch_answers(state, ids, padding, dtype):
    """(hidden states, weights per head), both lists over layers."""
    encoder = encoder_of(state, dtype)
    hidden, weights = [embedded(state, ids, dtype)], []
    for layer in encoder.layers:
        layer.register_forward_hook(lambda _, __, out: hidden.append(out))
        forward = layer.self_attn.forward

        def asking_for_weights(*arguments, forward=forward, **options):
            options |= {"need_weights": True, "average_attn_weights": False}
            out, heads = forward(*arguments, **options)
            weights.append(heads)
            return out, heads

        layer.self_attn.forward = asking_for_weights
    with torch.no_grad():
        encoder(hidden[0], src_key_padding_mask=padding)
    return [h.numpy() for h in hidden], [w.numpy() for w in weights]


@pytest.fixture(scope="module")
def sentences(model):
    tokenizer = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return [encoding.ids for encoding in tokenizer.encode_batch(SENTENCES)]


@pytest.fixture(scope="module")
def ours(build, model, sentences, tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    text = "".join(" ".join(map(str, ids)) + "\n" for ids in sentences)
    result = subprocess.run([build / "tests/parity/dump_encoder", model, folder], input=text,
                            text=True, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr
    read = lambda name, count: [np.load(folder / f"{name}{i}.npy") for i in range(count)]
    return read("hidden", LAYERS + 1), read("weights", LAYERS)


def test_hidden_states_and_every_heads_weights(model, sentences, ours):
    state = safetensors.torch.load_file(model / "model.safetensors")
    longest = max(map(len, sentences))
    ids = torch.tensor([line + [0] * (longest - len(line)) for line in sentences])  # [batch, len]
    padding = torch.tensor([[i >= len(line) for i in range(longest)] for line in sentences])
    truth = torch_answers(state, ids, padding, torch.float64)
    torchs = torch_answers(state, ids, padding, torch.float32)
    tokens = ~padding.numpy()
    for layer in range(LAYERS + 1):
        expect_as_good("MiniLM hidden states", ours[0][layer][tokens], truth[0][layer][tokens],
                       [torchs[0][layer][tokens]])
    for layer in range(LAYERS):  # all heads of a layer: [tokens, num_heads, len]
        mine, true, other = (w[layer].swapaxes(1, 2)[tokens] for w in (ours[1], truth[1], torchs[1]))
        expect_as_good("MiniLM weights of every head", mine, true, [other])
