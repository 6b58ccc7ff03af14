"""What a template shows without asking the catalogue: a reader of Jinja's syntax tree that follows the HTML."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, nodes
from jinja2.ext import InternationalizationExtension

SHOWN_ATTRIBUTES = re.compile(r"(?:aria-label|title|alt|placeholder|data-(?:ask|on|off|one|many|text-[\w-]+))=$")
OPEN_ATTRIBUTE = re.compile(r"""([\w-]+=)(?:"([^"]*)|'([^']*))$""")
SAME_IN_EVERY_LANGUAGE = re.compile(
    r"""
    DICOMweb
    | Pleura | UID | DICOM | SOP | Instance | STAT | API | OpenAPI | AUC | PSI | SHA-256 | C-ECHO | ID | PNG | JPEG
    | HL7 | n | o | i
    """,
    re.VERBOSE,
)
WORD = re.compile(r"[A-Za-z][0-9A-Za-z-]*")
VERBATIM = re.compile(r"<(?:code|kbd)\b")


@dataclass
class Reader:
    """Follows the text of a template: what is shown, and what stands in which attribute of a tag."""

    found: list[str] = field(default_factory=list)
    tag: str = ""
    """The tag that is open now, up to where the text has come; empty between tags."""
    verbatim: bool = False
    """Whether this is a command or a key."""

    def html(self, text: str) -> None:
        for piece in re.split(r"(<[!/a-zA-Z]|>)", text):
            if not self.tag and re.fullmatch(r"<[!/a-zA-Z]", piece):
                self.tag = piece
            elif self.tag and piece == ">" and not _attribute(self.tag):
                self._attributes(self.tag)
                self.verbatim, self.tag = bool(VERBATIM.match(self.tag)), ""
            elif self.tag:
                self.tag += piece
            else:
                self.shown(re.sub(r"&\w+;", " ", piece))

    def shown(self, text: str) -> None:
        if self.verbatim and not self.tag:
            return
        if unknown := [word for word in WORD.findall(text) if not SAME_IN_EVERY_LANGUAGE.fullmatch(word)]:
            self.found.append(f"{text.strip()!r}: {', '.join(unknown)}")

    def value(self, text: str) -> None:
        """A literal of an expression: it counts between tags, and in attributes that people read."""
        name = _attribute(self.tag)
        if not self.tag or (name and SHOWN_ATTRIBUTES.search(name)):
            self.shown(text)
        if self.tag:
            self.tag += re.sub(r"[<>\"']", "", text)

    def _attributes(self, tag: str) -> None:
        for name, value in re.findall(r"""([\w-]+=)"([^"]*)\"""", tag):
            if SHOWN_ATTRIBUTES.search(name):
                self.shown(value)


def _attribute(tag: str) -> str:
    """The attribute whose value is open at the end of a tag."""
    opened = OPEN_ATTRIBUTE.search(tag)
    return opened[1] if opened else ""


def untranslated(path: Path) -> list[str]:
    """The literals of a template that people see in English whatever their language is."""
    source = path.read_text(encoding="utf-8")
    # What stands between trans and endtrans is in the catalogue.
    source = re.sub(r"{%-?\s*trans\b.*?endtrans\s*-?%}", "", source, flags=re.DOTALL)
    tree = Environment(extensions=[InternationalizationExtension]).parse(source)  # noqa: S701 - only parsed
    reader = Reader()
    for output in tree.find_all((nodes.Output, nodes.Assign, nodes.For)):
        if isinstance(output, nodes.Output):
            for part in output.nodes:
                if isinstance(part, nodes.TemplateData):
                    reader.html(part.data)
                else:
                    for text in _values(part):
                        reader.value(text)
        else:
            assert isinstance(output, nodes.Assign | nodes.For)
            expression = output.node if isinstance(output, nodes.Assign) else output.iter
            reader.found += [f"{text!r}" for text in _values(expression) if _is_text(text)]
    return reader.found


def _is_text(text: str) -> bool:
    """Whether a literal of a list or mapping is for people: names of classes, fields and states are in lower case."""
    words = [word for word in WORD.findall(text) if not SAME_IN_EVERY_LANGUAGE.fullmatch(word)]
    is_name = "/" in text or text.startswith("pleura ")
    return bool(words) and (" " in text.strip() or text[:1].isupper()) and not is_name


def _values(node: nodes.Node) -> Iterator[str]:
    """Literals that the value of an expression may be or hold."""
    if isinstance(node, nodes.Const):
        if isinstance(node.value, str):
            yield node.value
    elif isinstance(node, nodes.CondExpr):
        yield from _values(node.expr1)
        if node.expr2 is not None:
            yield from _values(node.expr2)
    elif isinstance(node, (nodes.And, nodes.Or)):
        yield from _values(node.left)
        yield from _values(node.right)
    elif isinstance(node, nodes.Concat):
        for part in node.nodes:
            yield from _values(part)
    elif isinstance(node, (nodes.Tuple, nodes.List)):
        for part in node.items:
            yield from _values(part)
    elif isinstance(node, nodes.Dict):
        for pair in node.items:
            yield from _values(pair.value)
    elif isinstance(node, nodes.Filter):
        if node.node is not None:
            yield from _values(node.node)
    elif isinstance(node, nodes.Call):
        if isinstance(node.node, nodes.Getattr) and node.node.attr == "get":
            yield from _values(node.node.node)
            for part in node.args[1:]:
                yield from _values(part)
    elif isinstance(node, nodes.Getitem):
        yield from _values(node.node)
