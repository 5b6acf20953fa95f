"""A brace scanner for C++: enough to measure functions, not a parser.

functions(text) yields Function(name, line, lines, parameters, nesting).
"""

import re
from dataclasses import dataclass

CONTROL = re.compile(r"^(else\s+)?(if|for|while|switch|do|else|try|catch)\b")
TYPE = re.compile(r"\b(class|struct|union|enum)\b[^()=]*$")
TRIVIA = re.compile(
    r"//[^\n]*|/\*.*?\*/|R\"([^()\\\s]*)\(.*?\)\1\"|\"(?:\\.|[^\"\\\n])*\"|(?<!\d)'(?:\\.|[^'\\\n])+'",
    re.DOTALL)


@dataclass
class Function:
    name: str
    line: int
    lines: int
    parameters: int
    nesting: int


@dataclass
class Brace:
    kind: str  # scope (namespace, type), function, control, other
    header: str
    start: int


def without_comments_and_strings(text):
    """The same text, same lines, with comments blank and strings empty."""
    def blank(match):
        piece = match.group(0)
        kept = piece[0] if piece[0] in "\"'" else " "
        return kept + re.sub(r"[^\n]", " ", piece[1:-1]) + kept if len(piece) > 1 else piece

    return TRIVIA.sub(blank, text)


def without_preprocessor(text):
    return re.sub(r"^[ \t]*#(?:[^\n\\]|\\.|\\\n)*", lambda m: re.sub(r"[^\n]", " ", m.group(0)), text,
                  flags=re.MULTILINE)


def parameter_list(header):
    """The text between the parentheses of the parameters, or None if this is no function."""
    for match in re.finditer(r"([\w\]>~]|operator\s*\S{1,3}?)\s*\(", header):
        word = re.search(r"([\w~]+)\s*$", header[:match.end() - 1])
        if word and word.group(1) in ("decltype", "noexcept", "requires", "alignas", "__attribute__",
                                      "explicit", "if", "for", "while", "switch", "catch"):
            continue
        start, depth = match.end(), 1
        if header[match.start():match.end()].replace(" ", "") == "operator(":
            start = header.index("(", match.end()) + 1  # operator()(...)
        for i in range(start, len(header)):
            depth += {"(": 1, ")": -1}.get(header[i], 0)
            if depth == 0:
                return header[start:i]
    return None


def count_parameters(parameters):
    if not parameters.strip() or parameters.strip() == "void":
        return 0
    depth, commas = 0, 0
    for character in parameters:
        depth += {"(": 1, "<": 1, "{": 1, "[": 1, ")": -1, ">": -1, "}": -1, "]": -1}.get(character, 0)
        commas += character == "," and depth == 0
    return commas + 1


def kind_of(header, enclosing):
    if enclosing in ("function", "control", "other"):
        return "control" if CONTROL.match(header) else "other"
    if re.search(r"\b(namespace|extern)\b[^()]*$", header) or TYPE.search(header):
        return "scope"
    if "(" in header and parameter_list(header) is not None and not re.search(r"=\s*$", header):
        return "function"
    return "other"


def name_of(header):
    match = re.search(r"([\w:~]+(?:\s*operator\s*\S+)?)\s*\(", header)
    return match.group(1) if match else header.strip()[:40]


def functions(text):
    code = without_preprocessor(without_comments_and_strings(text))
    stack, header_start, parentheses = [], 0, 0
    for position, character in enumerate(code):
        if character in "()":
            parentheses += 1 if character == "(" else -1
        elif character == ";" and parentheses <= 0:
            header_start, parentheses = position + 1, 0
        elif character == "{":
            header = code[header_start:position].strip()
            enclosing = stack[-1].kind if stack else "scope"
            # A member initialiser in braces (`a_{1}, b_{2} {`) belongs to the header around it.
            kind = "other" if re.search(r"[:,]\s*[\w:<>]+$", header) and enclosing == "scope" and \
                "(" in header else kind_of(header, enclosing)
            offset = len(code[header_start:position]) - len(code[header_start:position].lstrip())
            stack.append(Brace(kind, header, header_start + offset))
            if kind != "other":
                header_start, parentheses = position + 1, 0
            if kind == "control":
                open_function = next((b for b in reversed(stack) if b.kind == "function"), None)
                if open_function is not None:
                    depth = sum(b.kind == "control" for b in stack)
                    open_function.deepest = max(getattr(open_function, "deepest", 0), depth)
        elif character == "}" and stack:
            brace = stack.pop()
            if brace.kind == "function":
                yield function_at(code, brace, position)
            in_scope = not stack or stack[-1].kind == "scope"
            if brace.kind != "other" or not in_scope:  # after a_{1} the header goes on
                header_start, parentheses = position + 1, 0


def function_at(code, brace, end):
    first = code.count("\n", 0, brace.start) + 1
    last = code.count("\n", 0, end) + 1
    return Function(name_of(brace.header), first, last - first + 1,
                    count_parameters(parameter_list(brace.header)), getattr(brace, "deepest", 0))
