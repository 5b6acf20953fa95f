#!/usr/bin/env python3
"""Derives the coefficients of src/simd/exp2.inc.h, and checks the header against them.

    pip install mpmath && tools/exp2_coefficients.py

2^f on [0, 1) as 1 + f q(f), q chosen by Remez' exchange so that the largest relative error is as
small as it can be. p(0) = 1 exactly: a row's maximum then has probability 1 before normalisation.
"""
import pathlib
import sys

from mpmath import cos, lu_solve, matrix, mp, mpf, nstr, pi

from coefficients import numbers_in, stored

mp.dps = 60
HEADER = pathlib.Path(__file__).resolve().parents[1] / 'src/simd/exp2.inc.h'
GRID = [mpf(i) / 4000 for i in range(4001)]


def relative_error(coefficients, x):
    return sum(c * x**i for i, c in enumerate(coefficients)) / mpf(2)**x - 1


def alternating_extrema(values):
    """Indices of the extrema of the error on the grid, one for each run of equal signs."""
    chosen = []
    for i in range(1, len(values)):
        is_last = i == len(values) - 1
        if not is_last and not abs(values[i - 1]) <= abs(values[i]) >= abs(values[i + 1]):
            continue
        if chosen and (values[i] > 0) == (values[chosen[-1]] > 0):
            if abs(values[i]) > abs(values[chosen[-1]]):
                chosen[-1] = i
        else:
            chosen.append(i)
    return chosen


def interpolate(points):
    """1 + f q(f) whose relative error at the points is level and alternates; and the level."""
    n = len(points) - 1
    system, right = matrix(n + 1, n + 1), matrix(n + 1, 1)
    for row, x in enumerate(points):
        for column in range(n):
            system[row, column] = x**(column + 1) / mpf(2)**x
        system[row, n] = (-1)**row
        right[row] = 1 - 1 / mpf(2)**x
    solution = lu_solve(system, right)
    return [mpf(1)] + [solution[i] for i in range(n)], abs(solution[n])


def remez(degree):
    points = [(1 - cos(pi * (2 * i + 1) / (2 * (degree + 1)))) / 2 for i in range(degree + 1)]
    while True:
        coefficients, level = interpolate(points)
        values = [relative_error(coefficients, x) for x in GRID]
        worst = max(abs(v) for v in values)
        if worst <= level * mpf('1.001'):
            return coefficients, worst
        points = [GRID[i] for i in alternating_extrema(values)[-degree - 1:]]


def main():
    agree = True
    for name, degree, bits, pack in (('kExp2Float', 5, 24, 'f'), ('kExp2Double', 11, 53, 'd')):
        coefficients, worst = remez(degree)
        rounded = stored(coefficients[::-1], pack)
        there = stored(numbers_in(HEADER, name), pack)
        same = all(abs(a - b) <= 2 * abs(a) * 2.0**-bits
                   for a, b in zip(rounded, there, strict=True))
        agree &= same
        print(f'{name}: degree {degree}, error {nstr(worst * 2**bits, 3)} * 2^-{bits};',
              'as in the header' if same else 'NOT as in the header:')
        if not same:
            print('  ', ', '.join(x.hex() if pack == 'd' else f'{x:.9g}' for x in rounded))
    return not agree


if __name__ == '__main__':
    sys.exit(main())
