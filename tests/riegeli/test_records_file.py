# SPDX-License-Identifier: Apache-2.0
"""Records of real files; blocks and chunks at their edges; files that end anywhere."""

from __future__ import annotations

import gc
import hashlib
import os

import damage
import numpy as np
import pytest
import riegeli_samples as samples
from hypothesis import given
from hypothesis import strategies as st

from envlogger import errors, varints
from envlogger.riegeli import (
    chunk_structure,
    chunk_writer,
    chunks,
    record_templates,
    records_file,
    transposed_chunk,
)
from envlogger.riegeli.buffers import Buffers
from envlogger.riegeli.highway_hash import highway_hash

_U = chunks.USABLE


def _read(path, **options):
    """Returns the positions and records of a file, and whether it ends with a whole chunk."""
    found = []
    with records_file.RecordsFile(path, verify=True, **options) as file:
        try:
            found.extend(file.read_all())
        except chunks.TruncatedError:
            return found, False
        return found, True


@pytest.fixture
def write(tmp_path):
    """Writes chunks, each a list of records; returns the file and where they begin."""

    def write(*records, pad=False):
        path = tmp_path / "file.riegeli"
        with path.open("wb") as file:
            writer = chunk_writer.ChunkWriter(file)
            begins = []
            for chunk in records:
                begins.append(writer.write_records(chunk))
                if pad:
                    writer.pad()
        return path, begins

    return write


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (bytes.fromhex("00" * 8 + "4000000000000000"), 0x3F4A880DD170AF83),
        (bytes.fromhex("0000000000000000e19f13c0e9b1c37273" + "00" * 15), 0xA9E187923CC2BA91),
        (b"", 0x72C3B1E9C0139FE1),
    ],
)
def test_hashes_of_what_every_file_begins_with(data, expected):
    assert highway_hash(data) == expected


def test_a_file_begins_with_64_bytes_that_are_always_the_same(write):
    path, _ = write()
    assert path.read_bytes() == next(iter(samples.with_records())).read_bytes()[:64]


@pytest.mark.parametrize("path", samples.with_records(), ids=lambda path: path.stem)
def test_records_of_real_files(path):
    expected = samples.records_of(path)
    found, is_whole = _read(path)
    assert [record for _, record in found[: len(expected)]] == expected
    assert is_whole == (path.stem != "killed_arrayrecord_prefix")


@pytest.mark.parametrize("path", samples.with_records(), ids=lambda path: path.stem)
def test_records_that_are_not_alike_need_no_templates(path, monkeypatch):
    monkeypatch.setattr(chunk_structure.Structure, "assemble", lambda *arguments: None)
    expected = samples.records_of(path)
    assert [record for _, record in _read(path)[0][: len(expected)]] == expected


@pytest.mark.parametrize("few", [0, 1 << 30])
@pytest.mark.parametrize("path", samples.with_records(), ids=lambda path: path.stem)
def test_few_records_are_made_as_many_are(path, few, monkeypatch):
    monkeypatch.setattr(chunk_structure, "_FEW_RECORDS", few)
    monkeypatch.setattr(chunk_structure, "_are_too_many", lambda new, num_records: False)
    expected = samples.records_of(path)
    assert [record for _, record in _read(path)[0][: len(expected)]] == expected


def test_templates_are_used_where_records_are_alike():
    used = []
    for path in samples.log("catch_default").glob("*/steps.riegeli"):
        with records_file.RecordsFile(path) as file:
            used += [file.read(chunk) for chunk in file.scan() if chunk.num_records]
    # Then records do not lie in order: those that are alike are side by side.
    assert used
    assert all((np.diff(records.begins) < 0).any() for records in used)


def _refuse(*arguments):
    raise AssertionError("made once more")


def test_what_chunks_have_in_common_is_found_out_once(monkeypatch):
    chunk_structure._read_structure.cache_clear()
    path = next(samples.log("catch_default").glob("*/steps.riegeli"))
    expected = _read(path)
    monkeypatch.setattr(chunk_structure.Structure, "__init__", _refuse)
    monkeypatch.setattr(record_templates.Maker, "make", _refuse)
    assert _read(path) == expected


def test_templates_are_learnt_where_chunks_have_few_records(monkeypatch):
    chunk_structure._read_structure.cache_clear()
    monkeypatch.setattr(chunk_structure, "_LEAST_RECORDS", 1 << 30)
    path = next(samples.log("images").glob("*/steps.riegeli"))
    with records_file.RecordsFile(path) as file:
        chunk = [chunk for chunk in file.scan() if chunk.num_records][1]
        expected = list(file.read(chunk))
        for _ in range(40):
            assert list(file.read(chunk)) == expected
        monkeypatch.setattr(transposed_chunk, "_Assembly", _refuse)
        assert list(file.read(chunk)) == expected


@pytest.mark.parametrize("path", samples.with_records(), ids=lambda path: path.stem)
def test_what_is_kept_of_chunks_may_be_nothing(path, monkeypatch):
    chunk_structure._read_structure.cache_clear()
    monkeypatch.setattr(chunk_structure, "_KEPT_BYTES", 1)
    expected = samples.records_of(path)
    for _ in range(2):
        assert [record for _, record in _read(path)[0][: len(expected)]] == expected


def test_what_is_kept_of_chunks_has_a_bound(monkeypatch):
    chunk_structure._read_structure.cache_clear()
    monkeypatch.setattr(chunk_structure, "_KEPT_BYTES", 5000)
    for path in samples.with_records():
        _read(path)
    kept = [found for found in gc.get_objects() if isinstance(found, chunk_structure.Structure)]
    assert any(structure._plans or structure._paths for structure in kept)
    for structure in kept:
        plans, paths = structure._plans, structure._paths
        size = sum(len(key) + plan.nbytes for key, plan in plans.items()) + 4 * sum(map(len, paths))
        assert size <= 5000 or len(plans) + len(paths) == 1


@pytest.mark.parametrize("case", [*samples.CASES, *samples.KILLED, "images"])
def test_records_of_real_logs(case):
    # EnvLogger counts those of the index only; in these samples that is all of them.
    expected = samples.Expected(case).raw
    records = [
        record
        for path in sorted(samples.log(case).glob("*/steps.riegeli"))
        for _, record in _read(path)[0]
    ]
    short = [hashlib.sha256(record).hexdigest()[:16] for record in records]
    assert short == expected["raw_sha256_16"]


@pytest.mark.parametrize("path", samples.files(), ids=samples.name_of)
def test_every_record_is_found_by_its_position(path):
    found, _ = _read(path)
    backwards = records_file.RecordsFile(path)
    for position, record in reversed(found[:: len(found) // 8 + 1]):
        file = records_file.RecordsFile(path)
        chunk = file.locate(position)
        assert backwards.locate(position) == chunk
        assert file.read(chunk)[position - chunk.begin] == record
        file.close()
    with pytest.raises(chunks.TruncatedError):
        backwards.locate(backwards.size + chunks.BLOCK_SIZE)
    backwards.close()


@pytest.mark.parametrize(
    "sizes",
    [
        # What is left in the block behind the first chunk: nothing, less than a header, some.
        *([_U - 40 - 44 - left, 5] for left in (0, 1, 23, 24, 25, 39, 40, 41)),
        [3 * _U, 1, _U - 44, 2 * _U],
        [0, 0, 0],
    ],
    ids=str,
)
def test_chunks_at_the_edges_of_blocks(write, sizes):
    records = [[bytes([i + 1]) * size, b"x"] for i, size in enumerate(sizes)]
    path, begins = write(*records)
    found, is_whole = _read(path)
    assert is_whole
    assert found == [
        (begin + i, record)
        for begin, chunk in zip(begins, records, strict=True)
        for i, record in enumerate(chunk)
    ]
    with records_file.RecordsFile(path) as file:
        for position, _ in found:
            assert file.locate(position).begin in begins


def test_chunks_have_as_many_bytes_as_records(write):
    path, (first, second) = write([b""] * 100_000, [b"last"])
    assert second - first >= 100_000
    assert _read(path)[0][-1] == (second, b"last")


def test_padding_is_passed_over(write):
    path, begins = write([b"a"], [b"b" * (_U - 60)], [b"c"], pad=True)
    assert all(begin % chunks.BLOCK_SIZE == 0 for begin in begins[1:])
    assert [record[:1] for _, record in _read(path)[0]] == [b"a", b"b", b"c"]


def test_a_file_that_ends_anywhere_gives_its_whole_chunks(write):
    path, begins = write(*([bytes([i]) * 30_000] for i in range(6)))
    raw = path.read_bytes()
    ends = [*begins[1:], len(raw)]
    for size in {*range(0, len(raw), 1009), *(end + i for end in ends for i in (-1, 0, 1))}:
        if size > len(raw):
            continue
        path.write_bytes(raw[:size])
        found, is_whole = _read(path)
        assert len(found) == sum(end <= size for end in ends)
        assert is_whole == (size in {0, 64, *ends})


def test_the_next_chunk_is_found_behind_damage(write):
    path, begins = write(*([bytes([i]) * 30_000] for i in range(8)))
    damage.flip(path, begins[1] + 3)
    with records_file.RecordsFile(path) as file:
        with pytest.raises(errors.CorruptDatasetError, match=rf"{path}, offset {begins[1]}: "):
            list(file.scan())
        after = file.resume(begins[1])
        assert after in begins[2:4]
        assert [chunk.begin for chunk in file.scan(after)] == begins[begins.index(after) :]
        assert file.resume(file.size) == file.size
        # Block headers lead past it as well.
        assert file.locate(begins[7]).begin == begins[7]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"not a Riegeli file" * 10, "expected the block header of a Riegeli file"),
        (bytes(1000), "expected the block header of a Riegeli file"),
    ],
)
def test_other_files_are_refused(tmp_path, content, says):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(errors.CorruptDatasetError, match=f"{path}, offset 0: .*{says}"):
        records_file.RecordsFile(path)


@pytest.mark.parametrize(
    ("buckets", "sizes", "expected"),
    [
        ([], [], []),
        ([], [0, 0], [b"", b""]),
        ([b"abcd"], [1, 0, 3], [b"a", b"", b"bcd"]),
        ([b"ab", b"", b"c"], [2, 0, 1, 0], [b"ab", b"", b"c", b""]),
        ([b"ab", b"cd"], [1, 3], "its bucket ends before"),
        ([b"ab"], [1, 2], "its bucket ends before"),
        ([b"ab"], [2, 1], "its bucket ends before"),
        ([b"ab"], [2**62, 2**62], "its bucket ends before"),
        ([b"ab"], [1], "go on behind the last buffer"),
        ([b"ab", b"c"], [2], "go on behind the last buffer"),
        ([b"c"], [], "go on behind the last buffer"),
    ],
)
def test_buffers_lie_in_buckets(buckets, sizes, expected):
    arrays = [np.frombuffer(bucket, np.uint8) for bucket in buckets]
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            Buffers(arrays, np.array(sizes, np.int64))
        return
    made = Buffers(arrays, np.array(sizes, np.int64))
    assert [bytes(content) for content in made.contents] == expected
    assert bytes(made.join()) == b"".join(buckets)


@given(
    st.lists(st.integers(0, 2**63 - 1) | st.integers(0, 300), max_size=40), st.binary(max_size=3)
)
def test_varints_that_follow_each_other(values, rest):
    raw = b"".join(map(varints.encode, values))
    data = np.frombuffer(b"?" + raw + rest, np.uint8)
    found, stop = varints.read_array(data, 1, len(values))
    assert (found.tolist(), found.dtype, stop) == (values, np.int64, 1 + len(raw))


@pytest.mark.parametrize("count", [1, 40])
def test_varints_that_are_damaged(count):
    good = bytes(count - 1)
    for last, says in [
        (b"\x80", "."),
        (b"\x80" * 10 + b"\0", "."),
        (b"\xff" * 9 + b"\x01", "above 2"),
    ]:
        with pytest.raises(ValueError, match=says):
            varints.read_array(np.frombuffer(good + last, np.uint8), 0, count)


def _lie(path, chunk_type, data, num_records, decoded_size):
    with path.open("wb") as file:
        chunk_writer.ChunkWriter(file).write(chunk_type, data, num_records, decoded_size)
    return path


@pytest.mark.parametrize(
    ("chunk_type", "data", "num_records", "decoded_size", "says"),
    [
        (chunks.SIMPLE, b"", 1, 1, "the chunk is empty"),
        (chunks.TRANSPOSED, b"", 1, 1, "the chunk is empty"),
        (ord("X"), b"", 1, 1, "chunk of the type 0x58"),
        (chunks.SIMPLE, b"\x00\x7f\x01", 1, 1, "the sizes take 127 bytes"),
        (chunks.SIMPLE, b"\x00\x01\x05abc", 1, 5, "the records have other sizes"),
        (chunks.SIMPLE, b"\x00\x0a" + b"\xff" * 9 + b"\x01abc", 1, 3, "above"),
        (chunks.SIMPLE, b"\x01\x01\x03abc", 1, 3, "compression 0x1"),
        # 1 GB of records, which there are not.
        (chunks.SIMPLE, b"z\x06\x80\x80\x80\x80\x04x", 1, 1 << 28, "more than fit"),
        (chunks.SIMPLE, b"s\x06\x80\x80\x80\x80\x01x", 1, 1 << 28, "damaged"),
        (chunks.TRANSPOSED, b"\x00\x02\xff\xff", 1, 1, "does not end"),
        (chunks.TRANSPOSED, b"\x00\x03\xff\xff\x03", 1, 1, "does not end"),
    ],
)
def test_chunks_that_lie_are_errors(tmp_path, chunk_type, data, num_records, decoded_size, says):
    path = _lie(tmp_path / "file", chunk_type, data, num_records, decoded_size)
    with pytest.raises(errors.CorruptDatasetError, match=f"{path}, offset 64: .*{says}"):
        _read(path)


@pytest.mark.parametrize("field", [1, 2])
def test_chunks_that_are_too_large_are_errors(tmp_path, field):
    sizes = [100, 0, 0]
    sizes[field] = 4096
    path = _lie(tmp_path / "file", chunks.SIMPLE, bytes(sizes[0]), sizes[1], sizes[2])
    with pytest.raises(errors.CorruptDatasetError, match=r"offset 64: .*4095 .*max_chunk_bytes"):
        _read(path, max_chunk_bytes=4095)


def test_a_large_chunk_that_lies_in_the_file_is_no_bomb(write):
    records = [bytes(range(256)) * 100, b"another"]
    path, begins = write(records)

    assert _read(path, max_chunk_bytes=10) == (
        [(begins[0], records[0]), (begins[0] + 1, b"another")],
        True,
    )


def test_chunks_that_say_they_have_many_records_are_errors(tmp_path):
    # A compressed chunk of a few bytes could hold millions of records without bytes.
    path = tmp_path / "file"
    _lie(path, chunks.SIMPLE, b"\0", 10_000_000, 0)
    os.truncate(path, 1000)
    with pytest.raises(errors.CorruptDatasetError, match="10000000 records"):
        _read(path)


def test_automata_that_run_in_circles_are_errors(tmp_path):
    # Two nodes that do nothing, each implicitly followed by the other.
    header = bytes([0, 0, 2, 0, 0, 1 + 2, 0 + 2, 0])
    data = bytes([0, len(header)]) + header
    path = _lie(tmp_path / "file", chunks.TRANSPOSED, data, 0, 0)
    with (
        records_file.RecordsFile(path) as file,
        pytest.raises(errors.CorruptDatasetError, match="runs in a circle"),
    ):
        file.read(list(file.scan())[1])


def test_automata_that_run_long_are_errors(tmp_path):
    # A long chain of nodes that do nothing, run again for each transition.
    count = 20_000
    chain = b"".join(varints.encode(i + 1 + count) for i in range(count - 1)) + b"\0"
    header = b"\0\0" + varints.encode(count) + bytes(count) + chain + b"\0"
    data = b"\0" + varints.encode(len(header)) + header + bytes(20_000)
    path = _lie(tmp_path / "file", chunks.TRANSPOSED, data, 1, 1)
    with pytest.raises(errors.CorruptDatasetError, match="visits of nodes"):
        _read(path)
