"""From the module's arguments to the library: the direct way in eager mode, the operator of _op.py
wherever torch looks at the program (compile, export, functorch) or the tensors are not plain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, empty_like

from polyhead import _core
from polyhead.torch import _checks, _extras, _threads
from polyhead.torch._functorch import once, refuse_tangents

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
    extras: str = ""  # as _extras.checked gives them

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
    query_position: int = 0
    key_position: int = 0


class Engine:
    """The packed parameters of one module in one dtype, and calls on them."""

    def __init__(self, config: Config, dtype: torch.dtype) -> None:
        self.config = config
        self.dtype = dtype
        flags = tuple(map(bool, config[4:8]))  # torch takes what counts as one
        self._core = _core.TorchModule(
            config[:4], flags, str(dtype).removeprefix("torch."), torch.nn.Parameter,
            **_extras.read(config.extras))

    def _packed(self, parameters: tuple[Tensor, ...]) -> Any:
        """These parameters, packed anew if they have changed. Only a Parameter can be known not to
        have: its memory is not another tensor's the next time."""
        return self._core.follow(parameters) or self._core.pack(
            tuple([p.detach().to(self.dtype) for p in parameters]))

    def forward(self, parameters: tuple[Tensor, ...], call: Sequence[Tensor | None],
                options: Options, seed: int | None, keeps: bool
                ) -> tuple[Tensor, Tensor | None, Any]:
        """(out, weights, what a backward needs) in self.dtype; parameters: those that are; dropout
        needs a seed."""
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
        trained = self._packed(parameters).forward(
            call, (out, weights), *options[:4], training, *options[5:])
        return out, weights, trained

    def forward_cached(self, parameters: tuple[Tensor, ...], query: Tensor, cache: Any,
                       lengths: Tensor | None, sequence: int) -> Tensor:
        """out in self.dtype, without a graph; cache: the library's own."""
        _threads.follow()
        out = empty_like(query, memory_format=torch.contiguous_format)
        self._packed(parameters).forward_cached(query, cache, lengths, sequence, out)
        return out


def config_of(module: MultiheadAttention, parameters: Sequence[Tensor | None]) -> tuple[Any, ...]:
    """A Config, as long as nobody reads its names."""
    return (module.embed_dim, module.num_heads, module.kdim, module.vdim, module.batch_first,
            parameters[4] is not None, parameters[5] is not None, module.add_zero_attn, module._extras)


def engine_of(module: MultiheadAttention, config: tuple[Any, ...], dtype: torch.dtype) -> Engine:
    """The module's own, made anew where it is another's by now."""
    engine: Engine | None = module.__dict__.get("_engine")
    if engine is None or engine.config != config or engine.dtype != dtype:
        engine = module.__dict__["_engine"] = Engine(Config(*config), dtype)
    return engine


def autocast_dtype(own_dtype: torch.dtype) -> torch.dtype | None:
    """Of the results where autocast decides it; float64 it lets be."""
    if torch.is_autocast_enabled("cpu") and own_dtype != torch.float64:
        return torch.get_autocast_dtype("cpu")
    return None


def attend(module: MultiheadAttention, call: Call, parameters: list[Tensor | None],
           options: Options) -> tuple[Tensor, Tensor | None]:
    """out before the module's out_proj is called, if it is; and the weights."""
    query, key, value, _, _ = call
    present = [p for p in parameters if p is not None]
    own_dtype = present[0].dtype
    result_dtype = autocast_dtype(own_dtype)
    if result_dtype is None:
        result_dtype = own_dtype
        if not query.dtype == key.dtype == value.dtype == own_dtype:
            _checks.raise_torchs_error(module, call)
    dtype = torch.float64 if own_dtype == torch.float64 else torch.float32
    config = config_of(module, parameters)
    tensors = (*call, *present)
    dtypes = (dtype, result_dtype)
    refuse_tangents(tensors)
    if not is_plain(tensors):
        _checks.refuse_call(call)
        if any(x is not None and x.device != query.device for x in tensors):
            _checks.raise_torchs_error(module, call)
            _checks.require_one_device(call)
            _checks.require_device_of(module, query)
        from polyhead.torch import _op  # pylint: disable=import-outside-toplevel
        return _op.attend(Config(*config), call, parameters, options, dtypes)
    try:
        engine = engine_of(module, config, dtype)
        if not torch.is_grad_enabled() or not (
                present[0].requires_grad or query.requires_grad
                or any([x is not None and x.requires_grad for x in tensors])):
            out, weights = _Attention.forward(None, engine, options, dtypes, *tensors)
            return out, weights
        if key is query and value is query:  # one edge of the graph in place of three
            tensors = (query, None, None, *tensors[3:])
        results: Any = _apply(engine, options, dtypes, *tensors)
        return (results, None) if options.weights is None else (results[0], results[1])
    except (ValueError, TypeError, IndexError):
        _checks.raise_torchs_error(module, call)
        raise


def is_plain(tensors: tuple[Tensor | None, ...]) -> bool:
    """Whether these are ordinary tensors of the CPU, and no one watches what is done to them."""
    if torch.compiler.is_compiling() or _dispatch_modes() > 0 or _functorch_level() is not None \
            or _is_tracing() or _saving_hooks(True) is not None:
        return False
    return _core.are_plain(tensors, _PLAIN)


_PLAIN = (Tensor, torch.nn.Parameter)
_dispatch_modes: Any = torch._C._len_torch_dispatch_stack
_functorch_level: Any = torch._C._functorch.maybe_current_level
_is_tracing: Any = torch._C._is_tracing
# Of activation checkpointing, too. They see tensors only, and ours keeps more than these.
_saving_hooks: Any = torch._C._autograd._top_saved_tensors_default_hooks


def draw_seed() -> Tensor:
    """Of dropout, from torch's generator."""
    return torch.randint(0, 2**63 - 1, ())


_NAMES = ("query", "key", "value", "key_padding_mask", "attn_mask")


class _Attention(torch.autograd.Function):
    """tensors: the call's five, then the parameters. Where key and value are the query, None."""

    @staticmethod
    def forward(ctx: Any, engine: Engine, options: Options,
                dtypes: tuple[torch.dtype, torch.dtype], *tensors: Any) -> Any:
        dtype, result_dtype = dtypes
        call: Sequence[Tensor | None] = tensors[:5]
        if call[1] is None:
            call = (tensors[0], tensors[0], tensors[0], tensors[3], tensors[4])
        if result_dtype != dtype:
            call = converted(call, dtype)
        seed = int(draw_seed()) if options.dropout_p else None
        out, weights, trained = engine.forward(
            tensors[5:], call, options, seed, keeps=ctx is not None)
        if result_dtype != dtype:
            out, weights = out.to(result_dtype), None if weights is None else weights.to(result_dtype)
        if ctx is None:
            return out, weights
        ctx.kept = trained, call, _core.Places(tensors[:5]), result_dtype != dtype
        ctx.save_for_backward(*tensors)  # raises if one was written to
        if weights is None:  # a graph of one result costs less
            return out
        ctx.set_materialize_grads(False)
        return out, weights

    @staticmethod
    @once
    def backward(ctx: Any, d_out: Tensor | None, d_weights: Tensor | None = None) -> tuple[Any, ...]:
        tensors = ctx.saved_tensors  # raises if the graph was freed
        trained, call, places, is_converted = ctx.kept
        moved = places.first_moved(tensors[:5])  # `trained` has pointers
        if moved >= 0:
            raise RuntimeError(f"MultiheadAttention: {_NAMES[moved]}: was replaced between forward "
                               "and backward; need the memory that forward read")
        gradients = gradients_of(
            trained, call, (d_out, d_weights), tensors, ctx.needs_input_grad[3:], is_converted)
        if not _keeps_graph():
            ctx.kept = None  # the graph may live on, with nothing to go back to
        return None, None, None, *gradients


_keeps_graph: Any = torch._C._autograd._get_current_graph_task_keep_graph
# Function.apply, less what that does for torch.func, which takes the operator's way.
_apply: Any = super(torch.autograd.Function, _Attention).apply


def converted(call: Sequence[Tensor | None], dtype: torch.dtype) -> list[Tensor | None]:
    """Each tensor once: self-attention is known by its identity."""
    done: dict[int, Tensor | None] = {}
    for x in call:
        if id(x) not in done:
            done[id(x)] = x if x is None or x.dtype == torch.bool else x.to(dtype)
    return [done[id(x)] for x in call]


def gradients_of(trained: Any, call: Sequence[Tensor | None],
                 d_outputs: tuple[Tensor | None, Tensor | None],
                 tensors: Sequence[Tensor | None], wanted: Sequence[bool],
                 is_converted: bool) -> list[Tensor | None]:
    """With respect to `tensors`, the call's five and the parameters, in their dtypes; None if not
    wanted. Tensors given twice have theirs once. Not `is_converted`: all but masks have the dtype
    that is computed in."""
    out_like, (d_out, d_weights) = call[0], d_outputs
    assert out_like is not None
    dtype = out_like.dtype
    if d_out is None:
        d_out = torch.zeros_like(out_like)
    else:
        d_out = d_out.to(dtype).resolve_neg()
    if d_weights is not None:
        d_weights = d_weights.to(dtype).resolve_neg()
    found: list[Tensor | None] = [
        empty_like(x) if wants and x is not None else None for x, wants in zip(tensors, wanted)]
    others: list[int] = []
    if is_converted or found[3] is not None or found[4] is not None:
        others = [i for i, d in enumerate(found) if d is not None and d.dtype != dtype]
    for i in others:
        found[i] = empty_like(tensors[i], dtype=dtype)  # type: ignore[arg-type]
    query, key, value = tensors[:3]
    inputs = found[:5]
    if key is None or key is query:
        found[1], inputs[1] = None, found[0]
    if value is None or value is query:
        found[2], inputs[2] = None, found[0]
    elif value is key:
        found[2], inputs[2] = None, inputs[1]
    try:
        trained.backward((d_out, d_weights), inputs, tuple(found[5:]))
    except TypeError:
        _checks.refuse_gradients((d_out, d_weights))
        raise
    for i in others:
        found[i] = found[i].to(tensors[i].dtype)  # type: ignore[union-attr]
    return found
