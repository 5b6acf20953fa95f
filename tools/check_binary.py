#!/usr/bin/env python3
"""Disassembles the static library and proves that no instruction beyond baseline x86-64 can be
reached on an older CPU: VEX and EVEX instructions stand only in functions of the namespaces
polyhead::avx2 and polyhead::avx512. A std template compiled inside a region, or a function that
escaped its namespace, would be merged by the linker with the baseline's and crash there.

    python3 tools/check_binary.py build/release/libpolyhead.a [--spills]

Also reports the functions that move vectors to and from the stack (spills), worst first.
"""

import collections
import re
import subprocess
import sys

# Mangled names of functions in polyhead::avx2 or polyhead::avx512, their local entities included.
ISA_SYMBOL = re.compile(r"^_ZZ*N[KVRO]*8polyhead(?:4simd)?(4avx2|6avx512)")
SYMBOL_LINE = re.compile(r"^[0-9a-f]+ <(.+)>:$")
INSTRUCTION_LINE = re.compile(r"^\s+[0-9a-f]+:\s+(?:\{\w+\}\s*)?([a-z0-9]+)\s*(.*)$")

# Encoded with VEX or EVEX, though their names do not begin with v. (tzcnt and lzcnt are no VEX
# instructions, but an older CPU reads lzcnt as bsr: as wrong.)
VEX_NAMES = re.compile(
    r"^(andn|bextr|blsi|blsmsk|blsr|bzhi|mulx|pdep|pext|rorx|sarx|shlx|shrx|lzcnt|"
    r"k(add|and|andn|mov|not|or|ortest|shiftl|shiftr|test|unpck|xnor|xor)[bwdq]{1,2}|tile\w+|tdp\w+)$")
NOT_VECTOR = {"verr", "verw", "vmcall", "vmlaunch", "vmresume", "vmxoff", "vmfunc"}
SPILL = re.compile(r"^v?mov[au]p[sd]$|^vmovdq[au]\d*$")
STACK_OPERAND = re.compile(r"\(%r[sb]p\b")


def needs_newer_cpu(mnemonic):
    if VEX_NAMES.match(mnemonic):
        return True
    return mnemonic.startswith("v") and mnemonic not in NOT_VECTOR


def is_spill(mnemonic, operands):
    wide = "%ymm" in operands or "%zmm" in operands
    return wide and SPILL.match(mnemonic) and STACK_OPERAND.search(operands)


def disassemble(library):
    command = ["objdump", "-d", "--no-show-raw-insn", library]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        symbol = "?"
        for line in process.stdout:
            if match := SYMBOL_LINE.match(line):
                symbol = match.group(1)
            elif match := INSTRUCTION_LINE.match(line):
                yield symbol, match.group(1), match.group(2)
    if process.returncode != 0:
        sys.exit(f"check_binary: objdump failed on {library}")


def demangled(symbols):
    result = subprocess.run(["c++filt"], input="\n".join(symbols), capture_output=True, text=True,
                            check=True)
    return result.stdout.splitlines()


def survey(library):
    """(escapes, vector, spills): per symbol, instructions that escaped; that are home; spills."""
    escapes, vector, spills = {}, collections.Counter(), collections.Counter()
    for symbol, mnemonic, operands in disassemble(library):
        at_home = ISA_SYMBOL.match(symbol)
        if needs_newer_cpu(mnemonic):
            if at_home:
                vector[symbol] += 1
            else:
                escapes.setdefault(symbol, f"{mnemonic} {operands}".strip())
        if at_home and is_spill(mnemonic, operands):
            spills[symbol] += 1
    return escapes, vector, spills


def report_spills(vector, spills):
    worst = spills.most_common(12)
    for (symbol, count), name in zip(worst, demangled([symbol for symbol, _ in worst])):
        print(f"  {count:5d} stack moves in {vector[symbol]:6d} vector instructions: {name[:110]}")


def main():
    library = sys.argv[1]
    escapes, vector, spills = survey(library)
    for example, name in zip(escapes.values(), demangled(list(escapes))):
        print(f"{library}: {name}: `{example}` outside the namespaces avx2 and avx512")
    print(f"check_binary: {len(vector)} functions for AVX2 and AVX-512, {len(escapes)} escapes, "
          f"{sum(spills.values())} vector moves to or from the stack in {len(spills)} functions")
    if "--spills" in sys.argv[2:]:
        report_spills(vector, spills)
    return 1 if escapes else 0


if __name__ == "__main__":
    sys.exit(main())
