#!/usr/bin/env python3
"""Derives the coefficients of src/kernels/attention_softcap.body.h, and checks the file for them.

    pip install mpmath && tools/tanh_coefficients.py

(tanh(x) / x - 1) / x^2 is a smooth function of z = x^2 and nowhere near 0; it is interpolated at
the Chebyshev points of 0 <= z <= 1/4. The error printed is that of tanh, relative, before rounding.
"""
import pathlib
import sys

from mpmath import mp, mpf, nstr, polyval, sqrt, tanh

from coefficients import interpolated, numbers_in, stored

mp.dps = 60
BODY = pathlib.Path(__file__).resolve().parents[1] / 'src/kernels/attention_softcap.body.h'
NEAR = mpf(1) / 2
# name, degree, bits of precision, struct letter
KINDS = (('Float', 4, 24, 'f'), ('Double', 9, 53, 'd'))


def target(z):
    x = sqrt(z)
    return (tanh(x) / x - 1) / z


def worst_error(coefficients):
    """The largest relative error of tanh on a grid."""
    grid = [NEAR * i / 1000 for i in range(1, 1001)]
    return max(abs((x + x**3 * polyval(coefficients[::-1], x * x)) / tanh(x) - 1) for x in grid)


def main():
    agree = True
    for kind, degree, bits, letter in KINDS:
        coefficients = interpolated(target, mpf(0), NEAR**2, degree)
        rounded = stored(coefficients[::-1], letter)
        same = rounded == stored(numbers_in(BODY, 'kTanh' + kind), letter)
        agree &= same
        error = nstr(worst_error(coefficients) * 2**bits, 3)
        print(f'kTanh{kind}: degree {degree}, error {error} * 2^-{bits}, '
              f'{"as in" if same else "NOT in"} {BODY.name}')
        print('    ' + ', '.join(x.hex() for x in rounded))
    return 0 if agree else 1


if __name__ == '__main__':
    sys.exit(main())
