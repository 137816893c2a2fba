"""XML as robot models use it, read with bounds.

In: bytes of a file that may be hostile. Out: an ``xml.etree`` tree of which every element knows its file, line and
path, or one line that names the element. No entity is ever expanded, and depth, size and numbers are bounded.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree.ElementTree import Element
from xml.parsers import expat
from xml.sax.saxutils import quoteattr

from flyball.base import Damaged, InputError

LARGEST = 64 << 20
"""Largest XML file [bytes]; the largest published robot has less than 3 MB."""
DEEPEST = 200
MOST = 300_000
"""Elements of one model; the largest published robot has fewer than 20,000."""
_TEXTS = {
    "name",
    "class",
    "childclass",
    "file",
    "filename",
    "body",
    "joint",
    "link",
    "geom",
    "site",
    "mesh",
    "material",
}


@dataclass
class Document:
    """A parsed file, or several that include each other.

    Attributes:
      root: the root element.
      where: what a message calls the file.
      comments: texts of the comments, in order.
    """

    root: Element
    where: str
    comments: list[str] = field(default_factory=list)
    origin: dict[Element, tuple[Document, Element]] = field(default_factory=dict)
    """Of a document made from another one: which element there an element stands for."""
    _place: dict[Element, tuple[str, int, Element | None]] = field(default_factory=dict)

    @classmethod
    def new(cls, tag: str, attributes: dict[str, str], made_from: Document) -> Document:
        """A document with a root only, made from another one."""
        document = cls(Element(tag, attributes), made_from.where)
        document._place[document.root] = (made_from.where, 0, None)
        document.origin[document.root] = (made_from, made_from.root)
        return document

    def at(self, element: Element, attribute: str = "") -> str:
        """Where an element is: ``arm.urdf:12 robot/link[hand]/inertial/mass``."""
        if element in self.origin:
            source, place = self.origin[element]
            return source.at(place)
        parts: list[str] = []
        e: Element | None = element
        while e is not None:
            name = e.get("name") or ""
            parent = self._place[e][2] if e in self._place else None
            twins = [] if name or parent is None else [x for x in parent if x.tag == e.tag]
            number = str(next(i for i, x in enumerate(twins) if x is e)) if len(twins) > 1 and e in twins else ""
            label = f"[{name[:60] or number}]" if name or number else ""
            parts.append(f"{e.tag}{label}")
            e = parent
        file, line = self._place[element][:2] if element in self._place else (self.where, 0)
        path = "/".join(reversed(parts)) + (f"@{attribute}" if attribute else "")
        return f"{file}:{line} {path}" if line else f"{file} {path}"

    def parent(self, element: Element) -> Element | None:
        """The element around one."""
        return self._place[element][2]

    def adopt(self, other: Document, into: Element, at: int) -> None:
        """Put the children of another document's root into an element, in place of its child number ``at``."""
        self._place.update(other._place)
        children = list(other.root)
        into[at : at + 1] = children
        for child in children:
            file, line, _ = self._place[child]
            self._place[child] = (file, line, into)
        if len(self._place) > MOST:
            raise InputError(f"more than {MOST} elements", where=self.at(into), allowed=f"{MOST} per model")
        self.comments += other.comments

    def add(self, parent: Element, tag: str, attributes: dict[str, str], like: Element) -> Element:
        """Append a new element that counts as standing where ``like`` stands, here or in the document of origin."""
        child = Element(tag, attributes)
        parent.append(child)
        if like in self._place:
            file, line, _ = self._place[like]
            self._place[child] = (file, line, parent)
            if like in self.origin:
                self.origin[child] = self.origin[like]
        else:
            source = self.origin[self.root][0]
            self._place[child] = (self.where, 0, parent)
            self.origin[child] = (source, like)
        return child

    def text(self) -> tuple[str, list[Element]]:
        """The document, one element per line, and the element that starts each line."""
        lines: list[str] = []
        starts: list[Element] = []
        todo: list[tuple[Element, int, bool]] = [(self.root, 0, False)]
        while todo:
            e, depth, closing = todo.pop()
            starts.append(e)
            if closing:
                lines.append(" " * depth + f"</{e.tag}>")
                continue
            attributes = "".join(f" {k}={quoteattr(v)}" for k, v in e.items())
            lines.append(" " * depth + f"<{e.tag}{attributes}{'' if len(e) else '/'}>")
            if len(e):
                todo.append((e, depth, True))
                todo += [(child, depth + 1, False) for child in reversed(e)]
        return "\n".join(lines) + "\n", starts


def parse(data: bytes, where: str) -> Document:
    """Parse a file's bytes.

    Raises:
      Damaged: not well-formed.
      InputError: too large, too deep, too many elements, an entity declaration, or a number that is not finite.
    """
    if len(data) > LARGEST:
        raise InputError(f"{len(data)} bytes of XML", where=where, allowed=f"up to {LARGEST}")
    parser = expat.ParserCreate()
    stack: list[Element] = []
    document = Document(Element("none"), where)

    def start(tag: str, attributes: dict[str, str]) -> None:
        e = Element(tag, attributes)
        parent = stack[-1] if stack else None
        document._place[e] = (where, parser.CurrentLineNumber, parent)
        if parent is None:
            document.root = e
        else:
            parent.append(e)
        stack.append(e)
        if len(stack) > DEEPEST:
            raise InputError("elements nest too deeply", where=document.at(e)[:300], allowed=f"{DEEPEST} levels")
        if len(document._place) > MOST:
            raise InputError(f"more than {MOST} elements", where=where, allowed=f"{MOST} per model")
        for key, value in attributes.items():
            if "\0" in value:
                raise InputError("a zero byte in a text", where=document.at(e, key))
            if key not in _TEXTS and not is_finite(value):
                raise InputError(f"{key}={value[:60]!r} is not finite", where=document.at(e, key), allowed="numbers")

    def refuse_entity(name: str, *_: object) -> None:
        raise InputError(f"declares the entity {name!r}", where=f"{where}:{parser.CurrentLineNumber}", allowed="none")

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _tag: stack.pop()
    parser.CommentHandler = document.comments.append
    parser.EntityDeclHandler = refuse_entity
    try:
        parser.Parse(data, True)
    except expat.ExpatError as err:
        reason = expat.ErrorString(err.code)
        inside = f" inside {document.at(stack[-1]).split(' ', 1)[1]}" if stack else ""
        raise Damaged(f"XML is not well-formed: {reason}{inside}", where=f"{where}:{err.lineno}") from err
    except (ValueError, LookupError) as err:  # unknown or impossible encodings
        raise Damaged(f"XML cannot be decoded: {err}", where=where) from err
    return document


def root_tag(path: Path) -> str:
    """Tag of the root element, from the first 64 kB; "" when there is none."""
    found: list[str] = []
    parser = expat.ParserCreate()
    parser.StartElementHandler = lambda tag, _attributes: found.append(tag)
    with path.open("rb") as f:
        head = f.read(1 << 16)
    with contextlib.suppress(expat.ExpatError, ValueError, LookupError):
        parser.Parse(head, False)
    return found[0] if found else ""


def is_finite(value: str) -> bool:
    """False when a text that holds numbers holds NaN, or one beyond what a double holds."""
    for word in value.split():
        low = word.lower()
        if low.startswith(("nan", "+nan", "-nan")) and len(low) <= 5:
            return False
        if low[-1:].isdigit() and ("e" in low or len(low) > 300):
            try:
                if math.isinf(float(word)):
                    return False
            except ValueError:
                continue
    return True


def walk(root: Element) -> Iterator[Element]:
    """All elements in document order."""
    return root.iter()
