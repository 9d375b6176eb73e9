"""XMP, the XML that photo managers keep beside pictures: its description read and replaced. Needs the extra [xmp].

lxml, because Python's own XML forgets prefixes, comments and the `<?xpacket?>` around it all: what another program
has written stays as it is.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Any

from smolvlm_edge.errors import EngineError, RequestError

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
DC = "http://purl.org/dc/elements/1.1/"
LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
NAMES = {"rdf": RDF, "dc": DC}
DEFAULT = "x-default"
EMPTY = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="{RDF}">
  <rdf:Description rdf:about="" xmlns:dc="{DC}" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmp:CreatorTool="smol-edge {{version}}"/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""


def read_description(path: Path) -> str | None:
    """The description in the default language, or in the only one; None if there is none.

    Raises:
        RequestError: It is no XMP, or one that cannot be kept as it is.
        EngineError: lxml is not installed.
    """
    tree = _parsed(path, _content(path))
    described = tree.find(".//rdf:Description/dc:description", NAMES)
    if described is None:
        attributes = (each.get(f"{{{DC}}}description") for each in tree.iterfind(".//rdf:Description", NAMES))
        return next((text.strip() for text in attributes if text), None)
    items = described.findall("rdf:Alt/rdf:li", NAMES)
    default = next((item for item in items if item.get(LANGUAGE) == DEFAULT), None)
    found = default if default is not None else next(iter(items), described)
    return (found.text or "").strip() or None


def with_description(path: Path, text: str) -> bytes:
    """The file with another description in the default language, or a new one; all else in it stays as it is.

    Raises:
        RequestError: It is no XMP, or one that cannot be kept as it is.
        EngineError: lxml is not installed.
    """
    is_new = not path.exists()
    data = EMPTY.format(version=version("smol-edge")).encode() if is_new else _content(path)
    tree = _parsed(path, data)
    etree = import_lxml()
    found = tree.find(".//rdf:Description/dc:description", NAMES)
    described = found if found is not None else _added(tree)
    languages = described.find("rdf:Alt", NAMES)
    if languages is None:
        if len(described):
            raise RequestError(f"{path} has a description in a form that is not known: remove it there first")
        described.text = None
        languages = etree.SubElement(described, f"{{{RDF}}}Alt")
    item = next((each for each in languages if each.get(LANGUAGE) == DEFAULT), None)
    if item is None:
        item = etree.Element(f"{{{RDF}}}li", {LANGUAGE: DEFAULT})
        languages.insert(0, item)
    for inner in [*item]:
        item.remove(inner)
    item.text = text
    encoding = tree.docinfo.encoding or "UTF-8"
    return etree.tostring(tree, encoding=encoding, xml_declaration=data.lstrip(b"\xef\xbb\xbf").startswith(b"<?xml "))


def _added(tree: Any) -> Any:
    """An empty description in the first place for one, instead of any that is an attribute and has no languages."""
    etree = import_lxml()
    places = tree.findall(".//rdf:RDF/rdf:Description", NAMES)
    for each in places:
        each.attrib.pop(f"{{{DC}}}description", None)
    return etree.SubElement(places[0], f"{{{DC}}}description", nsmap={"dc": DC})


def _parsed(path: Path, data: bytes) -> Any:
    etree = import_lxml()
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    try:
        tree = etree.fromstring(data, parser).getroottree()
    except etree.XMLSyntaxError as error:
        raise RequestError(f"{path} is damaged, and so is left alone: {str(error)[:200]}") from error
    if tree.docinfo.doctype or tree.find(".//rdf:RDF/rdf:Description", NAMES) is None:
        raise RequestError(f"{path} is no XMP as photo managers write it, and so is left alone: move it away")
    return tree


def import_lxml() -> Any:
    """Lxml's etree.

    Raises:
        EngineError: It is not installed.
    """
    try:
        from lxml import etree  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise EngineError.of_missing("XMP needs", "lxml", "xmp") from error
    return etree


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror or error}: leave --sidecars out, or mend it") from error
