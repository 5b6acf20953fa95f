"""From the module's arguments to the library: the direct way in eager mode, the operator of _op.py
wherever torch looks at the program (compile, export, functorch) or the tensors are not plain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, empty_like

from polyhead import _core
from polyhead.torch import _checks, _threads
from polyhead.torch._functorch import once

if TYPE_CHECKING:
    from polyhead.torch._multihead_attention import MultiheadAttention

# query, key, value, key_padding_mask, attn_mask
Call = tuple[Tensor, Tensor, Tensor, "Tensor | None", "Tensor | None"]


class Config(NamedTuple):
    """What the shapes of the parameters mean."""

    embed_dim: int
    num_heads: int
    kdim: int
    vdim: int
    batch_first: bool
    bias: bool
    add_bias_kv: bool
    add_zero_attn: bool

    def weights_shape(self, query: Tensor, key: Tensor, weights: str) -> list[Any]:
        """[B, L, S'] or [B, H, L, S']; of an unbatched call without B."""
        length = 0 if query.dim() == 2 or not self.batch_first else 1
        shape = [] if query.dim() == 2 else [query.shape[1 - length]]
        if weights == "per_head":
            shape.append(self.num_heads)
        columns = key.shape[length] + bool(self.add_bias_kv) + bool(self.add_zero_attn)
        return [*shape, query.shape[length], columns]


class Options(NamedTuple):
    is_causal: bool
    causal_align: str
    weights: str | None
    empty_rows: str
    dropout_p: float


class Engine:
    """The packed parameters of one module in one dtype, and calls on them."""

    def __init__(self, config: Config, dtype: torch.dtype) -> None:
        self.config = config
        self.dtype = dtype
        flags = tuple(map(bool, config[4:]))  # torch takes what counts as one
        self._core = _core.TorchModule(config[:4], flags, str(dtype).removeprefix("torch."))

    def follow(self, parameters: tuple[Tensor, ...]) -> None:
        """Packs the parameters, those that are, if they have changed. Only a Parameter can be known
        not to have: its memory is not another tensor's the next time."""
        for p in parameters:
            if type(p) is not torch.nn.Parameter or p.dtype != self.dtype:
                copies = tuple([p.detach().to(self.dtype) for p in parameters])
                return self._core.follow(copies, True)
        self._core.follow(parameters, False)

    def forward(self, call: Sequence[Tensor | None], options: Options, seed: int | None,
                keeps: bool) -> tuple[Tensor, Tensor | None, Any]:
        """(out, weights, what a backward needs) in self.dtype; dropout needs a seed."""
        _threads.follow()
        query, key = call[0], call[1]
        assert query is not None and key is not None
        out = empty_like(query, memory_format=torch.contiguous_format)
        weights = None
        if options.weights is not None:
            shape = self.config.weights_shape(query, key, options.weights)
            weights = query.new_empty(shape)
        training = None
        if keeps or seed is not None:
            training = (0.0, 0) if seed is None else (options.dropout_p, seed)
        trained = self._core.forward(call, (out, weights), *options[:4], training)
        return out, weights, trained


def attend(module: MultiheadAttention, call: Call, parameters: list[Tensor | None],
           options: Options) -> tuple[Tensor, Tensor | None]:
    """out before the module's out_proj is called, if it is; and the weights."""
    query = call[0]
    present = [p for p in parameters if p is not None]
    own_dtype = present[0].dtype
    result_dtype = own_dtype
    if torch.is_autocast_enabled("cpu") and own_dtype != torch.float64:
        result_dtype = torch.get_autocast_dtype("cpu")
    elif not query.dtype == call[1].dtype == call[2].dtype == own_dtype:
        _checks.raise_torchs_error(module, call)
    dtype = torch.float64 if own_dtype == torch.float64 else torch.float32
    config = (
        module.embed_dim, module.num_heads, module.kdim, module.vdim, module.batch_first,
        parameters[4] is not None, parameters[5] is not None, module.add_zero_attn)
    tensors = (*call, *present)
    if not is_plain(tensors):
        _checks.refuse_call(call)
        if any(x is not None and x.device != query.device for x in tensors):
            _checks.raise_torchs_error(module, call)
            _checks.require_one_device(call)
        from polyhead.torch import _op  # pylint: disable=import-outside-toplevel
        return _op.attend(Config(*config), call, parameters, options, (dtype, result_dtype))
    engine = module.__dict__.get("_engine")
    dtypes = (dtype, result_dtype)
    try:
        if engine is None or engine.config != config or engine.dtype != dtype:
            engine = module.__dict__["_engine"] = Engine(Config(*config), dtype)
        if torch.is_grad_enabled() and any([x is not None and x.requires_grad for x in tensors]):
            out, weights = _apply(engine, options, dtypes, *tensors)
            return out, weights
        return _Attention.forward(None, engine, options, dtypes, *tensors)
    except (ValueError, TypeError, IndexError):
        _checks.raise_torchs_error(module, call)
        raise


def is_plain(tensors: tuple[Tensor | None, ...]) -> bool:
    """Whether these are ordinary tensors of the CPU, and no one watches what is done to them."""
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0 \
            or torch._C._functorch.maybe_current_level() is not None \
            or torch._C._is_tracing():
        return False
    return _core.are_plain(tensors, _PLAIN)


_PLAIN = (Tensor, torch.nn.Parameter)


def draw_seed() -> Tensor:
    """Of dropout, from torch's generator."""
    return torch.randint(0, 2**63 - 1, ())


class _Attention(torch.autograd.Function):

    @staticmethod
    def forward(ctx: Any, engine: Engine, options: Options,
                dtypes: tuple[torch.dtype, torch.dtype],
                *tensors: Any) -> tuple[Tensor, Tensor | None]:
        dtype, result_dtype = dtypes
        call: Sequence[Tensor | None] = tensors[:5]
        if result_dtype != dtype:
            call = converted(tensors[:5], dtype)
        engine.follow(tensors[5:])
        seed = int(draw_seed()) if options.dropout_p else None
        out, weights, trained = engine.forward(call, options, seed, keeps=ctx is not None)
        if ctx is not None:
            ctx.set_materialize_grads(False)
            ctx.trained, ctx.call, ctx.dtype = trained, call, dtype
            ctx.save_for_backward(*tensors)  # raises if one was written to
        if result_dtype == dtype:
            return out, weights
        return out.to(result_dtype), None if weights is None else weights.to(result_dtype)

    @staticmethod
    @once
    def backward(ctx: Any, d_out: Tensor | None, d_weights: Tensor | None) -> tuple[Any, ...]:
        tensors = ctx.saved_tensors
        gradients = gradients_of(
            ctx.trained, ctx.call, (d_out, d_weights), tensors, ctx.needs_input_grad[3:])
        if not torch._C._autograd._get_current_graph_task_keep_graph():
            ctx.trained = ctx.call = None  # the graph may live on, with nothing to go back to
        return None, None, None, *gradients


# Function.apply, less what that does for torch.func, which takes the operator's way.
_apply: Any = super(torch.autograd.Function, _Attention).apply


def converted(call: Sequence[Tensor | None], dtype: torch.dtype) -> list[Tensor | None]:
    """Each tensor once: self-attention is known by its identity."""
    seen: dict[int, Tensor] = {}
    return [x if x is None or x.dtype == torch.bool else
            seen.setdefault(id(x), x.to(dtype)) for x in call]


def gradients_of(trained: Any, call: Sequence[Tensor | None],
                 d_outputs: tuple[Tensor | None, Tensor | None],
                 tensors: Sequence[Tensor | None], wanted: Sequence[bool]) -> list[Tensor | None]:
    """With respect to `tensors`, the call's five and the parameters, in their dtypes; None if not
    wanted. Tensors given twice have theirs once."""
    out_like, (d_out, d_weights) = call[0], d_outputs
    assert out_like is not None
    dtype = out_like.dtype
    d_out = torch.zeros_like(out_like) if d_out is None else d_out.to(dtype)
    if d_weights is not None:
        d_weights = d_weights.to(dtype)
    query, key, value = tensors[:3]
    again = False, key is query, value is query or value is key
    found = [None if x is None or not wants or repeats else
             empty_like(x) if x.dtype == dtype else empty_like(x, dtype=dtype)
             for x, wants, repeats in zip((*call, *tensors[5:]), wanted, (*again, *_NOT_AGAIN))]
    of_key = found[0] if again[1] else found[1]
    of_value = found[2] if not again[2] else found[0] if value is query else of_key
    trained.backward((d_out, d_weights), (found[0], of_key, of_value, *found[3:5]), tuple(found[5:]))
    return [d if d is None or x is None or d.dtype == x.dtype else d.to(x.dtype)
            for d, x in zip(found, tensors)]


_NOT_AGAIN = (False,) * 11  # of masks and parameters: only query, key and value may be one tensor
