from collections.abc import Sequence
import os


def version() -> str: ...

def available_isas() -> list[str]: ...

def isa() -> str:
    """
    The instruction set in use: 'avx512', 'avx2', 'neon' or 'baseline'. The best this CPU
    has, unless the environment's POLYHEAD_ISA names one; ValueError if it has not that.
    """

def set_num_threads(n: int) -> None:
    """
    Threads a call may use, the caller's included. Results do not depend on it.
    ValueError unless 1 <= n <= 1024.
    """

def get_num_threads() -> int:
    """
    Threads a call may use: what set_num_threads said, else POLYHEAD_NUM_THREADS, else the
    number of CPUs.
    """

class AttentionOptions:
    def __init__(self, attn_mask: object | None, dropout_p: float, seed: int, is_causal: bool, scale: float | None, causal_align: str, weights: str | None, empty_rows: str) -> None: ...

def attend(query: object | None, key: object | None, value: object | None, options: AttentionOptions, enable_gqa: bool) -> object: ...

def attention_forward(query: object, key: object, value: object, options: AttentionOptions, outputs: Sequence[object]) -> None: ...

def attention_backward(query: object, key: object, value: object, options: AttentionOptions, saved: Sequence[object], gradients: Sequence[object]) -> None: ...

class MultiheadAttention:
    def __init__(self, embed_dim: int, num_heads: int, dropout: float, bias: bool, add_bias_kv: bool, add_zero_attn: bool, kdim: int | None, vdim: int | None, batch_first: bool, dtype: str, seed: int) -> None: ...

    @property
    def config(self) -> dict: ...

    def state_dict(self) -> dict: ...

    def set_parameter(self, name: str, value: object) -> None: ...

    def save(self, path: str | os.PathLike, prefix: str) -> None: ...

    @staticmethod
    def load(path: str | os.PathLike, prefix: str, num_heads: int | None, batch_first: bool, add_zero_attn: bool, dropout: float, names: object | None) -> MultiheadAttention: ...

    def forward(self, query: object | None, key: object | None, value: object | None, key_padding_mask: object | None, attn_mask: object | None, weights: str | None, is_causal: bool, causal_align: str, empty_rows: str) -> tuple: ...

class FromScratchMultiHeadAttention:
    def __init__(self, embed_size: int, num_heads: int, head_width: str, dtype: str, seed: int) -> None: ...

    @property
    def config(self) -> dict: ...

    def state_dict(self) -> dict: ...

    def set_parameter(self, name: str, value: object) -> None: ...

    def save(self, path: str | os.PathLike, prefix: str) -> None: ...

    @staticmethod
    def load(path: str | os.PathLike, prefix: str, num_heads: int | None, names: object | None) -> FromScratchMultiHeadAttention: ...

    def forward(self, q: object | None, k: object | None, v: object | None, mask: object | None) -> object: ...
