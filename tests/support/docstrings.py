"""A checker of docstrings: it finds fragments, which tell a reader nothing ("Of the model.", "As given.", "How.").

The rules are those of CONTRIBUTING.md. The checker reads source code and never imports it. Run it on files or folders:
``python tests/support/docstrings.py runtime/yolact_runtime/media``.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

Definition = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _word_lists() -> dict[str, frozenset[str]]:
    """Read ``docstring_words.txt``: names of lists in brackets, each before its words."""
    lists: dict[str, frozenset[str]] = {}
    for line in Path(__file__).with_name("docstring_words.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            name = line.strip("[]")
            lists[name] = frozenset()
        elif not line.startswith("#"):
            lists[name] |= set(line.split())
    return lists


WORDS = _word_lists()
VERBS = WORDS["verbs"]
PREPOSITIONS = WORDS["prepositions"]
CONJUNCTIONS = WORDS["conjunctions"]
QUESTIONS = WORDS["questions"]
OTHERS = WORDS["others"]
ADJECTIVES = WORDS["adjectives"]
NOUNS_IN_ED = WORDS["nouns_in_ed"]
DETERMINERS = WORDS["determiners"]
ARTICLES = WORDS["articles"]
# A shape with its dtype, a name or a value: "``(N, 4)`` float32", "`frame`", "(H, W)".
CODE = re.compile(r"(?:``[^`]+``|`[^`]+`|\([^)]*\))\s*(?:(?:bool|u?int\d+|float\d+)\b:?\s*)?")
SECTIONS = re.compile(r"^(Args|Attributes|Returns|Yields|Raises|Example|Examples|Note|Notes|References):$")


@dataclass(frozen=True)
class Fragment:
    """A docstring, or a description in one, that breaks a rule.

    Attributes:
        name: Dotted name inside the module, with the argument or attribute behind a colon.
        line: Line number of the definition.
        text: First words of the text.
        rule: Sentence that says what is wrong with it.
    """

    name: str
    line: int
    text: str
    rule: str

    def __str__(self) -> str:
        return f"{self.line}: {self.name}: {self.text[:70]!r}: {self.rule}"


def fragments_of(path: Path) -> list[Fragment]:
    """Return what is wrong with the docstrings of a module's public names."""
    return fragments_in(path.read_text(encoding="utf-8"), path.stem)


def fragments_in(source: str, module: str = "module") -> list[Fragment]:
    """Return what is wrong with the docstrings of public names in source code."""
    return [found for name, node in _public(ast.parse(source), module) for found in _check(name, node)]


def _public(tree: ast.Module, module: str) -> Iterator[tuple[str, Definition]]:
    """Yield the module and every public class, function and method; what is inside functions is not public."""
    yield f"<{module}>", tree
    pending: list[tuple[str, ast.stmt]] = [("", node) for node in tree.body]
    while pending:
        prefix, node = pending.pop(0)
        if isinstance(node, ast.If | ast.Try):
            pending += [(prefix, child) for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
        elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            private = node.name.startswith("_") and not re.fullmatch("__.+__", node.name)
            if not private:
                yield prefix + node.name, node
                if isinstance(node, ast.ClassDef):
                    pending += [(f"{prefix}{node.name}.", child) for child in node.body]


def _check(name: str, node: Definition) -> Iterator[Fragment]:
    docstring = ast.get_docstring(node)
    if docstring is None:
        return
    line = getattr(node, "lineno", 1)
    summary, sections = _sections(docstring)
    rule = _rule_of_summary(node, summary)
    if rule:
        yield Fragment(name, line, summary, rule)
    for sentence in _sentences(summary)[1:]:
        if len(_words(sentence)) < 3 and not _is_imperative(sentence) and "thread-safe" not in sentence.lower():
            yield Fragment(name, line, sentence, "is not a sentence")
    for section, entry, text in sections:
        rule = _rule_of_noun(text, entry)
        if rule:
            yield Fragment(f"{name}:{entry or section}", line, text, rule)


def _rule_of_summary(node: Definition, text: str) -> str:
    name = getattr(node, "name", "")
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return _rule_of_noun(text, name)
    decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
    if any(decorator.rpartition(".")[2] in {"property", "cached_property"} for decorator in decorators):
        if (
            node.returns is not None
            and ast.unparse(node.returns) == "bool"
            and not text.startswith(("Whether ", "True"))
        ):
            return 'does not begin with "Whether"'
        return "" if text.startswith("Return ") else _rule_of_noun(text, name)
    if not _is_imperative(text):
        return "does not begin with a verb in the imperative"
    return ""


def _is_imperative(text: str) -> bool:
    """Tell an order from a noun that is spelled the same ("Copy of a frame")."""
    words = _words(_sentences(text)[0])
    return len(words) > 1 and words[0] in VERBS and words[1] != "of" and words[1:] not in (["it"], ["them"], ["this"])


def _rule_of_noun(text: str, name: str) -> str:
    code = CODE.match(text)
    text = text[code.end() :] if code else text
    if code and not (text[:1].isalpha() and _words(text)[0] not in PREPOSITIONS | CONJUNCTIONS):
        return "begins with code and names nothing"
    words = _words(text)
    if not words:
        return "is empty"
    first, second = words[0], (words[1] if len(words) > 1 else "")
    if first in PREPOSITIONS | QUESTIONS | OTHERS and not _is_term(text):
        return f'begins with "{first}"'
    if first in CONJUNCTIONS and not (first == "if" and "," in text):
        return f'begins with "{first}"'
    is_third_person = first not in VERBS and bool({first.removesuffix("s"), first.removesuffix("es")} & VERBS)
    if second in DETERMINERS and is_third_person and not code:
        return f'has a verb without a subject: "{first}"'
    if _is_bare(text, first, second):
        return f'has no noun behind "{first}"'
    sentence = _words(_sentences(text)[0])
    if code or "`" in text:
        return ""
    if len(sentence) < 2:
        return "is one word"
    if len(sentence) <= 3 and not _stems(sentence) - _stems(re.split(r"_|(?<=[a-z])(?=[A-Z])", name)):
        return "repeats the name"
    return ""


def _is_term(text: str) -> bool:
    """Return whether a text begins with a compound word: "Per-pixel loss", "Off-by-one errors"."""
    return re.match(r"\w+-\w", text) is not None


def _is_bare(text: str, first: str, second: str) -> bool:
    participle = first.endswith("ed") and first not in NOUNS_IN_ED
    if first not in ADJECTIVES and not participle:
        return False
    return bool(re.match(r"[\w-]+\s*[.,;:(]", text)) or second in PREPOSITIONS | CONJUNCTIONS | {""}


def _stems(words: list[str]) -> set[str]:
    return {word.lower().rstrip("s") for word in words} - {word.rstrip("s") for word in ARTICLES}


def _words(text: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[\w][\w'-]*", re.sub(r":\w+:`~?([^`]*)`", r"\1", text))]


def _sentences(text: str) -> list[str]:
    """Split prose at full stops; those of abbreviations and code are none."""
    return [part for part in re.split(r"(?<=[.!?])\s+(?=[A-Z])", text) if part]


def _sections(docstring: str) -> tuple[str, list[tuple[str, str, str]]]:
    """Return the prose before the sections, and section, entry and text of every description."""
    prose: list[str] = []
    found: list[tuple[str, str, str]] = []
    section = ""
    for line in docstring.splitlines():
        heading = SECTIONS.match(line)
        if heading:
            section = heading[1]
            if section in {"Returns", "Yields"}:
                found.append((section, "", ""))
        elif not section:
            prose.append(line)
        elif line and not line.startswith(" "):
            section = ""
            prose.append(line)
        elif section in {"Args", "Attributes", "Returns", "Yields"}:
            entry = re.match(r"    (\*{0,2}\w+)(?: \([^)]*\))?:(?: |$)(.*)", line)
            if entry and section in {"Args", "Attributes"}:
                found.append((section, entry[1].strip("*"), entry[2]))
            elif found:
                found[-1] = (*found[-1][:2], f"{found[-1][2]} {line.strip()}".strip())
    return " ".join(" ".join(prose).split()), found


def main(words: list[str]) -> int:
    """Print what is wrong with the modules of files and folders; return 1 if there is anything."""
    roots = [Path(word) for word in words]
    modules = sorted(path for root in roots for path in (root.rglob("*.py") if root.is_dir() else [root]))
    lines = [f"{path}:{fragment}" for path in modules for fragment in fragments_of(path)]
    sys.stdout.write("".join(f"{line}\n" for line in [*lines, f"{len(lines)} fragments in {len(modules)} modules"]))
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
