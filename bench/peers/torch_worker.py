"""PyTorch's side: scaled_dot_product_attention and nn.MultiheadAttention, by themselves and with
backward.

torch_worker.py            the fastest of all the ways to get what the cell asks for
torch_worker.py --default  modules only: `mha(x, x, x)` as its users write it, weights averaged
"""

import sys
from functools import partial

import torch

from serving import NotOffered, Server, wanted_threads
from torch_cells import AttentionCell, ModuleCell, Timed, decode_calls, way
from torch_training import train_as_written, train_attention_variants, train_module_variants


def attention_variants(words):
    cell = AttentionCell(words)
    call = partial(cell.attend, *map(cell.heads_outer, cell.operands.values()))
    return {"SDPA": Timed(call, way, cell.heads_outer),
            "SDPA, plain formula": Timed(call, partial(way, plain=True), cell.heads_outer)}


def decode_variants(words):
    return {name: Timed(call, partial(way, plain=plain), layout)
            for name, (call, layout, plain) in decode_calls(words).items()}


def module_variants(words):
    cell = ModuleCell(words)
    variants = {"module, slow path": Timed(cell.with_flags(), way)}
    if words.inputs == "self":  # the fast path knows nothing else
        fast = partial(way, fast_path=True)
        variants["module, fast path"] = Timed(cell.with_flags(), fast)
    if words.weights == "none":
        plain = partial(way, plain=True)
        variants |= {"module, slow path, plain formula": Timed(cell.with_flags(), plain),
                     "linear, SDPA, linear": Timed(cell.by_hand(), way),
                     "linear, plain formula, linear": Timed(cell.by_hand(), plain)}
    return variants


def as_written(words):
    if words.weights == "per_head":
        raise NotOffered("the default averages over heads")
    return {"mha(x, x, x)": Timed(ModuleCell(words).as_written(), partial(way, fast_path=True))}


BEST = {"attention": attention_variants, "module": module_variants, "decode": decode_variants,
        "train-attention": train_attention_variants, "train-module": train_module_variants}
DEFAULT = {"module": as_written, "train-module": train_as_written}

if __name__ == "__main__":
    torch.set_num_threads(wanted_threads())
    makers = DEFAULT if "--default" in sys.argv[1:] else BEST
    with torch.inference_mode():
        Server(f"torch {torch.__version__}", makers, "a module's call",
               {"isa": torch.backends.cpu.get_cpu_capability(),
                "threads": torch.get_num_threads()}).serve()
