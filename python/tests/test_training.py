"""polyhead._core: forward into the caller's memory, and backward. Private, for what is built on top;
that the gradients are right to the last bits is tested in C++, here that each reaches its place."""

import numpy as np
import pytest
from formula import expect_same_bits, random_inputs
from polyhead import _core

RNG = np.random.default_rng


def differences(f, x, direction, step):
    return (f(x + step * direction) - f(x - step * direction)) / (2 * step)


def expect_derivative(f, x, d_x, seed=0):
    """<d_x, direction> is the derivative of f, as exactly as two step sizes agree on it."""
    direction = RNG(seed).standard_normal(x.shape)
    coarse, fine = (differences(f, x, direction, step) for step in (2e-4, 1e-4))
    assert np.abs(d_x).max() > 0
    assert abs((d_x * direction).sum() - fine) <= 2 * abs(coarse - fine) + 1e-9 * (1 + abs(fine))


def options_for(mask, **changes):
    arguments = {"attn_mask": mask, "dropout_p": 0.0, "seed": 0, "is_causal": True, "scale": None,
                 "causal_align": "bottom_right", "weights": "average", "empty_rows": "zero"}
    return _core.AttentionOptions(**(arguments | changes))


@pytest.mark.parametrize("dropout_p", [0.0, 0.3])
def test_the_op(dropout_p):
    query, key, value = random_inputs(1, dtype="float64")
    bias = RNG(2).standard_normal((3, 1, 9))
    d_out, d_weights = RNG(3).standard_normal((2, 3, 7, 10)), RNG(4).standard_normal((2, 7, 9))

    def forward(query, key, value, bias):
        outputs = (np.empty((2, 3, 7, 10)), np.empty((2, 3, 7)), np.empty((2, 7, 9)))
        options = options_for(bias, dropout_p=dropout_p, seed=5)
        _core.attention_forward(query, key, value, options, outputs)
        return outputs, options

    def loss(*inputs):
        (out, _, weights), _ = forward(*inputs)
        return (out * d_out).sum() + (weights * d_weights).sum()

    inputs = [query, key, value, bias]
    (out, lse, _), options = forward(*inputs)
    gradients = [np.full_like(x, np.nan) for x in inputs]
    saved = (out, lse, d_out, d_weights)
    _core.attention_backward(query, key, value, options, saved, gradients)
    for i, gradient in enumerate(gradients):
        alone = [None] * 4
        alone[i] = np.empty_like(gradient)
        _core.attention_backward(query, key, value, options, saved, alone)
        expect_same_bits(alone[i], gradient)
        expect_derivative(lambda x: loss(*inputs[:i], x, *inputs[i + 1:]), inputs[i], gradient)


def new_module(**changes):
    arguments = {"embed_dim": 8, "num_heads": 2, "dropout": 0.0, "bias": True, "add_bias_kv": True,
                 "add_zero_attn": False, "kdim": 5, "vdim": 7, "batch_first": True,
                 "dtype": "float64", "seed": 1}
    return _core.MultiheadAttention(**(arguments | changes))


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_the_module(dropout):
    module = new_module(dropout=dropout)
    normal = RNG(1).standard_normal
    inputs = [normal((2, 4, 8)), normal((2, 6, 5)), normal((2, 6, 7)), normal((4, 6)), normal((2, 6))]
    d_out, d_weights = normal((2, 4, 8)), normal((2, 2, 4, 7))
    parameters = module.parameters()

    def forward(query, key, value, attn_mask, padding, context):
        return module.forward(query, key, value, padding, attn_mask, "per_head", False, "top_left",
                              "zero", context=context)

    def loss(*inputs):
        out, weights = forward(*inputs, _core.TrainingContext(seed=7))
        return (out * d_out).sum() + (weights * d_weights).sum()

    def loss_of_parameter(name, value):
        before = parameters[name].copy()
        parameters[name][...] = value
        module.repack()
        result = loss(*inputs)
        parameters[name][...] = before
        module.repack()
        return result

    context = _core.TrainingContext(seed=7)
    forward(*inputs, context)
    assert context.call == 1
    d_inputs = [np.full_like(x, np.nan) for x in inputs]
    d_parameters = {name: np.full_like(value, np.nan) for name, value in parameters.items()}
    module.backward(context, (d_out, d_weights), d_inputs, d_parameters, False)
    once = {name: value.copy() for name, value in d_parameters.items()}
    only = {name: d_parameters[name] if name == "bias_k" else None for name in once}
    module.backward(context, (d_out, d_weights), [None] * 5, only, True)
    expect_same_bits(d_parameters.pop("bias_k"), once["bias_k"] * 2)
    for name, gradient in d_parameters.items():
        expect_same_bits(gradient, once[name])
    for i, gradient in enumerate(d_inputs):
        expect_derivative(lambda x: loss(*inputs[:i], x, *inputs[i + 1:]), inputs[i], gradient)
    for name, gradient in once.items():
        expect_derivative(lambda x: loss_of_parameter(name, x), parameters[name].copy(), gradient)


def test_the_context_keeps_the_inputs():
    """backward reads what forward was given, though the caller has let go of it."""
    module = new_module(kdim=None, vdim=None, add_bias_kv=False)
    x = RNG(1).standard_normal((2, 300, 8))

    def train(keep):
        context = _core.TrainingContext()
        inputs = x.copy()
        module.forward(inputs, inputs, inputs, None, None, None, False, "top_left", "zero", None, context)
        if not keep:
            del inputs
            [np.full_like(x, np.nan) for _ in range(10)]
        d_x = np.empty_like(x)
        module.backward(context, (np.ones_like(x), None), [d_x, d_x, d_x, None, None], {}, False)
        return d_x

    expect_same_bits(train(keep=False), train(keep=True))


def test_memory_of_the_caller():
    module = new_module(kdim=None, vdim=None)
    x = RNG(1).standard_normal((2, 4, 8))
    expected, expected_weights = module.forward(x, x, x, None, None, "average", False, "top_left", "zero")
    out, weights = np.empty((4, 2, 8)).swapaxes(0, 1), np.empty((2, 4, 5))
    module.forward(x, x, x, None, None, "average", False, "top_left", "zero", (out, weights))
    expect_same_bits(out.copy(), expected)
    expect_same_bits(weights, expected_weights)
    out.flags.writeable = False
    with pytest.raises(TypeError, match="forward: out: got ndarray of dtype float64; need a writable"):
        module.forward(x, x, x, None, None, None, False, "top_left", "zero", (out, None))


def test_capsules():
    """What __dlpack__ gave is as good as the array: cheaper for a framework that has it at hand."""
    module = new_module(kdim=None, vdim=None)
    x, out = RNG(1).standard_normal((2, 4, 8)), np.empty((2, 4, 8))
    words = (None, None, None, False, "top_left", "zero")
    expected, _ = module.forward(x, x, x, *words)
    capsule = x.__dlpack__()
    module.forward(capsule, capsule, capsule, *words, (out.__dlpack__(), None))
    expect_same_bits(out, expected)
    with pytest.raises(TypeError, match="MultiheadAttention: query: got PyCapsule"):
        module.forward(capsule, x, x, *words)  # used up


def test_from_scratch():
    module = _core.FromScratchMultiHeadAttention(6, 2, "full", "float64", 1)
    normal = RNG(1).standard_normal
    inputs = [normal((2, 3, 6)), normal((2, 4, 6)), normal((2, 4, 6)), 1e-5 * normal((3, 4))]
    d_out = normal((2, 3, 6))
    context = _core.TrainingContext()
    module.forward(*inputs, context=context)
    gradients = [np.full_like(x, np.nan) for x in inputs]
    d_parameters = {name: np.empty_like(value) for name, value in module.parameters().items()}
    module.backward(context, (d_out, None), [*gradients, None], d_parameters, False)
    loss = lambda *inputs: (module.forward(*inputs) * d_out).sum()
    for i, gradient in enumerate(gradients[:3]):
        expect_derivative(lambda x: loss(*inputs[:i], x, *inputs[i + 1:]), inputs[i], gradient)
    expect_same_bits(d_parameters["fc_out.bias"], d_out.sum(axis=(0, 1)))
