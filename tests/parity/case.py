"""One configuration of the module: its parameters, inputs, masks and options, drawn at random.

torch sees it through `torch_answer`, Polyhead through `command_answer` and `python_answer`, as a user
of each would.
"""

import os
import subprocess
from dataclasses import dataclass, field

import numpy as np
import polyhead
import safetensors.torch
import torch

NUM_CASES = int(os.environ.get("POLYHEAD_PARITY_CASES", "600"))
HEAD_DIMS = (1, 2, 3, 5, 8, 16, 20, 32, 40, 64)
LENGTHS = (1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 33, 48, 65, 130)
DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass
class Case:
    seed: int
    dtype: str
    batch: int
    q_len: int
    kv_len: int
    num_heads: int
    head_dim: int
    kdim: int
    vdim: int
    bias: bool
    add_bias_kv: bool
    add_zero_attn: bool
    batch_first: bool
    unbatched: bool
    self_attention: bool
    attn_mask_kind: str  # none, 2d, 3d, 4d
    attn_mask_is_bool: bool
    padding: str  # none, bool, float
    fully_masked: bool  # mask some rows entirely
    is_causal: bool
    causal_align: str
    need_weights: str  # none, average, per-head
    storage: str  # float32, bfloat16, float16: how the file holds a float32 module
    prefix: str
    score_scale: float
    state: dict = field(default_factory=dict)  # name -> array, as the file holds them, widened
    query: np.ndarray = None  # [B, L, E], key [B, S, kdim], value [B, S, vdim]
    key: np.ndarray = None
    value: np.ndarray = None
    attn_mask: np.ndarray = None  # [L, S], [B*H, L, S] or broadcastable [1|B, 1|H, 1|L, 1|S]
    key_padding_mask: np.ndarray = None  # [B, S]

    @property
    def embed_dim(self):
        return self.num_heads * self.head_dim

    def batch_first_inputs(self):
        return self.query, self.key, self.value

    def attn_mask_4d(self):
        if self.attn_mask is None or self.attn_mask.ndim != 3:
            return self.attn_mask
        return self.attn_mask.reshape(self.batch, self.num_heads, self.q_len, self.kv_len)

    def key_padding_mask_4d(self):
        mask = self.key_padding_mask
        return None if mask is None else mask[:, None, None, :]

    def inputs(self):
        """query, key, value in the layout the caller chose."""
        if self.unbatched:
            return [x[0] for x in self.batch_first_inputs()]
        if self.batch_first:
            return list(self.batch_first_inputs())
        return [np.ascontiguousarray(x.swapaxes(0, 1)) for x in self.batch_first_inputs()]

    def batch_first_out(self, out):
        if self.unbatched:
            return out[None]
        return out if self.batch_first else out.swapaxes(0, 1)

    def per_head_as_asked(self, weights):
        """[B, H, L, S'] -> what need_weights asks for."""
        return weights if self.need_weights == "per-head" else weights.mean(axis=1)

    def describe(self):
        kept = {k: v for k, v in vars(self).items() if not isinstance(v, (np.ndarray, dict))}
        return ", ".join(f"{k}={v}" for k, v in kept.items() if v not in (None, "", "none", False))


def draw(seed, head_dims=HEAD_DIMS, lengths=LENGTHS):
    rng = np.random.default_rng(seed)
    pick = lambda *choices: choices[rng.integers(len(choices))]
    chance = lambda p: bool(rng.random() < p)
    self_attention, unbatched = chance(0.4), chance(0.15)
    q_len = int(pick(*lengths))
    num_heads, head_dim = int(pick(1, 2, 3, 4, 5, 7, 8)), int(pick(*head_dims))
    embed_dim = num_heads * head_dim
    other_widths = not self_attention and chance(0.35)
    dtype = pick("float32", "float32", "float64")
    case = Case(
        seed=seed, dtype=dtype, batch=1 if unbatched else int(pick(1, 2, 3, 5)), q_len=q_len,
        kv_len=q_len if self_attention else int(pick(*lengths)), num_heads=num_heads,
        head_dim=head_dim, kdim=int(pick(1, 7, 24, embed_dim)) if other_widths else embed_dim,
        vdim=int(pick(3, 12, 33, embed_dim)) if other_widths else embed_dim, bias=chance(0.7),
        add_bias_kv=chance(0.25), add_zero_attn=chance(0.25), batch_first=chance(0.5),
        unbatched=unbatched, self_attention=self_attention,
        attn_mask_kind=pick("none", "2d", "3d", "4d"), attn_mask_is_bool=chance(0.5),
        padding=pick("none", "none", "bool", "float"), fully_masked=chance(0.2),
        is_causal=chance(0.35), causal_align=pick("top-left", "top-left", "bottom-right"),
        need_weights=pick("none", "average", "per-head"),
        storage=pick("bfloat16", "float16") if dtype == "float32" and chance(0.2) else dtype,
        prefix=pick("", "", "attention.", "encoder.layers.3.self_attn."),
        score_scale=pick(0.3, 1.0, 1.0, 4.0))
    fill(case, rng)
    return case


def fill(case, rng):
    """Parameters of a real torch module, then inputs and masks."""
    torch.manual_seed(case.seed)
    module = torch_module(case, "float64")
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            spread = 1.0 if name.endswith("bias") else case.score_scale
            parameter.copy_(torch.randn_like(parameter) * spread * parameter.shape[-1] ** -0.5)
    stored = {n: p.detach().to(getattr(torch, case.storage)) for n, p in module.state_dict().items()}
    case.state = {n: p.to(DTYPES[case.dtype]).numpy() for n, p in stored.items()}
    normal = lambda *shape: rng.standard_normal(shape).astype(case.dtype)
    case.query = normal(case.batch, case.q_len, case.embed_dim)
    case.key = case.query if case.self_attention else normal(case.batch, case.kv_len, case.kdim)
    case.value = case.query if case.self_attention else normal(case.batch, case.kv_len, case.vdim)
    case.attn_mask = draw_attn_mask(case, rng)
    case.key_padding_mask = draw_padding(case, rng)


def draw_attn_mask(case, rng):
    if case.attn_mask_kind == "none":
        return None
    last = (case.q_len, case.kv_len)
    if case.attn_mask_kind == "2d":
        shape = last
    elif case.attn_mask_kind == "3d":
        shape = (case.batch * case.num_heads, *last)
    else:
        full = (case.batch, case.num_heads, *last)
        shape = tuple(size if rng.random() < 0.6 else 1 for size in full)
    hidden = rng.random(shape) < 0.3
    if case.fully_masked:
        hidden[..., 0, :] = True
    if case.attn_mask_is_bool:
        return hidden
    bias = rng.standard_normal(shape).astype(case.dtype)
    return np.where(hidden, -np.inf, bias).astype(case.dtype)


def draw_padding(case, rng):
    if case.padding == "none":
        return None
    lengths = rng.integers(0 if case.fully_masked else 1, case.kv_len + 1, size=(case.batch, 1))
    hidden = np.arange(case.kv_len)[None, :] >= lengths  # [B, S]
    if case.padding == "bool":
        return hidden
    bias = rng.standard_normal(hidden.shape)
    return np.where(hidden, -np.inf, bias).astype(case.dtype)


def torch_module(case, dtype):
    kdim, vdim = (None if d == case.embed_dim else d for d in (case.kdim, case.vdim))
    return torch.nn.MultiheadAttention(
        case.embed_dim, case.num_heads, bias=case.bias, add_bias_kv=case.add_bias_kv,
        add_zero_attn=case.add_zero_attn, kdim=kdim, vdim=vdim, batch_first=case.batch_first,
        dtype=DTYPES[dtype])


def torch_mask(case):
    """The attn_mask as torch takes it: 4-D expanded, causality written out."""
    mask = case.attn_mask
    if mask is not None and mask.ndim == 4:
        full = (case.batch, case.num_heads, case.q_len, case.kv_len)
        mask = np.ascontiguousarray(np.broadcast_to(mask, full)).reshape(-1, *full[2:])
    if case.is_causal:
        offset = case.kv_len - case.q_len if case.causal_align == "bottom-right" else 0
        future = ~np.tri(case.q_len, case.kv_len, offset, dtype=bool)
        if mask is None:
            return future
        mask = mask | future if mask.dtype == bool else np.where(future, -np.inf, mask)
    return mask


def torch_answer(case, dtype):
    """(out [B, L, E], weights as asked for or None), through nn.MultiheadAttention itself."""
    module = torch_module(case, dtype).eval()
    module.load_state_dict({n: torch.from_numpy(np.array(a)) for n, a in case.state.items()})

    def tensor(array):
        if array is None:
            return None
        converted = torch.from_numpy(np.array(array))  # torch wants memory it may write to
        return converted if array.dtype == bool else converted.to(DTYPES[dtype])

    if case.self_attention:
        query = key = value = tensor(case.inputs()[0])  # the same object: torch's fast path
    else:
        query, key, value = map(tensor, case.inputs())
    padding = case.key_padding_mask
    with torch.no_grad():
        out, weights = module(
            query, key, value, attn_mask=tensor(torch_mask(case)),
            key_padding_mask=tensor(padding[0] if case.unbatched and padding is not None else padding),
            need_weights=case.need_weights != "none",
            average_attn_weights=case.need_weights != "per-head")
    weights = None if weights is None else weights.numpy()
    if weights is not None and case.unbatched:
        weights = weights[None]
    return case.batch_first_out(out.numpy()), weights


def write_files(case, folder):
    """The case as files; returns the command's flags for them."""
    tensors = {case.prefix + name: torch.from_numpy(array).to(getattr(torch, case.storage))
               for name, array in case.state.items()}
    safetensors.torch.save_file(tensors, folder / "weights.safetensors")
    query, key, value = case.inputs()
    padding = case.key_padding_mask
    arrays = {"query": query, "attn-mask": case.attn_mask}
    if not case.self_attention:
        arrays |= {"key": key, "value": value}
    arrays["key-padding-mask"] = padding[0] if case.unbatched and padding is not None else padding
    flags = ["--weights", folder / "weights.safetensors"]
    for name, array in arrays.items():
        if array is not None:
            np.save(folder / f"{name}.npy", array)
            flags += [f"--{name}", folder / f"{name}.npy"]
    return flags


def command_answer(command, case, folder):
    """(out, weights or None) as torch_answer, through `polyhead run`."""
    flags = write_files(case, folder) + ["--num-heads", case.num_heads,
                                         "--need-weights", case.need_weights]
    flags += ["--causal", "--causal-align", case.causal_align] if case.is_causal else []
    flags += ["--add-zero-attn"] if case.add_zero_attn else []
    flags += [] if case.batch_first or case.unbatched else ["--sequence-first"]
    if case.need_weights != "none":
        flags += ["--weights-out", folder / "weights.npy"]
    run(command, "run", *flags, "--out", folder / "out.npy")
    weights = np.load(folder / "weights.npy") if case.need_weights != "none" else None
    if weights is not None and case.unbatched:
        weights = weights[None]
    return case.batch_first_out(np.load(folder / "out.npy")), weights


def python_answer(case, folder):
    """The same, by the Python module, from the file that command_answer wrote."""
    module = polyhead.MultiheadAttention.from_safetensors(
        folder / "weights.safetensors", num_heads=case.num_heads, batch_first=case.batch_first,
        add_zero_attn=case.add_zero_attn)
    padding = case.key_padding_mask
    out, weights = module(
        *case.inputs(), attn_mask=case.attn_mask,
        key_padding_mask=padding[0] if case.unbatched and padding is not None else padding,
        need_weights=case.need_weights != "none",
        average_attn_weights=case.need_weights != "per-head", is_causal=case.is_causal,
        causal_align=case.causal_align.replace("-", "_"))
    if weights is not None and case.unbatched:
        weights = weights[None]
    return case.batch_first_out(out), weights


def run(polyhead_command, *arguments):
    command = [str(polyhead_command), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, f"{' '.join(command)}\nexit {result.returncode}: {result.stderr}"
    return result
