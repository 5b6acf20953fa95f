#!/usr/bin/env python3
"""Prints test vectors of docs/canonical_order.md, drawn at random and without digests.

    tests/canonical/random_vectors.py 1000 [SEED] >rows.txt
    canonical_order rows.txt --print >vectors.txt      fills them in
    POLYHEAD_CANONICAL_VECTORS=vectors.txt canonical_order_test
"""
import random
import sys


def some_masks(draw, letters):
    masks = ''.join(draw.sample(letters, draw.choice([0, 0, 1, 1, 2, 3])))
    return masks + draw.choice(['', '', '', 'p', 's', 'ps']) or '-'


def linear(draw, name, dtype):
    rows, k, n = draw.randint(1, 70), draw.randint(1, 300), draw.randint(1, 200)
    return f'linear {name} {dtype} 1 1 1 {rows} 0 0 {k} {n} - plain - zero - - ? ? ?'


def heads(draw, name, dtype):
    dim = draw.randint(1, 140)
    rotary = 2 * draw.randint(0, dim // 2)
    ratio = draw.choice([r for r in (1, 2, 3, 7, 10) if r**(rotary // 2) <= 2**53])
    shape = f'{draw.randint(1, 3)} {draw.randint(1, 4)} 1 {draw.randint(1, 70)}'
    position = draw.choice([0, 1, 1000, draw.randint(0, 2**31 - 100)])
    return (f'heads {name} {dtype} {shape} {position} {draw.randint(0, 1)} {dim} {rotary} {ratio} '
            f'{draw.choice(["plain", "peaked"])} {draw.choice("-i")} zero - - ? ? ?')


def call(op, masks, draw, name, dtype):
    kv_heads, q_len = draw.randint(1, 2), draw.randint(1, 70)
    heads = kv_heads * draw.randint(1, 3)
    kv_len = draw.randint(*draw.choices([(0, 0), (1, 150), (1000, 2200)], [1, 17, 2])[0])
    widths = f'{draw.randint(0, 8)} {draw.randint(1, 70)} {draw.randint(1, 70)}'
    scale = draw.choice(['-', '-', '0.37', '1'])
    regime = draw.choice(['plain', 'peaked', 'rising', 'falling', 'poisoned'])
    words = [draw.choice(['zero', 'nan']), draw.choice(['heads', 'mean', '-']),
             draw.choice(['-', '-', '0.1', '0.5', '1'])]
    return (f'{op} {name} {dtype} {draw.randint(1, 2)} {heads} {kv_heads} {q_len} {kv_len} '
            f'{widths} {scale} {regime} {some_masks(draw, masks)} {" ".join(words)} ? ? ?')


def attention(draw, name, dtype):
    return call('attention', 'tronmlabckfdi', draw, name, dtype)


def backward(draw, name, dtype):
    return call('backward', 'tronmlabckfdigw', draw, name, dtype)


def main():
    draw = random.Random(sys.argv[2] if len(sys.argv) > 2 else '20')
    for n in range(int(sys.argv[1])):
        op = {0: linear, 4: heads}.get(n % 8, backward if n % 4 == 1 else attention)
        print(op(draw, f'random_{n}', draw.choice(['float32', 'float64'])))


if __name__ == '__main__':
    main()
