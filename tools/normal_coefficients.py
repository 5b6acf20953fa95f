#!/usr/bin/env python3
"""Derives the coefficients of src/nn/gelu.body.h, and checks the file against them.

    pip install mpmath && tools/normal_coefficients.py

The upper tail of the normal distribution is 1 - Phi(z) = exp(-z^2 / 2) t g(t), t = 1 / (1 + p z);
g is smooth and nowhere small, and is interpolated at Chebyshev points of the range of t that z has
before exp(-z^2 / 2) is flushed to 0. p was chosen by trying multiples of 1/64.
"""
import pathlib
import re
import struct
import sys

from mpmath import cos, erfc, exp, lu_solve, matrix, mp, mpf, nstr, pi, polyval, sqrt

mp.dps = 60
BODY = pathlib.Path(__file__).resolve().parents[1] / 'src/nn/gelu.body.h'
# name, degree, p, the largest z, bits of precision, struct letter
KINDS = (('Float', 9, mpf(19) / 64, mpf('13.2'), 24, 'f'),
         ('Double', 22, mpf(14) / 64, mpf('37.7'), 53, 'd'))


def target(t, p):
    z = (1 / t - 1) / p
    return erfc(z / sqrt(2)) / 2 * exp(z * z / 2) / t


def interpolate(degree, p, z_max):
    """Coefficients, lowest power first, and the largest relative error on a grid."""
    low, high, n = 1 / (1 + p * z_max), mpf(1), degree + 1
    points = [(low + high) / 2 + (high - low) / 2 * cos(pi * (2 * i + 1) / (2 * n))
              for i in range(n)]
    system, right = matrix(n, n), matrix(n, 1)
    for row, t in enumerate(points):
        right[row] = target(t, p)
        for power in range(n):
            system[row, power] = t**power
    coefficients = list(lu_solve(system, right))
    grid = [low + (high - low) * i / 1000 for i in range(1001)]
    worst = max(abs(polyval(coefficients[::-1], t) / target(t, p) - 1) for t in grid)
    return coefficients, worst


def numbers_in_body(name):
    body = re.search(name + r'\[\] = \{(.*?)\};', BODY.read_text(), re.S)[1]
    words = body.replace('F', '').replace(',', ' ').split()
    return [float.fromhex(w) if 'x' in w else float(w) for w in words]


def main():
    agree = True
    for kind, degree, p, z_max, bits, letter in KINDS:
        coefficients, worst = interpolate(degree, p, z_max)
        rounded = [struct.unpack(letter, struct.pack(letter, float(c)))[0]
                   for c in coefficients[::-1]]
        same = rounded == [struct.unpack(letter, struct.pack(letter, x))[0]
                           for x in numbers_in_body('kTail' + kind)]
        agree &= same
        print(f'kTail{kind}: degree {degree}, p {nstr(p, 9)}, error {nstr(worst * 2**bits, 3)} * '
              f'2^-{bits};', 'as in the body' if same else 'NOT as in the body:')
        if not same:
            print('  ', ', '.join(x.hex() if letter == 'd' else f'{x:.9g}F' for x in rounded))
    return not agree


if __name__ == '__main__':
    sys.exit(main())
