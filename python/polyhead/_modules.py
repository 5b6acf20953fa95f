"""The two modules, with numpy parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union

import numpy as np
import numpy.typing as npt

from polyhead import _core
from polyhead._arguments import explained, index_of, plain_bool, refuse_masked
from polyhead._configured import Configured, Fixed, dtype_name
from polyhead._kv_cache import KvCache, core_of
from polyhead._typing import Array, CausalAlign, EmptyRows, FloatArray, HeadWidth, Path, Rope

Names = Union[Mapping[str, str], Literal["bert", "vit", "llama"], None]

# The classes and those derived of them, as their own constructors from files give them.
Mha = TypeVar("Mha", bound="MultiheadAttention")
Scratch = TypeVar("Scratch", bound="FromScratchMultiHeadAttention")


class _Module(Configured):
    """What both modules have: configuration, state dict, files, pickling."""

    _module: Any
    _OWN = ("_module", "_config")

    def _hold(self, module: Any) -> None:
        self._module = module
        self._config = module.config

    def state_dict(self) -> dict[str, FloatArray]:
        """The parameters by torch's names, in torch's order: read-only views of the module's memory,
        which show what load_state_dict has changed."""
        state: dict[str, FloatArray] = self._module.state_dict()
        return state

    def load_state_dict(self, state_dict: Mapping[str, Array], strict: bool = True) -> None:
        """Copies the arrays of `state_dict` in, converted to the module's dtype. Raises ValueError,
        and changes nothing, if a shape differs, a number is too large or, unless strict=False, names
        are missing or unexpected; TypeError for what is no array of real numbers."""
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"load_state_dict: state_dict: got {type(state_dict).__name__}; need a "
                            "dict {name: array}")
        own = self.state_dict()
        missing = [name for name in own if name not in state_dict]
        unexpected = [name for name in state_dict if name not in own]
        if strict and (missing or unexpected):
            raise ValueError(f"load_state_dict: names: missing {missing}, unexpected {unexpected}; "
                             f"need {list(own)}")
        new = {name: _numbers(name, state_dict[name], like)
               for name, like in own.items() if name in state_dict}
        parameters = self._module.parameters()
        for name, value in new.items():
            parameters[name][...] = value
        self._module.repack()

    def save_safetensors(self, path: Path, prefix: str = "") -> None:
        """Writes the state dict under torch's names, each with `prefix` in front, and what of the
        configuration it does not tell into the file's metadata: num_heads, batch_first,
        add_zero_attn, dropout and so on. The file appears whole or not at all. Raises OSError."""
        try:
            self._module.save(path, prefix)
        except TypeError as error:
            raise explained(error, _Module.save_safetensors, locals()) from None

    def __getstate__(self) -> dict[str, Any]:
        state = {name: np.array(value) for name, value in self.state_dict().items()}
        others = {name: value for name, value in self.__dict__.items() if name not in _Module._OWN}
        return {"config": self._config, "state_dict": state, "attributes": others}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if not isinstance(state, dict) \
                or state.keys() - {"attributes"} != {"config", "state_dict"}:  # 0.2.0 gave no attributes
            raise ValueError(f"{type(self).__name__}: __setstate__: need what __getstate__ gave: "
                             "{'config': .., 'state_dict': .., 'attributes': ..}")
        self.__init__(**state["config"])  # type: ignore[misc]
        self.load_state_dict(state["state_dict"])
        for name, value in state.get("attributes", {}).items():
            setattr(self, name, value)


class MultiheadAttention(_Module):
    """torch.nn.MultiheadAttention on numpy arrays: its arguments, its state dict, its numbers.

    embed_dim, num_heads  embed_dim is divided among the heads
    dropout               stored; forward computes as torch's does after eval()
    bias                  biases of the projections
    add_bias_kv           one learned key and value more
    add_zero_attn         one key and value of zeros more
    kdim, vdim            widths of key and value; default embed_dim
    batch_first           of 3-D inputs: [B, L, E] if True, [L, B, E] if not, torch's default
    device                None or "cpu"
    dtype                 "float32" (default) or "float64", or numpy's objects for them
    seed                  of the initial parameters: torch's distributions, our own numbers

    What torch's class has not:

    num_kv_heads          heads of key and value, each for num_heads / num_kv_heads of the query's
    head_dim              width of a head; default embed_dim / num_heads
    qk_norm, qk_norm_eps  an RMS norm of each head of query and key: q_norm.weight, k_norm.weight
    rope                  rotary positions: {"pairs": "halves", "base": 10000.0, ...}. "halves" pairs
                          number i and i + rotary_dim / 2, as LLaMA's files do, "interleaved" 2 i and
                          2 i + 1; rotary_dim (default head_dim); scaling "none", "linear", "ntk" or
                          "llama3", with factor, and for the last low_freq_factor, high_freq_factor
                          and original_length

    The configuration can be read under the names of these arguments, not written. Raises ValueError for sizes
    and options that do not fit. forward may run in several threads at once; load_state_dict not
    beside it.
    """

    embed_dim = Fixed[int]()
    num_heads = Fixed[int]()
    dropout = Fixed[float]()
    bias = Fixed[bool]()
    add_bias_kv = Fixed[bool]()
    add_zero_attn = Fixed[bool]()
    kdim = Fixed[int]()
    vdim = Fixed[int]()
    batch_first = Fixed[bool]()
    dtype = Fixed[str]()
    num_kv_heads = Fixed[int]()
    head_dim = Fixed[int]()
    qk_norm = Fixed[bool]()
    qk_norm_eps = Fixed[float]()
    rope = Fixed["Rope | None"]()

    # over-budget: 17 parameters; the public names fix them.
    def __init__(
            self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True,
            add_bias_kv: bool = False, add_zero_attn: bool = False, kdim: int | None = None,
            vdim: int | None = None, batch_first: bool = False, device: str | None = None,
            dtype: npt.DTypeLike | None = None, *, seed: int = 0, num_kv_heads: int | None = None,
            head_dim: int | None = None, qk_norm: bool = False, qk_norm_eps: float = 1e-6,
            rope: Rope | None = None) -> None:
        if device not in (None, "cpu"):
            raise ValueError(f"MultiheadAttention: device: got {device!r}; need None or 'cpu'")
        try:
            self._hold(_core.MultiheadAttention(
                embed_dim, num_heads, dropout, bias, add_bias_kv, add_zero_attn, kdim, vdim,
                batch_first, dtype_name(dtype), seed, num_kv_heads, head_dim, qk_norm, qk_norm_eps,
                rope))
        except TypeError as error:
            raise explained(error, MultiheadAttention.__init__, locals()) from None

    # over-budget: 9 parameters; the public names fix them.
    @classmethod
    def from_safetensors(
            cls: type[Mha], path: Path, prefix: str = "", *, num_heads: int | None = None,
            batch_first: bool | None = None, add_zero_attn: bool | None = None,
            dropout: float | None = None, names: Names = None, rope: Rope | None = None,
            qk_norm_eps: float | None = None) -> Mha:
        """A module with the parameters that `path` holds under `prefix`; without one, of the only
        module in the file. float16 and bfloat16 are widened. What no tensor tells is in the metadata
        of a file that save_safetensors wrote, and may be left out here:

        batch_first, add_zero_attn, dropout  how the module is called: what is given here holds.
                              batch_first must be said here or by the file; where neither does,
                              add_zero_attn is False and dropout 0
        num_heads, rope, qk_norm_eps  what the parameters mean: given, they must not contradict the
                              file. num_heads must be said by one of the two
        names                 {name in the file: torch's name}, or "bert", "vit", "llama"

        Raises OSError for a file that is damaged or not there, ValueError for one that holds no such
        module, and for what is not said or contradicts it.
        """
        module = cls.__new__(cls)
        try:
            module._hold(_core.MultiheadAttention.load(
                path, prefix, num_heads, batch_first, add_zero_attn, dropout, names, rope,
                qk_norm_eps))
        except TypeError as error:
            raise explained(error, MultiheadAttention.from_safetensors, locals()) from None
        return module

    # over-budget: 12 parameters; the public names fix them.
    def forward(
            self, query: Array, key: Array, value: Array, key_padding_mask: Array | None = None,
            need_weights: bool = True, attn_mask: Array | None = None,
            average_attn_weights: bool = True, is_causal: bool = False, *,
            causal_align: CausalAlign = "top_left", empty_rows: EmptyRows = "zero",
            query_position: int = 0, key_position: int = 0
    ) -> tuple[FloatArray, FloatArray | None]:
        """(out, weights): new arrays of the module's dtype; weights None unless need_weights.

        query             [L, B, E], with batch_first [B, L, E], unbatched [L, E]; the module's dtype
        key, value        [S, B, kdim] and [S, B, vdim], or as query
        key_padding_mask  [B, S], unbatched [S]. bool: True = hidden; float: added to the scores
        attn_mask         [L, S], [B * H, L, S] (unbatched [H, L, S]), or 4-D, which broadcasts:
                          [1|B, 1|H, 1|L, 1|S]. bool: True = hidden; float: added to the scores
        average_attn_weights  weights [B, L, S'] averaged over the heads; if False [B, H, L, S'].
                          S' = S + add_bias_kv + add_zero_attn
        is_causal         in addition to the masks, with or without them; causal_align as in
                          scaled_dot_product_attention
        empty_rows        a row whose every key is masked: weights 0 and out the bias ("zero"), "nan"
        query_position, key_position  of the first query and key, with rope

        out as query. Nothing of a masked key or value reaches a result, be it NaN. Raises ValueError
        for shapes and dtypes that do not fit, TypeError for what is no array.
        """
        refuse_masked("MultiheadAttention", _INPUTS, (query, key, value, key_padding_mask, attn_mask))
        weights = None
        if need_weights:
            weights = "average" if average_attn_weights else "per_head"
        is_causal = plain_bool(is_causal)
        try:
            result: tuple[FloatArray, FloatArray | None] = self._module.forward(
                query, key, value, key_padding_mask, attn_mask, weights, is_causal, causal_align,
                empty_rows, query_position=query_position, key_position=key_position)
        except TypeError as error:
            raise explained(error, MultiheadAttention.forward, locals()) from None
        return result

    def cache_config(self, batch: int, num_pages: int) -> dict[str, Any]:
        """What a KvCache for this module is made of: KvCache(**module.cache_config(2, 64)); page_len
        and window may be given beside it. Raises ValueError for a module that can have none."""
        try:
            config: dict[str, Any] = self._module.cache_config(batch, num_pages)
        except TypeError as error:
            raise explained(error, MultiheadAttention.cache_config, locals()) from None
        return config

    def forward_cached(self, query: Array, cache: KvCache, lengths: Array | None = None, *,
                       sequence: int = 0) -> FloatArray:
        """The next tokens of a decoder, its prompt or one token after the other: out, as query.

        query     [n, B, E], with batch_first [B, n, E], B the cache's: behind the positions that each
                  sequence has, where rope turns them; unbatched [n, E]
        cache     their keys and values are appended to it. KvCache(**module.cache_config(B, pages))
        lengths   [B], int32 or int64: sequence b gets the first lengths[b] of the n tokens; the rest is
                  not looked at, and 0 in out. None: all
        sequence  the one whose tokens an unbatched query is

        Each token sees those up to its own that the cache's window leaves: the bits of a forward over
        the whole sequences with is_causal, in whatever pieces they come. Raises ValueError for what
        does not fit or has no pages left, and for a module with add_bias_kv, add_zero_attn, kdim or
        vdim; the cache then is as it was.
        """
        refuse_masked("forward_cached", ("query", "lengths"), (query, lengths))
        out: FloatArray = self._module.forward_cached(
            query, core_of(cache, "forward_cached"), lengths,
            index_of(sequence, "forward_cached: sequence"))
        return out

    __call__ = forward


class FromScratchMultiHeadAttention(_Module):
    """The PyTorch class written from scratch that the README shows: q_linear, k_linear, v_linear and
    fc_out; batch first; a soft mask.

    head_width  "split": each head is embed_size / num_heads wide; "full": embed_size
    dtype       "float32" (default) or "float64", or numpy's objects for them
    seed        of the initial parameters: torch's distributions, our own numbers
    """

    embed_size = Fixed[int]()
    num_heads = Fixed[int]()
    head_width = Fixed[str]()
    dtype = Fixed[str]()

    def __init__(
            self, embed_size: int, num_heads: int, head_width: HeadWidth = "split",
            *, dtype: npt.DTypeLike | None = None, seed: int = 0) -> None:
        try:
            self._hold(_core.FromScratchMultiHeadAttention(
                embed_size, num_heads, head_width, dtype_name(dtype), seed))
        except TypeError as error:
            raise explained(error, FromScratchMultiHeadAttention.__init__, locals()) from None

    @classmethod
    def from_safetensors(
            cls: type[Scratch], path: Path, prefix: str = "", *, num_heads: int | None = None,
            names: Mapping[str, str] | None = None) -> Scratch:
        """As MultiheadAttention.from_safetensors; the head width is read from the shapes."""
        module = cls.__new__(cls)
        try:
            module._hold(_core.FromScratchMultiHeadAttention.load(path, prefix, num_heads, names))
        except TypeError as error:
            raise explained(
                error, FromScratchMultiHeadAttention.from_safetensors, locals()) from None
        return module

    def forward(self, q: Array, k: Array, v: Array, mask: Array | None = None) -> FloatArray:
        """out [B, L, E], a new array of the module's dtype.

        q     [B, L, E], of the module's dtype
        k, v  [B, S, E]
        mask  broadcasts onto [B, H, L, S]; numbers of float32, float64, int32, int64 or bool, times
              -1e5 added to the scores: 1 hides, softly

        Raises ValueError for shapes and dtypes that do not fit, TypeError for what is no array.
        """
        refuse_masked("FromScratchMultiHeadAttention", ("q", "k", "v", "mask"), (q, k, v, mask))
        out: FloatArray = self._module.forward(q, k, v, mask)
        return out

    __call__ = forward


_INPUTS = ("query", "key", "value", "key_padding_mask", "attn_mask")


def _numbers(name: str, value: Array, like: FloatArray) -> FloatArray:
    """`value` as a new value of the parameter `like`."""
    refuse_masked("load_state_dict", (name,), (value,))
    argument = f"load_state_dict: {name}"
    try:
        array = value if isinstance(value, np.ndarray) else np.from_dlpack(value)
    except Exception as error:  # another library's, of any type
        raise TypeError(f"{argument}: got {type(value).__name__} ({error}); need a numpy array, or an "
                        "object with __dlpack__ in the CPU's memory; of a torch tensor "
                        ".detach().float()") from None
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{argument}: dtype is {array.dtype}; need real numbers")
    if array.shape != like.shape:
        raise ValueError(f"{argument}: shape is {list(array.shape)}; need {list(like.shape)}")
    try:
        with np.errstate(over="raise"):
            return np.array(array, dtype=like.dtype)  # a copy: it may be a view of what is written to
    except FloatingPointError:
        raise ValueError(f"{argument}: numbers are too large for {like.dtype}") from None
