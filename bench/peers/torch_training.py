"""A training step in torch: forward and backward, under autograd."""

from contextlib import contextmanager
from functools import partial

import torch

from torch_cells import AttentionCell, ModuleCell, Timed, way


@contextmanager
def learning(plain=False):
    with torch.inference_mode(False), torch.enable_grad(), way(plain=plain):
        yield


class Step(Timed):
    """`leaves`: name -> tensor whose gradient is wanted. Their .grad is None before each step, as
    zero_grad() leaves it; to add to an old one would cost another pass over it."""

    def __init__(self, function, context, leaves, derivatives):
        super().__init__(function, context)
        self.leaves = leaves
        self.derivatives = derivatives  # of the loss, with respect to what the function returns

    def run_once(self):
        for leaf in self.leaves.values():
            leaf.grad = None
        self.answer = self.function()
        outputs = self.answer if isinstance(self.answer, tuple) else (self.answer,)
        torch.autograd.backward(outputs[:len(self.derivatives)], self.derivatives)

    def last_outputs(self):
        gradients = {f"d_{name}": leaf.grad.numpy() for name, leaf in self.leaves.items()}
        return super().last_outputs() | gradients


@torch.inference_mode(False)
def train_attention_variants(words):
    cell = AttentionCell(words)
    leaves = {name: x.requires_grad_() for name, x in cell.operands.items()}
    derivatives = [cell.read("d_out", words.q_len)]

    def call():
        return cell.heads_outer(cell.attend(*map(cell.heads_outer, leaves.values())))
    return {"SDPA": Step(call, learning, leaves, derivatives),
            "SDPA, plain formula": Step(call, partial(learning, plain=True), leaves, derivatives)}


def module_in_training(words):
    """The cell, its leaves, and the loss's derivatives."""
    cell = ModuleCell(words)
    cell.mha.train()
    leaves = {"query": cell.operands[0].requires_grad_()} | dict(cell.mha.named_parameters())
    derivatives = [cell.read("d_out", words.q_len, words.embed_dim)]
    if words.weights != "none":
        derivatives.append(cell.read("d_weights", words.q_len, words.kv_len))
    return cell, leaves, derivatives


@torch.inference_mode(False)
def train_module_variants(words):
    cell, *known = module_in_training(words)
    plain = partial(learning, plain=True)
    variants = {"module": Step(cell.with_flags(), learning, *known)}
    if words.weights == "none":
        variants |= {"module, plain formula": Step(cell.with_flags(), plain, *known),
                     "linear, SDPA, linear": Step(cell.by_hand(), learning, *known),
                     "linear, plain formula, linear": Step(cell.by_hand(), plain, *known)}
    return variants


@torch.inference_mode(False)
def train_as_written(words):
    cell, *known = module_in_training(words)
    return {"mha(x, x, x)": Step(cell.as_written(), learning, *known)}
