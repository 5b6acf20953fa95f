"""polyhead.torch where torch looks at the program: compile, export, torch.func, opcheck; and
gradcheck."""

import subprocess
import sys

import polyhead.torch
import pytest
import torch
from polyhead.torch import scaled_dot_product_attention as attend
from torch import nn
from torch.func import functional_call, grad, jacrev, vmap

OPTIONS = [{}, {"bias": False, "add_bias_kv": True}, {"kdim": 3, "vdim": 5, "add_zero_attn": True},
           {"num_kv_heads": 1, "head_dim": 6, "qk_norm": True, "rope": {"pairs": "halves"}}]


def module_and_inputs(dtype=torch.float64, **options):
    torch.manual_seed(0)
    module = polyhead.torch.MultiheadAttention(8, 2, batch_first=True, dtype=dtype, **options)
    sizes = (4, 8), (5, module.kdim), (5, module.vdim)
    inputs = [torch.randn(2, *size, dtype=dtype, requires_grad=True) for size in sizes]
    padding = torch.randn(2, 5, dtype=dtype, requires_grad=True)
    mask = torch.rand(4, 5) < 0.3
    mask[1] = True  # a row that sees nothing
    return module, inputs, {"key_padding_mask": padding, "attn_mask": mask}


@pytest.mark.parametrize("options, average", list(zip(OPTIONS, [True, False, True, True])))
def test_gradcheck(options, average):
    module, inputs, masks = module_and_inputs(**options)

    def results(*tensors):
        *qkv, padding = tensors[:4]
        return functional_call(module, dict(zip(names, tensors[4:])), tuple(qkv), {
            "key_padding_mask": padding, "attn_mask": masks["attn_mask"],
            "average_attn_weights": average})

    names = [name for name, _ in module.named_parameters()]
    assert torch.autograd.gradcheck(
        results, (*inputs, masks["key_padding_mask"], *module.parameters()))


def test_gradcheck_of_attention():
    torch.manual_seed(0)
    query, key, value = (torch.randn(*size, dtype=torch.float64, requires_grad=True)
                         for size in ((2, 4, 3, 5), (1, 2, 6, 5), (2, 2, 6, 4)))
    bias = torch.randn(4, 1, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda *x: attend(*x, enable_gqa=True, scale=0.7, weights="per_head"),
        (query, key, value, bias))


def expect_same(compiled, eager, tensors):
    got, want = compiled(), eager()
    assert all(torch.equal(a, b) for a, b in zip(got, want))
    gradients = [torch.autograd.grad(sum(x.square().sum() for x in results), tensors)
                 for results in (got, want)]
    for a, b in zip(*gradients):
        assert torch.allclose(a, b)


@pytest.mark.parametrize("options, dynamic", list(zip(OPTIONS, [False, True, False, False])))
def test_compile(options, dynamic):
    torch.compiler.reset()
    module, inputs, masks = module_and_inputs(**options)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    tensors = [*inputs, masks["key_padding_mask"], *module.parameters()]
    expect_same(lambda: compiled(*inputs, **masks), lambda: module(*inputs, **masks), tensors)
    with torch.no_grad():
        assert torch.equal(compiled(*inputs, **masks)[0], module(*inputs, **masks)[0])
        module.out_proj.weight.mul_(2)
        assert torch.equal(compiled(*inputs, **masks)[0], module(*inputs, **masks)[0])


def test_compile_of_attention():
    torch.compiler.reset()
    query, key, value = torch.randn(3, 2, 4, 5, 8, requires_grad=True)
    call = lambda: (attend(query, key, value, is_causal=True),)
    expect_same(torch.compile(call, fullgraph=True, backend="aot_eager"), call, [query, key, value])


def test_compile_of_a_converted_model():
    torch.compiler.reset()
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    model = polyhead.torch.convert(nn.TransformerEncoder(layer, 2)).eval()
    x = torch.randn(2, 7, 16)
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        assert torch.allclose(compiled(x), model(x), atol=1e-6)


@pytest.mark.parametrize("train", [True, False])
def test_export(train):
    module, inputs, masks = module_and_inputs()
    module.train(train)
    program = torch.export.export(module, tuple(inputs), masks)
    targets = [str(node.target) for node in program.graph.nodes]
    assert targets.count("polyhead.multihead_attention.default") == 1
    assert not any("scaled_dot" in target or "native_multi" in target for target in targets)
    for got, want in zip(program.module()(*inputs, **masks), module(*inputs, **masks)):
        assert torch.equal(got, want)


def test_func():
    module, inputs, masks = module_and_inputs()
    parameters = dict(module.named_parameters())

    def loss(parameters, query, key, value):
        out, weights = functional_call(module, parameters, (query, key, value), {
            "attn_mask": masks["attn_mask"], "average_attn_weights": False})
        return out.square().sum() + weights.square().sum()

    each = [x.detach() for x in inputs]
    got = vmap(grad(loss), in_dims=(None, 0, 0, 0))(parameters, *each)
    for i in range(2):
        want = grad(loss)(parameters, *(x[i] for x in each))
        real = torch.autograd.grad(loss(parameters, *(x[i] for x in inputs)), list(parameters.values()))
        for (name, one), other in zip(want.items(), real):
            assert torch.allclose(one, other) and torch.allclose(got[name][i], one), name
    none = vmap(grad(loss), in_dims=(None, 0, 0, 0))(parameters, *(x[:0] for x in each))
    assert all(none[name].shape == (0, *one.shape) for name, one in want.items())
    jacobian = jacrev(lambda x: module(x, x, x)[0])(each[0])
    assert jacobian.shape == (2, 4, 8, 2, 4, 8) and not jacobian[0, :, :, 1].any()


def test_second_derivatives_are_refused():
    module, inputs, _ = module_and_inputs()
    loss = lambda x: module(x, *inputs[1:])[0].square().sum()
    with pytest.raises(RuntimeError, match="second derivatives are not implemented"):
        grad(lambda x: grad(loss)(x).sum())(inputs[0].detach())


@pytest.mark.parametrize("options, weights", list(zip(OPTIONS, ["", "average", "per_head", ""])))
def test_opcheck(options, weights):
    module, inputs, masks = module_and_inputs(**options)
    parameters, _ = module._parameters_in_order()
    config = [8, 2, module.kdim, module.vdim, True, module.in_proj_bias is not None,
              module.bias_k is not None, module.add_zero_attn]
    torch.library.opcheck(torch.ops.polyhead.multihead_attention, (
        *inputs, masks["key_padding_mask"], masks["attn_mask"], *parameters, None,
        [int(x) for x in config], False, "top_left", weights, "zero", 0.0, 0, 0, module._extras))


def test_opcheck_of_attention():
    query, key, value = torch.randn(3, 2, 4, 5, 8, requires_grad=True)
    bias = torch.randn(5, 5, requires_grad=True)
    sinks = torch.randn(4, requires_grad=True)
    slopes, lengths = torch.rand(4), torch.tensor([5, 3])
    torch.library.opcheck(torch.ops.polyhead.attention, (
        query, key, value, bias, sinks, slopes, lengths, None, None, None, None, torch.tensor(7),
        None, True, "top_left", "per_head", "zero", 0.2, 1.0, [3, 0], None, 2.0))


def test_a_saved_program_is_loaded_by_a_process_that_called_nothing_yet(tmp_path):
    module, inputs, _ = module_and_inputs()
    path = tmp_path / "module.pt2"
    torch.export.save(torch.export.export(module, tuple(inputs)), path)
    code = (f"import torch, polyhead.torch; module = torch.export.load({str(path)!r}).module(); "
            "x = torch.ones(2, 4, 8, dtype=torch.float64); y = torch.ones(2, 5, 8, dtype=torch.float64); "
            "assert module(x, y, y)[0].shape == x.shape")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_tensor_that_outlives_its_transform():
    module, inputs, _ = module_and_inputs()
    left = []
    grad(lambda x: left.append(x) or x.sum())(inputs[0].detach())
    out = module(left[0], *inputs[1:])[0]
    assert torch.equal(out, module(*inputs)[0])
    out.sum().backward()
    assert all(p.grad.isfinite().all() for p in module.parameters())
