"""`smol-edge describe` on data sets: Parquet and WebDataset in and out, and descriptions beside pictures."""

import io
import json
import os
import re
import tarfile
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import assert_fails, smol_edge
from PIL import Image

from smolvlm_edge import ImageError, RequestError, SmolVLM
from smolvlm_edge.captions.files import find_pictures, picture_suffixes
from smolvlm_edge.captions.parquet import Table
from smolvlm_edge.captions.places import Place
from smolvlm_edge.captions.sidecars import Sidecars
from smolvlm_edge.captions.sources import Files, find_sources
from smolvlm_edge.captions.webdataset import Shard

PROMPT = "Describe this image."
KILLED_AT_THE_THIRD = """
import os, signal
from smolvlm_edge.records import Records
add, added = Records.add, []
def killed(self, line):
    added.append(line)
    if len(added) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    add(self, line)
Records.add = killed
"""
posix_only = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")


@pytest.fixture(scope="module")
def bundle(tiny_bundle) -> Path:
    return tiny_bundle("tiny-idefics3", "fp32")


def picture(seed: int, form: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(file := io.BytesIO(), form)
    return file.getvalue()


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def read_tar(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def describe(bundle: Path, *arguments: str | Path, out: Path, patch: str = "", cwd: Path | None = None):
    command = ("describe", *arguments, "--out", out, "--model", bundle, "--max-tokens", "3", "--detail", "low")
    return smol_edge(*command, patch=patch, cwd=cwd or out.parent)


def lines_of(record: Path) -> list[dict]:
    return [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()[1:]]


def answers(bundle: Path, pictures: list[bytes]) -> list[str]:
    with SmolVLM.load(bundle) as model:
        return [model.generate(each, PROMPT, max_tokens=3, detail="low").text for each in pictures]


# -- whole runs -------------------------------------------------------------------------------------


@posix_only
def test_a_hub_data_set_becomes_parquet_at_the_end_and_a_kill_loses_nothing(bundle: Path, tmp_path: Path) -> None:
    pictures = [picture(seed) for seed in range(4)]
    rows = [{"bytes": each, "path": None} for each in pictures]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "named.jpg").write_bytes(picture(4, "JPEG"))
    rows += [{"bytes": None, "path": "named.jpg"}, {"bytes": b"no picture", "path": "x.png"}, None]
    urls = [f"https://example.org/{number}" for number in range(len(rows))]
    table = pa.table({"url": urls, "image": rows, "label": [1] * len(rows)})
    pq.write_table(table, tmp_path / "data" / "train.parquet", row_group_size=3)

    out = tmp_path / "captions.parquet"
    arguments = ("data/train.parquet", "--id", "url")
    assert describe(bundle, *arguments, out=out, patch=KILLED_AT_THE_THIRD).returncode == -9
    assert len(lines_of(tmp_path / "captions.jsonl")) == 2
    assert not out.exists(), "it appears whole"
    result = describe(bundle, *arguments, out=out)
    assert result.returncode == 6, result.stderr
    assert result.stdout == f"3 described, 2 failed, 2 before: {out}\n"
    assert "failed: data/train.parquet, https://example.org/5" in result.stderr

    found = pq.read_table(out).to_pylist()
    assert [row["id"] for row in found] == urls
    assert {row["file"] for row in found} == {"data/train.parquet"}
    assert [row["text"] for row in found] == [*answers(bundle, [*pictures, picture(4, "JPEG")]), None, None]
    assert [row["error"] is None for row in found] == [True] * 5 + [False] * 2
    records = {line["id"]: line for line in lines_of(tmp_path / "captions.jsonl")}
    assert all(records[row["id"]].get("text") == row["text"] for row in found)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["captions.jsonl", "captions.parquet", "data"]
    assert describe(bundle, *arguments, out=out).stdout == f"0 described, 2 failed, 5 before: {out}\n"


@posix_only
def test_shards_keep_their_keys_and_files_and_gain_the_answer(bundle: Path, tmp_path: Path) -> None:
    one, two, three = (picture(seed, form) for seed, form in enumerate(("PNG", "JPEG", "WEBP")))
    first = {
        "a/1.png": one,
        "a/1.txt": b"as it was",
        "a/1.json": b'{"width": 60}',
        "a/2.jpg": two,
        "notes.txt": b"none",
    }
    (tmp_path / "in").mkdir()
    write_tar(tmp_path / "in" / "0.tar", first)
    write_tar(tmp_path / "in" / "1.tar", {"1.v1.cls": b"7", "1.webp": three, "2.jpg": b"no picture"})
    out = tmp_path / "captions-000000.tar"
    assert describe(bundle, "in", out=out, patch=KILLED_AT_THE_THIRD).returncode == -9
    assert not out.exists()
    result = describe(bundle, "in", out=out)
    assert (result.returncode, result.stdout) == (6, f"1 described, 1 failed, 2 before: {out}\n"), result.stderr

    said = [text.encode() for text in answers(bundle, [one, two, three])]
    shard = read_tar(out)
    names = ["a/1.png", "a/1.original.txt", "a/1.original.json", "a/1.txt", "a/1.json"]
    assert list(shard) == [*names, "a/2.jpg", "a/2.txt", "a/2.json"]
    assert {name: shard[name] for name in first if name.endswith(("g",))} == {"a/1.png": one, "a/2.jpg": two}
    assert (shard["a/1.original.txt"], shard["a/1.original.json"]) == (b"as it was", b'{"width": 60}')
    assert (shard["a/1.txt"], shard["a/2.txt"]) == (said[0], said[1])
    told = json.loads(shard["a/2.json"])
    assert (told["file"], told["id"], told["text"].encode()) == ("in/0.tar", "a/2", said[1])
    other = read_tar(tmp_path / "captions-000001.tar")
    assert list(other) == ["1.v1.cls", "1.webp", "1.txt", "1.json", "2.jpg", "2.json"]
    assert other["1.txt"] == said[2]
    assert "error" in json.loads(other["2.json"])


def test_files_become_shards_and_texts_beside_them(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for seed, name in enumerate(("1.png", "2.jpg")):
        (tmp_path / "photos" / name).write_bytes(picture(seed, "PNG" if seed == 0 else "JPEG"))
    out = tmp_path / "set-%06d.tar"
    result = describe(bundle, "photos", "--sidecars", "txt", out=out)
    assert result.returncode == 0, result.stderr
    shard = read_tar(tmp_path / "set-000000.tar")
    first, second = "000000000", "000000001"
    names = [f"{first}.png", f"{first}.txt", f"{first}.json", f"{second}.jpg", f"{second}.txt", f"{second}.json"]
    assert list(shard) == names
    pictures = [shard[f"{first}.png"], shard[f"{second}.jpg"]]
    said = [re.sub(r"[\x00-\x1f\x7f-\x9f]", "\ufffd", text).strip() for text in answers(bundle, pictures)]
    for name, text in zip(("1", "2"), said, strict=True):
        assert (tmp_path / "photos" / f"{name}.txt").read_text(encoding="utf-8") == f"{text}\n"

    (tmp_path / "photos" / "1.txt").unlink()  # as if killed before it was written
    (tmp_path / "photos" / "2.txt").write_text("a person's own words\n", encoding="utf-8")
    refused = describe(bundle, "photos", "--sidecars", "txt", out=out)
    assert_fails(refused, 2, "2.txt says something else already", "--force")
    assert (tmp_path / "photos" / "2.txt").read_text(encoding="utf-8") == "a person's own words\n"
    assert describe(bundle, "photos", "--sidecars", "txt", "--force", out=out).returncode == 0
    assert [(tmp_path / "photos" / f"{name}.txt").read_text("utf-8").strip() for name in "12"] == said


def test_what_no_run_of_this_command_made_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(picture(1))
    pq.write_table(pa.table({"image": [picture(1)]}), tmp_path / "set.parquet")
    write_tar(tmp_path / "set-000003.tar", {"1.png": picture(1)})
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for arguments, words in [
        (("1.png", "--out", "set.parquet"), ["set.parquet exists", "--out"]),
        (("1.png", "--out", "set-000000.tar"), ["set-000003.tar exists", "--out"]),
        (("1.png", "--out", "c.jsonl", "--column", "image"), ["--column"]),
        (("set.parquet", "--out", "c.jsonl", "--sidecars", "txt"), ["--sidecars"]),
        (("1.png", "--out", "c.jsonl", "--force"), ["--force"]),
    ]:
        assert_fails(smol_edge("describe", *arguments, "--model", tmp_path / "none", cwd=tmp_path), 2, *words)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


# -- Parquet ----------------------------------------------------------------------------------------


def table(path: Path, column: str | None = None, id_column: str | None = None, **columns) -> Table:
    pq.write_table(pa.table(columns), path, row_group_size=2)
    return Table(path, path.name, column, id_column)


def test_the_column_of_pictures_is_found_by_its_type(tmp_path: Path) -> None:
    path, file = tmp_path / "t.parquet", picture(1)
    for columns, column, expected in [
        ({"label": [3], "jpg": [file]}, None, file),
        ({"mask": [b"m"], "image": [file]}, None, file),
        ({"mask": [b"m"], "image": [file]}, "mask", b"m"),
        ({"text": ["none"], "image": [{"bytes": file, "path": "x"}]}, None, file),
        ({"text": ["none"], "photo": pa.array([file], pa.large_binary())}, None, file),
        ({"text": ["none"], "image_path": ["a/1.png"]}, None, tmp_path / "a" / "1.png"),
        ({"text": ["a/2.png"]}, "text", tmp_path / "a" / "2.png"),
    ]:
        source = table(path, column, **columns)
        assert list(source.read(source.places)) == [(Place("t.parquet", 0), expected)], columns


@pytest.mark.parametrize(
    ("options", "columns", "words"),
    [
        ({}, {"a": [b"1"], "b": [b"2"]}, "several columns of bytes: a, b; say which one with --column"),
        ({}, {"a": [1], "b": ["x"]}, "no column of pictures, but a, b"),
        ({"column": "c"}, {"a": [b"1"]}, "no column 'c', but a"),
        ({"column": "b"}, {"a": [b"1"], "b": [1]}, "neither bytes nor paths"),
        ({"id_column": "c"}, {"a": [b"1"]}, "no column 'c', but a: say another --id"),
        ({"id_column": "k"}, {"a": [b"1", b"2"], "k": [1, 1]}, "same value in several rows"),
        ({"id_column": "k"}, {"a": [b"1", b"2"], "k": ["x", None]}, "not every row"),
    ],
)
def test_columns_that_are_not_clear_are_refused(tmp_path: Path, options: dict, columns: dict, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        table(tmp_path / "t.parquet", **options, **columns)


def test_rows_that_are_done_are_not_read_again(tmp_path: Path) -> None:
    source = table(
        tmp_path / "t.parquet", "image", "key", image=[bytes([n]) * 9000 for n in range(6)], key=list("abcdef")
    )
    data = bytearray((tmp_path / "t.parquet").read_bytes())
    start = pq.ParquetFile(tmp_path / "t.parquet").metadata.row_group(0).column(0).data_page_offset
    data[start : start + 40] = b"\xff" * 40  # the first group can no longer be read
    (tmp_path / "t.parquet").write_bytes(data)
    wanted = {Place("t.parquet", "d"), Place("t.parquet", "e")}
    assert [place.id for place, _ in source.read(wanted)] == ["d", "e"]
    with pytest.raises(ImageError, match="damaged"):
        list(source.read({Place("t.parquet", "a")}))


def test_a_file_that_is_no_parquet_is_told(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 but not really PAR1")
    with pytest.raises(ImageError, match=r"t\.parquet is no Parquet file, or a damaged one"):
        find_sources([str(tmp_path / "t.parquet")], tmp_path, None, None, lambda _: False)


# -- WebDataset -------------------------------------------------------------------------------------


def shard(path: Path, column: str | None = None) -> Shard:
    return Shard(path, path.name, column, picture_suffixes())


@pytest.mark.parametrize(("name", "mode"), [("s.tar", "w"), ("s.tar.gz", "w:gz"), ("s.tgz", "w:gz")])
def test_a_shard_gives_a_picture_a_sample(tmp_path: Path, name: str, mode: str) -> None:
    members = {"__meta__.png": b"0", "a.b/1.seg.png": b"1", "a.b/1.JPG": b"2", "a.b/2.txt": b"3", "a.b/3.png": b"4"}
    path = write_tar(tmp_path / name, members, mode)
    (source,) = find_sources([str(path)], tmp_path, None, None, lambda _: False)
    assert list(source.read(source.places)) == [(Place(name, "a.b/1"), b"2"), (Place(name, "a.b/3"), b"4")]
    masks = shard(path, "seg.png")
    assert list(masks.read(masks.places)) == [(Place(name, "a.b/1"), b"1")]


@pytest.mark.parametrize("name", ["s.tar", "s.tar.gz"])
def test_a_damaged_shard_is_found_before_anything_is_described(tmp_path: Path, name: str) -> None:
    members = {f"{number}.png": picture(number) for number in range(3)}
    path = write_tar(tmp_path / name, members, "w:gz" if name.endswith("gz") else "w")
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        second = tar.getmembers()[1]
    cuts = [len(whole) // 2]
    if name == "s.tar":
        cuts += [second.offset_data + 100, second.offset + 100]
        header = bytearray(whole)
        header[second.offset : second.offset + 512] = b"x" * 512
        path.write_bytes(header)
        with pytest.raises(ImageError, match="damaged"):
            shard(path)
    for cut in cuts:
        path.write_bytes(whole[:cut])
        with pytest.raises(ImageError, match="damaged"):
            shard(path)


def test_a_key_in_two_places_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", {"1.png": b"1", "2.png": b"2", "1.txt": b"3"})
    with pytest.raises(RequestError, match="the key 1 in two places"):
        shard(path)


def test_data_sets_in_a_folder_count_where_there_is_no_picture(tmp_path: Path) -> None:
    for name in ("10.parquet", "2.parquet", "x.tar", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in find_pictures([str(tmp_path)])] == ["2.parquet", "10.parquet", "x.tar"]
    (tmp_path / "1.png").write_bytes(b"")
    assert [path.name for path in find_pictures([str(tmp_path)])] == ["1.png"]
    assert [path.name for path in find_pictures([str(tmp_path / "*.tar"), str(tmp_path)])] == ["x.tar", "1.png"]


# -- beside pictures --------------------------------------------------------------------------------

ANOTHER = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Another 1.0">
 <!-- by hand -->
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:secret="urn:another" xmp:Rating="4" xmp:CreatorTool="Another" secret:curve="0,0 &amp; 1,1">
   <dc:subject><rdf:Bag><rdf:li>holiday</rdf:li></rdf:Bag></dc:subject>{description}
   <secret:mask rdf:parseType="Resource"><secret:dabs>1 2 3</secret:dabs></secret:mask>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""
ALTERNATIVES = (
    '<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{text}</rdf:li><rdf:li xml:lang="de">Ein Hund</rdf:li>'
    "</rdf:Alt></dc:description>"
)
NAMES = {
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "dc": "http://purl.org/dc/elements/1.1/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
}


def write_beside(folder: Path, text: str, force: bool = False, there: str | None = None) -> str:
    """What photo.xmp is after it was to say a text."""
    (folder / "photo.jpg").write_bytes(b"")
    if there is not None:
        (folder / "photo.xmp").write_text(there, encoding="utf-8", newline="")
    beside = Sidecars("xmp", [Files([folder / "photo.jpg"], folder)], force=force)
    beside.catch_up({})
    beside.write(Place("photo.jpg"), text)
    assert sorted(path.name for path in folder.iterdir()) == ["photo.jpg", "photo.xmp"]
    return (folder / "photo.xmp").read_text(encoding="utf-8")


def default_description(text: str) -> list[str | None]:
    path = "rdf:RDF/rdf:Description/dc:description/rdf:Alt/rdf:li"
    language = "{http://www.w3.org/XML/1998/namespace}lang"
    return [each.text for each in ET.fromstring(text).findall(path, NAMES) if each.get(language) == "x-default"]


def canonical(text: str) -> str:
    """Equal for files that are the same to every reader of XML, prefixes and comments included."""
    return ET.canonicalize(text, with_comments=True)


def test_a_new_xmp_says_what_and_by_whom(tmp_path: Path) -> None:
    text = write_beside(tmp_path, "A dog & a <cat>\x0b 犬 👩‍🚀")
    assert default_description(text) == ["A dog & a <cat>\ufffd 犬 👩‍🚀"]
    described = ET.fromstring(text).find("rdf:RDF/rdf:Description", NAMES)
    assert described.get(f"{{{NAMES['xmp']}}}CreatorTool").startswith("smol-edge ")
    assert text.startswith("<?xpacket begin=")
    assert text.rstrip().endswith('<?xpacket end="w"?>')


def test_of_anothers_xmp_the_description_alone_is_new(tmp_path: Path) -> None:
    other = ANOTHER.format(description="\n   " + ALTERNATIVES.format(text="A cat"))
    with pytest.raises(RequestError, match="says something else already"):
        write_beside(tmp_path, "A dog", there=other)
    assert (tmp_path / "photo.xmp").read_text(encoding="utf-8") == other
    after = write_beside(tmp_path, "A dog", force=True)
    assert canonical(after) == canonical(other.replace("A cat", "A dog"))
    for prefix in (
        "<!-- by hand -->",
        'secret:curve="0,0 &amp; 1,1"',
        '<?xpacket begin="\ufeff"',
        '<?xpacket end="w"?>',
    ):
        assert prefix in after
    without = ANOTHER.format(description="")
    after = write_beside(tmp_path, "A dog", there=without)
    assert default_description(after) == ["A dog"]
    begin, _, rest = after.partition("<dc:description")
    assert canonical(begin + rest.partition("</dc:description>")[2]) == canonical(without)


@pytest.mark.parametrize(
    ("there", "words"),
    [
        ("<x:xmpmeta", "damaged"),
        ("<html/>", "no XMP"),
        (
            '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + ANOTHER.format(description="")[60:],
            "no XMP|damaged",
        ),
        (ANOTHER.format(description="<dc:description><rdf:Seq/></dc:description>"), "form that is not known"),
    ],
)
def test_an_xmp_that_cannot_be_kept_is_left_alone(tmp_path: Path, there: str, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        write_beside(tmp_path, "A dog", there=there)
    assert (tmp_path / "photo.xmp").read_text(encoding="utf-8") == there


def test_two_pictures_do_not_share_a_sidecar(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"a\.jpg and .*a\.png would share"):
        Sidecars("txt", [Files([tmp_path / "a.jpg", tmp_path / "a.png"], tmp_path)], force=False)
