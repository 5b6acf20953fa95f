"""A decoder's step as arrays: the caches, which take turns, and the newest token."""

from serving import Variant


class DecodeInputs:
    def __init__(self, words):
        self.words = words
        b, h, d = words.batch, words.heads, words.head_dim
        self.keys_shape = (b, words.kv_heads, words.kv_len, d)
        self.group = h // words.kv_heads
        self.query_shape = (b, h, 1, d)
        # The rows of heads that share keys, as so many queries of one head: without a mask the same.
        self.grouped_shape = (b, words.kv_heads, self.group, d)

    def query(self):
        return self.words.read("query.f32", self.query_shape)

    def caches(self):
        """[(key, value)], each with its own memory."""
        return [(self.words.read("key.f32", self.keys_shape),
                 self.words.read("value.f32", self.keys_shape)) for _ in range(self.words.caches)]


class InTurn:
    """One call after the other, again and again; `last`: which was made last."""

    def __init__(self, calls):
        self.calls = calls
        self.last = -1

    def __call__(self):
        self.last = (self.last + 1) % len(self.calls)
        return self.calls[self.last]()


def variant_in_turn(variants):
    """Of equal ones, each over a cache of its own."""
    turns = InTurn([variant.run for variant in variants])
    return Variant(turns, lambda: variants[turns.last].outputs())
