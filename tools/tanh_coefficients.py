#!/usr/bin/env python3
"""Derives the coefficients of src/kernels/attention_softcap.body.h, and checks the file against them.

    pip install mpmath && tools/tanh_coefficients.py

(tanh(x) / x - 1) / x^2 is a smooth function of z = x^2 and nowhere near 0; it is interpolated at the
Chebyshev points of 0 <= z <= 1/4. The error printed is that of tanh, relative, before rounding.
"""
import pathlib
import re
import struct
import sys

from mpmath import cos, lu_solve, matrix, mp, mpf, nstr, pi, polyval, sqrt, tanh

mp.dps = 60
BODY = pathlib.Path(__file__).resolve().parents[1] / 'src/kernels/attention_softcap.body.h'
NEAR = mpf(1) / 2
# name, degree, bits of precision, struct letter
KINDS = (('Float', 4, 24, 'f'), ('Double', 9, 53, 'd'))


def target(z):
    x = sqrt(z)
    return (tanh(x) / x - 1) / z


def interpolate(degree):
    """Coefficients, lowest power first, and the largest relative error of tanh on a grid."""
    n, high = degree + 1, NEAR**2
    system, right = matrix(n, n), matrix(n, 1)
    for row in range(n):
        z = high / 2 * (1 + cos(pi * (2 * row + 1) / (2 * n)))
        right[row] = target(z)
        for power in range(n):
            system[row, power] = z**power
    coefficients = list(lu_solve(system, right))
    grid = [NEAR * i / 1000 for i in range(1, 1001)]
    worst = max(abs((x + x**3 * polyval(coefficients[::-1], x * x)) / tanh(x) - 1) for x in grid)
    return coefficients, worst


def numbers_in_body(name):
    body = re.search(name + r'\[\] = \{(.*?)\};', BODY.read_text(), re.S)[1]
    words = body.replace('F', '').replace(',', ' ').split()
    return [float.fromhex(w) if 'x' in w else float(w) for w in words]


def main():
    agree = True
    for kind, degree, bits, letter in KINDS:
        coefficients, worst = interpolate(degree)
        rounded = [struct.unpack(letter, struct.pack(letter, float(c)))[0]
                   for c in coefficients[::-1]]
        same = rounded == [struct.unpack(letter, struct.pack(letter, x))[0]
                           for x in numbers_in_body('kTanh' + kind)]
        agree &= same
        print(f'kTanh{kind}: degree {degree}, error {nstr(worst * 2**bits, 3)} * 2^-{bits}, '
              f'{"as in" if same else "NOT in"} {BODY.name}')
        print('    ' + ', '.join(x.hex() for x in rounded))
    return 0 if agree else 1


if __name__ == '__main__':
    sys.exit(main())
