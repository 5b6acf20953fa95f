"""What the programs that derive coefficients share: polynomials, and the numbers in a source file."""
import re
import struct

from mpmath import cos, lu_solve, matrix, pi


def interpolated(target, low, high, degree):
    """The polynomial through target at the Chebyshev points of [low, high], lowest power first."""
    n = degree + 1
    system, right = matrix(n, n), matrix(n, 1)
    for row in range(n):
        x = (low + high) / 2 + (high - low) / 2 * cos(pi * (2 * row + 1) / (2 * n))
        right[row] = target(x)
        for power in range(n):
            system[row, power] = x**power
    return list(lu_solve(system, right))


def stored(numbers, letter):
    """As floats ('f') or doubles ('d') hold them."""
    return [struct.unpack(letter, struct.pack(letter, float(x)))[0] for x in numbers]


def numbers_in(path, name):
    """Those of the array `name` in a source file."""
    body = re.search(name + r'\[\] = \{(.*?)\};', path.read_text(), re.S)[1]
    words = body.replace('F', '').replace(',', ' ').split()
    return [float.fromhex(w) if 'x' in w else float(w) for w in words]
