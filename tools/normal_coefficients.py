#!/usr/bin/env python3
"""Derives the coefficients of src/nn/gelu.body.h, and checks the file against them.

    pip install mpmath && tools/normal_coefficients.py

The upper tail of the normal distribution is 1 - Phi(z) = exp(-z^2 / 2) t g(t), t = 1 / (1 + p z);
g is smooth and nowhere small, and is interpolated at Chebyshev points of the range of t that z has
before exp(-z^2 / 2) is flushed to 0. p was chosen by trying multiples of 1/64.
"""
import pathlib
import sys

from mpmath import erfc, exp, mp, mpf, nstr, polyval, sqrt

from coefficients import interpolated, numbers_in, stored

mp.dps = 60
BODY = pathlib.Path(__file__).resolve().parents[1] / 'src/nn/gelu.body.h'
# name, degree, p, the largest z, bits of precision, struct letter
KINDS = (('Float', 9, mpf(19) / 64, mpf('13.2'), 24, 'f'),
         ('Double', 22, mpf(14) / 64, mpf('37.7'), 53, 'd'))


def target(t, p):
    z = (1 / t - 1) / p
    return erfc(z / sqrt(2)) / 2 * exp(z * z / 2) / t


def worst_error(coefficients, p, low):
    """The largest relative error on a grid."""
    grid = [low + (1 - low) * i / 1000 for i in range(1001)]
    return max(abs(polyval(coefficients[::-1], t) / target(t, p) - 1) for t in grid)


def main():
    agree = True
    for kind, degree, p, z_max, bits, letter in KINDS:
        low = 1 / (1 + p * z_max)
        coefficients = interpolated(lambda t, p=p: target(t, p), low, mpf(1), degree)
        rounded = stored(coefficients[::-1], letter)
        same = rounded == stored(numbers_in(BODY, 'kTail' + kind), letter)
        agree &= same
        error = nstr(worst_error(coefficients, p, low) * 2**bits, 3)
        print(f'kTail{kind}: degree {degree}, p {nstr(p, 9)}, error {error} * 2^-{bits};',
              'as in the body' if same else 'NOT as in the body:')
        if not same:
            print('  ', ', '.join(x.hex() if letter == 'd' else f'{x:.9g}F' for x in rounded))
    return not agree


if __name__ == '__main__':
    sys.exit(main())
