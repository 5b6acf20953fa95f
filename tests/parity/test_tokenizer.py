"""Our WordPiece against the `tokenizers` package, line for line and code point for code point."""

import subprocess
from pathlib import Path

import pytest
import tokenizers

LINES = Path(__file__).with_name("tokenizer_lines.txt")


@pytest.fixture(scope="module")
def reference(model):
    tokenizer = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


@pytest.fixture(scope="module")
def ours(build, model):
    def ids_of(lines):
        text = "".join(line + "\n" for line in lines).encode()
        result = subprocess.run([build / "tests/parity/tokenize_lines", model], input=text,
                                capture_output=True, check=True)
        return [[int(n) for n in row.split()] for row in result.stdout.decode().splitlines()]

    return ids_of


def differences(lines, ours, reference):
    want = [encoding.ids for encoding in reference.encode_batch(lines)]
    got = ours(lines)
    assert len(got) == len(want)
    return [(line, a, b) for line, a, b in zip(lines, got, want) if a != b]


def test_every_line_has_the_same_ids(ours, reference):
    lines = LINES.read_bytes().decode().split("\n")[:-1]
    assert len(lines) >= 500
    assert differences(lines, ours, reference) == []


def test_comparison_notices_a_wrong_id(ours, reference):
    def one_off(lines):
        rows = ours(lines)
        rows[-1][1] += 1
        return rows

    assert len(differences(["one line", "and another"], one_off, reference)) == 1


def test_every_code_point_splits_a_word_as_there(ours, reference):
    """Between letters that are pieces of their own, so that what vanishes or splits shows."""
    points = [p for p in range(0x110000) if p != 10 and not 0xD800 <= p <= 0xDFFF]
    lines = [f"ab{chr(p)}cd" for p in points]
    wrong = differences(lines, ours, reference)
    assert [f"U+{ord(line[2]):04X}" for line, _, _ in wrong] == []


def test_ill_formed_bytes_vanish(build, model):
    program = build / "tests/parity/tokenize_lines"
    bad = b"a\xff b\xc0\x80c \xed\xa0\x80d\xf4\x90\x80\x80e\xe4\xb8\n"
    runs = [subprocess.run([program, model], input=text, capture_output=True, check=True).stdout
            for text in (bad, b"a bc de\n")]
    assert runs[0] == runs[1]
