"""Reading XML that somebody else wrote. No I/O, and no trust: the answer may come from anyone on the way.

What is refused, before anything is built from it: any document type declaration (and with it every entity but XML's own
five), nesting deeper than 16, more than 1 MiB, more than 1,000 elements (a poll's sixteen messages have some two
hundred) or 32 attributes of one, another encoding than UTF-8, a field given twice.

Names are compared as they are written, without looking at namespaces: the broker spells its own in two ways, or leaves
it out, and it proves nothing. A root with a prefix is none that a broker is known to send, and so it is unreadable.

The whole document goes to expat in one call: feeding a large token piece by piece costs quadratic time in expat < 2.6.
A short document of fields alone, in plain ASCII, is read by a pattern, to the same end: it is what a publish is
answered with, and expat takes twice as long.
"""

import re
from dataclasses import dataclass, field
from xml.parsers import expat

__all__ = ["MAX_DEPTH", "MAX_DOCUMENT_BYTES", "MAX_ELEMENTS", "Document", "UnreadableXmlError", "read_document"]

MAX_DOCUMENT_BYTES = 1_048_576
MAX_DEPTH = 16
MAX_ELEMENTS = 1_000
MAX_ATTRIBUTES = 32

_ROOT, _CHILD, _GRANDCHILD = 1, 2, 3

# Looked for beforehand: expat has made an object of each attribute before it calls anybody. Without backtracking.
_MANY_ATTRIBUTES = re.compile(
    rb"""<[^\s<>!?/]++(?:\s++[^\s<>=]++\s*+=\s*+(?:"[^"<]*+"|'[^'<]*+')){%d}""" % (MAX_ATTRIBUTES + 1)
)
# Nothing here can be read in two ways: text without & < > and control characters, elements without attributes.
_SPACE, _NAME, _TEXT = r"[ \t\r\n]*+", r"[A-Za-z][A-Za-z0-9]*+", r"[ !-%'-;=?-~]*+"
_PLAIN = re.compile(
    rf"""(?:<\?xml[ ]version="1\.0"(?:[ ]encoding="(?:utf-8|UTF-8)")?[ ]?\?>{_SPACE})?"""
    rf"""<({_NAME})(?:[ ]xmlns="[A-Za-z0-9:/._-]*+")?>{_SPACE}"""
    rf"""((?:<({_NAME})>{_TEXT}</\3>{_SPACE}){{1,16}}+)</\1>{_SPACE}"""
)
_PLAIN_FIELD = re.compile(rf"<({_NAME})>({_TEXT})<")
_MAX_PLAIN_BYTES = 4_096
_REFERENCE = re.compile(rb"&#(?:x([0-9A-Fa-f]{1,8})|([0-9]{1,10}));")
_MAX_MENDED = 10_000
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}".encode()
_XML_CHARACTERS = ((0x9, 0xA), (0xD, 0xD), (0x20, 0xD7FF), (0xE000, 0xFFFD), (0x10000, 0x10FFFF))


class UnreadableXmlError(ValueError):
    """The text is not the XML that was promised; the message says why, in one line, quoting nothing but names."""


@dataclass(slots=True)
class Document:
    """The two levels of text that every answer of the HTTP API consists of.

    Attributes:
        root: name of the root element.
        fields: text of the root's children that have no children of their own, by name.
        records: the root's children that do have children: name, and their children's text by name.
    """

    root: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    records: list[tuple[str, dict[str, str]]] = field(default_factory=list)


def read_document(xml: bytes) -> Document:
    """Read one answer.

    A reference to a character that XML forbids (``&#1;``) is read as U+FFFD: the broker has been seen to echo a
    message's characters so, and one such message must not hide the others in the answer.

    Raises:
        UnreadableXmlError: not well-formed, or refused by a rule of this module.
    """
    if len(xml) > MAX_DOCUMENT_BYTES:
        raise UnreadableXmlError(f"longer than {MAX_DOCUMENT_BYTES} bytes")
    # Expat takes UTF-16 for what it is, whatever encoding it is told; there is no markup in UTF-16 without a NUL.
    if b"\0" in xml:
        raise UnreadableXmlError("not in UTF-8")
    plain = _plain(xml)
    if plain is not None:
        return plain
    if _MANY_ATTRIBUTES.search(xml):
        raise UnreadableXmlError(f"an element with more than {MAX_ATTRIBUTES} attributes")
    try:
        return _parsed(xml)
    except expat.ExpatError as error:
        if error.code != expat.errors.codes[expat.errors.XML_ERROR_BAD_CHAR_REF]:
            raise UnreadableXmlError(f"not well-formed: {error}") from None
    try:
        return _parsed(_REFERENCE.sub(_mended, xml, count=_MAX_MENDED))
    except expat.ExpatError as error:
        raise UnreadableXmlError(f"not well-formed: {error}") from None


def _plain(xml: bytes) -> Document | None:
    """The document where it is a plain one, as expat would have it read."""
    if len(xml) > _MAX_PLAIN_BYTES or not xml.isascii():
        return None
    found = _PLAIN.fullmatch(xml.decode("ascii"))
    if found is None:
        return None
    pairs = _PLAIN_FIELD.findall(found[2])
    fields = dict(pairs)
    # A field given twice is for expat's reader to refuse.
    return Document(found[1], fields) if len(fields) == len(pairs) else None


def _parsed(xml: bytes) -> Document:
    # The encoding given here outranks the one that the document declares.
    parser = expat.ParserCreate("utf-8")
    reader = _Reader()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = _refuse_doctype
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text.append
    parser.Parse(xml, True)
    return reader.document


def _refuse_doctype(*_declaration: object) -> None:
    raise UnreadableXmlError("a document type declaration")


def _mended(reference: re.Match[bytes]) -> bytes:
    hexadecimal, decimal = reference.groups()
    code = int(hexadecimal, 16) if hexadecimal else int(decimal)
    legal = any(first <= code <= last for first, last in _XML_CHARACTERS)
    return reference[0] if legal else _REPLACEMENT


class _Reader:
    """Expat's handlers: they keep the text of leaves at the second and third level and drop all else."""

    __slots__ = ("depth", "document", "elements", "is_leaf", "record", "text")

    def __init__(self) -> None:
        self.document = Document()
        self.text: list[str] = []
        self.record: dict[str, str] = {}
        self.depth = 0
        self.elements = 0
        self.is_leaf = False

    def start(self, name: str, _attributes: object) -> None:
        self.elements += 1
        if self.elements > MAX_ELEMENTS:
            raise UnreadableXmlError(f"more than {MAX_ELEMENTS} elements")
        self.depth += 1
        self.is_leaf = True
        self.text.clear()
        if self.depth == _ROOT:
            self.document.root = name
        elif self.depth == _CHILD:
            self.record = {}
        elif self.depth > MAX_DEPTH:
            raise UnreadableXmlError(f"elements nested deeper than {MAX_DEPTH}")

    def end(self, name: str) -> None:
        if self.is_leaf:
            if self.depth == _CHILD:
                _put(self.document.fields, name, self.text)
            elif self.depth == _GRANDCHILD:
                _put(self.record, name, self.text)
        elif self.depth == _CHILD:
            self.document.records.append((name, self.record))
        self.is_leaf = False
        self.depth -= 1


def _put(fields: dict[str, str], name: str, text: list[str]) -> None:
    if name in fields:
        raise UnreadableXmlError("an element given twice")
    fields[name] = "".join(text)
