"""What is no dense tensor of the CPU, or no option: every operand and option of polyhead.torch, refused
in one line that names it, by an error of torch's type."""

import numpy as np
import polyhead.torch
import pytest
import torch
from polyhead.torch import FromScratchMultiHeadAttention, MultiheadAttention

E, H = 8, 2
attend = polyhead.torch.scaled_dot_product_attention


def module(*operands, **options):
    return MultiheadAttention(E, H, batch_first=True)(*operands, **options)


def scratch(*operands, **options):
    return FromScratchMultiHeadAttention(E, H)(*operands, **options)


# name: (the call, its operands' names and shape, its masks' names and shapes)
CALLS = {
    "module": (module, ("query", "key", "value"), (2, 3, E),
               {"key_padding_mask": (2, 3), "attn_mask": (3, 3)}),
    "attention": (attend, ("query", "key", "value"), (2, H, 3, E), {"attn_mask": (3, 3)}),
    "from scratch": (scratch, ("q", "k", "v"), (2, 3, E), {"mask": (3, 3)})}
NO_TENSORS = {"list": [1.0], "array": np.zeros((2, 3, E), np.float32), "int": 3, "str": "x"}
OTHER_KINDS = {
    "sparse": (lambda x: x.to_sparse(), RuntimeError, "layout is torch.sparse_coo; .*to_dense"),
    "csr": (lambda x: x.flatten(0, -2).to_sparse_csr(), RuntimeError, "layout is torch.sparse_csr; "),
    "mkldnn": (lambda x: x.to_mkldnn(), RuntimeError, "layout is torch._mkldnn; .*to_dense"),
    "nested": (lambda x: torch.nested.nested_tensor([x[0], x[0]]), (RuntimeError, AssertionError),
               "[nN]ested ?[tT]ensor.*pad"),
    "jagged": (lambda x: torch.nested.nested_tensor([x.flatten(0, -2)] * 2, layout=torch.jagged),
               (RuntimeError, AssertionError), "[nN]ested ?[tT]ensor.*pad")}


def operands_of(name, **changed):
    """Named arguments of a call that is right, but for what is changed."""
    call, names, shape, _ = CALLS[name]
    return call, {argument: torch.rand(shape) for argument in names} | changed


def expect_refusal(name, argument, value, error, words):
    call, arguments = operands_of(name, **{argument: value})
    with pytest.raises(error, match=words) as refusal:
        call(**arguments)
    assert "\n" not in str(refusal.value) and "incompatible" not in str(refusal.value)
    return str(refusal.value)


EACH_ARGUMENT = [(name, argument, shape) for name, (_, names, shape, masks) in CALLS.items()
                 for argument, shape in (dict.fromkeys(names, shape) | masks).items()]


@pytest.mark.parametrize("name, argument, kind", [
    (name, argument, kind) for name, argument, _ in EACH_ARGUMENT for kind in (*NO_TENSORS, "None")
    if kind != "None" or "mask" not in argument])
def test_what_is_no_tensor(name, argument, kind):
    words = rf"\b{argument}\b.* must be Tensor, not "
    expect_refusal(name, argument, NO_TENSORS.get(kind), TypeError, words)


@pytest.mark.parametrize("name, argument, shape", EACH_ARGUMENT)
@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_tensors_of_other_kinds(name, argument, shape, kind):
    make, error, words = OTHER_KINDS[kind]
    said = expect_refusal(name, argument, make(torch.rand(shape)), error, words)
    assert argument in said or kind in ("nested", "jagged")


@pytest.mark.parametrize("name, argument, shape", EACH_ARGUMENT)
def test_quantized_tensors(name, argument, shape):
    """torch's module says of a mask that it is no floating type."""
    quantized = torch.quantize_per_tensor(torch.rand(shape), 0.1, 0, torch.qint8)
    is_mask = name == "module" and "mask" in argument
    error = AssertionError if is_mask else RuntimeError  # NotImplementedError is a RuntimeError
    words = f"types of {argument} are" if is_mask else rf"{argument}: is quantized; .*dequantize\(\)"
    expect_refusal(name, argument, quantized, error, words)


@pytest.mark.parametrize("name, argument, shape", EACH_ARGUMENT)
def test_one_of_another_device(name, argument, shape):
    """Of a mask torch does not notice it, and what comes is on that device."""
    expect_refusal(name, argument, torch.rand(shape, device="meta"), RuntimeError, "device|meta")


@pytest.mark.parametrize("dtype", [torch.cfloat, torch.float8_e4m3fn, torch.int64, torch.bool])
@pytest.mark.parametrize("name", CALLS)
def test_operands_of_other_dtypes(name, dtype):
    """As torch's kernels say it, which is not to every dtype in the same words."""
    call, arguments = operands_of(name)
    with pytest.raises(RuntimeError, match="same dtype|not implemented for|expected scalar type"):
        call(**{argument: x.to(dtype) for argument, x in arguments.items()})


@pytest.mark.parametrize("name", ["module", "attention"])
@pytest.mark.parametrize("argument, words", [
    ("weights", "'average' or 'per_head'"), ("causal_align", "'top_left' or 'bottom_right'"),
    ("empty_rows", "'zero' or 'nan'")])
def test_words(name, argument, words):
    for value in (1, True, b"zero"):
        expect_refusal(name, argument, value, TypeError, f"{argument}: got .*; need {words}")
    expect_refusal(name, argument, "x", ValueError, f"{argument}: got 'x'; need {words}")


@pytest.mark.parametrize("argument, value", [
    ("dropout_p", "x"), ("dropout_p", None), ("is_causal", None), ("is_causal", 1), ("scale", "x"),
    ("enable_gqa", None), ("enable_gqa", 1)])
def test_options_of_attention_are_torchs(argument, value):
    said = expect_refusal("attention", argument, value, TypeError, f"argument '{argument}'.* must be")
    with pytest.raises(TypeError) as refusal:
        torch.nn.functional.scaled_dot_product_attention(*torch.rand(3, 2, H, 3, E), **{argument: value})
    assert str(refusal.value).split(" must be ")[1] == said.split(" must be ")[1]


@pytest.mark.parametrize("option", ["add_zero_attn", "batch_first"])
@pytest.mark.parametrize("value", [None, "x", 1])
def test_flags_are_what_counts_as_one(option, value):
    x = torch.rand(2, 3, E)
    torch.manual_seed(0)
    loose = MultiheadAttention(E, H, **{option: value})
    torch.manual_seed(0)
    strict = MultiheadAttention(E, H, **{option: bool(value)})
    for one, other in zip(loose(x, x, x), strict(x, x, x)):
        assert torch.equal(one, other)


@pytest.mark.parametrize("value", [None, "no", 1, 0, [], torch.tensor(True)])
def test_is_causal_is_a_bool(value):
    """torch's module takes "no" for yes."""
    expect_refusal("module", "is_causal", value, TypeError, "is_causal: got .*; need True or False$")


@pytest.mark.parametrize("name", ["module", "attention"])
def test_numpys_bool_says_causal(name):
    call, operands = operands_of(name)
    results = []
    for flag in (True, False, np.True_, np.False_):
        torch.manual_seed(0)  # of the module that is made
        results.append(torch.cat(list(call(**operands, is_causal=flag))[:1]))
    assert not torch.equal(results[0], results[1])
    assert torch.equal(results[2], results[0]) and torch.equal(results[3], results[1])


@pytest.mark.parametrize("dropout", ["x", None, [0.5]])
def test_what_is_no_probability(dropout):
    with pytest.raises(TypeError, match="dropout: got .*; need a number from 0 to 1"):
        MultiheadAttention(E, H, dropout=dropout)(*torch.rand(3, 2, 3, E))


@pytest.mark.parametrize("argument, shape, words", [
    ("q", (3, E), r"q: shape is \[3, 8\]; need \[batch, length, 8\]"),
    ("q", (E,), "q: shape is"), ("k", (1, 2, 3, E), "k: shape is"), ("v", (2, 3, 7), "v: shape is"),
    ("k", (3, 3, E), "k: batch is 3; need q's 2"), ("v", (2, 4, E), "v: length is 4; need k's 3"),
    ("mask", (4, 3), "mask"), ("mask", (1, 1, 1, 2, 3), "mask"), ("mask", (3, 1, 3, 3), "mask")])
def test_shapes_of_the_class_from_scratch(argument, shape, words):
    expect_refusal("from scratch", argument, torch.rand(shape), RuntimeError, words)


def test_the_class_from_scratch_on_unbatched_inputs():
    x = torch.rand(3, E)
    with pytest.raises(RuntimeError, match=r"q: shape is \[3, 8\]; need \[batch, length, 8\]"):
        scratch(x, x, x)


@pytest.mark.parametrize("arguments", [(8, 0), (8, -1), (0, 2), (-8, 2)])
def test_sizes_of_the_class_from_scratch(arguments):
    with pytest.raises(ValueError, match="need at least 1 of each"):
        FromScratchMultiHeadAttention(*arguments)


@pytest.mark.parametrize("value", [
    torch.zeros(24, dtype=torch.bfloat16), torch.zeros(24, requires_grad=True)])
def test_numpys_module_says_what_it_needs_of_a_tensor(value):
    module = polyhead.MultiheadAttention(E, H)
    state = {**module.state_dict(), "in_proj_bias": value}
    words = r"^load_state_dict: in_proj_bias: got .* \.detach\(\)\.float\(\)$"
    with pytest.raises(TypeError, match=words):
        module.load_state_dict(state)
    module.load_state_dict({**state, "in_proj_bias": value.detach().float()})


SELF_ATTENTION = {
    "module": lambda x: polyhead.torch.MultiheadAttention(8, 2)(x, x, x)[0],
    "weights": lambda x: polyhead.torch.MultiheadAttention(8, 2)(x, x, x)[1],
    "op": lambda x: polyhead.torch.scaled_dot_product_attention(x, x, x)}


@pytest.mark.parametrize("name", SELF_ATTENTION)
def test_many_gradients_at_once(name):
    x = torch.ones(3, 2, 8, requires_grad=True)
    out = SELF_ATTENTION[name](x)
    with pytest.raises(RuntimeError, match="^polyhead.torch: backward: got many gradients of a result at "
                                           "once .*; need one at a time, or torch.func.jacrev, vjp$"):
        torch.autograd.grad(out, x, torch.zeros(2, *out.shape), is_grads_batched=True, retain_graph=True)
    torch.autograd.grad(out, x, torch.zeros_like(out))  # the graph is still there


@pytest.mark.parametrize("name", ["module", "weights"])
def test_sparse_gradients(name):
    x = torch.ones(3, 2, 8, requires_grad=True)
    out = SELF_ATTENTION[name](x)
    with pytest.raises(RuntimeError, match="^polyhead.torch: backward: the gradient of a result has layout "
                                           "torch.sparse_coo; need a dense one: .to_dense\\(\\)$"):
        torch.autograd.grad(out, x, torch.zeros_like(out).to_sparse())


X, LONG = torch.zeros(1, 2, 3, 8), torch.zeros(3, dtype=torch.int64)


@pytest.mark.parametrize("structure, said", [
    ({"key_lengths": torch.tensor([9]), "is_causal": True},
     "scaled_dot_product_attention: key_lengths[0]: got 9"),
    ({"key_lengths": torch.tensor([1], dtype=torch.int16)}, "key_lengths: dtype is torch.int16; need int32 or int64"),
    ({"segments": (LONG, LONG.short())}, "segments: dtype is torch.int16; need int32 or int64"),
    ({"segments": (LONG, LONG[:2])}, "scaled_dot_product_attention: segments[1]: shape is [2]"),
    ({"alibi_slopes": torch.zeros(5)}, "scaled_dot_product_attention: alibi_slopes: shape is [5]"),
    ({"sinks": torch.zeros((1,) * 9)}, "sinks: got 9 sizes")])
def test_refusals_have_pythons_names(structure, said):
    with pytest.raises(ValueError) as refusal:
        attend(X, X, X, **structure)
    assert str(refusal.value).startswith(said), refusal.value
