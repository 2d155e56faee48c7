# SPDX-License-Identifier: Apache-2.0
"""Files of array_record that were complete once: their index is not taken for data, nor data for it."""

from __future__ import annotations

import random

import pytest
import riegeli_samples as samples
from array_record.python import array_record_module

from envlogger import errors
from envlogger.riegeli import array_record, chunks, records_file

_BLOCK = chunks.BLOCK_SIZE

_OPTIONS = [
    "group_size:1",
    "group_size:1,transpose,zstd:1",
    "group_size:2,pad_to_block_boundary:true",
    "group_size:3,snappy",
    "group_size:4,uncompressed,pad_to_block_boundary:true",
    "group_size:7,uncompressed",
    "group_size:7,brotli:2",
    "group_size:16,transpose,brotli:2",
    "group_size:40",
]


class _File:
    """A file that array_record wrote, and where its chunks with records are."""

    def __init__(self, path, records, options):
        writer = array_record_module.ArrayRecordWriter(str(path), options)
        for record in records:
            writer.write(record)
        writer.close()
        self.raw = bytearray(path.read_bytes())
        with records_file.RecordsFile(path) as file:
            found = [chunk for chunk in file.scan() if chunk.num_records]
            *self.data, self.footer, self.postscript = found
            self.index = [*file.read(self.footer)], [*file.read(self.postscript)]
        self.groups = []
        for chunk in self.data:
            self.groups.append(records[: chunk.num_records])
            records = records[chunk.num_records :]

    def damage(self, chunk, *, header=False):
        position = _stop(chunk, 3) if header else _stop(chunk)
        self.raw[position - 1] ^= 1

    def whole(self, size, damaged=()):
        """Returns the records of the chunks that are whole if the file has so many bytes."""
        return [
            record
            for chunk, group in zip(self.data, self.groups, strict=True)
            if chunk not in damaged and _stop(chunk) <= size
            for record in group
        ]


def _stop(chunk, size=None):
    """Returns where the data of a chunk ends; or so many bytes of its header."""
    return chunks.end_of(chunk.begin, 40 + chunk.data_size if size is None else size)


@pytest.fixture
def repair(tmp_path):
    """Repairs bytes; returns what array_record reads then, in order and record by record."""

    def repair(raw):
        source, target = tmp_path / "torn", tmp_path / "repaired"
        source.write_bytes(raw)
        target.unlink(missing_ok=True)
        report = array_record.repair(source, target)
        # Without threads and buffers of its own, which take longer to make than all else here.
        options = "readahead_buffer_size:0,max_parallelism:0"
        reader = array_record_module.ArrayRecordReader(str(target), options)
        try:
            assert report.num_records == reader.num_records()
            records = reader.read_all() if report.num_records else []
            assert [reader.read([i])[0] for i in range(report.num_records)] == records
        finally:
            reader.close()
        return records

    return repair


def _records(count, size=300):
    rng = random.Random(0)
    return [rng.randbytes(rng.randrange(size)) for _ in range(count)]


@pytest.mark.parametrize("options", _OPTIONS)
@pytest.mark.parametrize("header", [False, True])
@pytest.mark.parametrize("lost", [0, 1, -1])
def test_chunks_were_lost_and_the_end_is_missing(tmp_path, repair, options, header, lost):
    file = _File(tmp_path / "x", _records(45), options)
    lost = file.data[lost]
    file.damage(lost, header=header)
    ends = [
        *(file.footer.begin, _stop(file.footer) - 1, _stop(file.footer)),
        *(file.postscript.begin, _stop(file.postscript), len(file.raw) - 1),
    ]
    for end in ends:
        records = repair(file.raw[:end])
        if header and "pad" not in options:
            # What the header of a chunk was for is lost up to the next block, and this is the only one.
            assert records == file.whole(lost.begin)
        else:
            assert records == file.whole(end, damaged=[lost])


def test_each_length_behind_the_data(tmp_path, repair):
    file = _File(tmp_path / "x", _records(20, 9), "group_size:7,uncompressed")
    file.damage(file.data[1])
    for end in range(file.footer.begin - 2, _stop(file.footer) + 2):
        assert repair(file.raw[:end]) == file.whole(end, damaged=[file.data[1]])


def test_a_footer_across_blocks(tmp_path, repair):
    records = [b"%d" % i for i in range(9_000)]
    file = _File(tmp_path / "x", records, "group_size:1,uncompressed")
    assert file.footer.begin // _BLOCK < _stop(file.footer) // _BLOCK
    file.damage(file.data[5_000])
    for end in (_stop(file.footer) - 1, len(file.raw) - _BLOCK):
        assert repair(file.raw[:end]) == records[:5_000] + records[5_001:]


@pytest.mark.parametrize("options", ["group_size:1", "group_size:3,uncompressed", "group_size:50"])
def test_all_but_the_footer_is_damaged(tmp_path, repair, options):
    file = _File(tmp_path / "x", _records(20), options)
    for chunk in file.data:
        file.damage(chunk)
    assert repair(file.raw[:-_BLOCK]) == []


@pytest.mark.parametrize("options", ["group_size:1", "group_size:3,uncompressed", "group_size:50"])
def test_the_footer_is_damaged_and_the_postscript_is_not(tmp_path, repair, options):
    file = _File(tmp_path / "x", _records(20), options)
    file.damage(file.footer)
    assert repair(file.raw[:-1]) == file.whole(file.footer.begin)
    file.damage(file.footer, header=True)
    assert repair(file.raw[:-1]) == file.whole(file.footer.begin)


@pytest.mark.parametrize("options", ["group_size:1", "group_size:3,uncompressed", "group_size:50"])
def test_the_postscript_is_damaged(tmp_path, repair, options):
    file = _File(tmp_path / "x", _records(20), options)
    file.damage(file.data[0])
    file.damage(file.postscript)
    assert repair(file.raw) == file.whole(len(file.raw), damaged=[file.data[0]])


def test_a_file_without_records(tmp_path, repair):
    file = _File(tmp_path / "x", [], "group_size:1")
    for end in (file.footer.begin, _stop(file.footer), file.footer.end, len(file.raw) - 1):
        assert repair(file.raw[:end]) == []


@pytest.mark.parametrize("options", ["group_size:1", "group_size:7,uncompressed"])
def test_a_block_is_missing_in_the_middle(tmp_path, repair, options):
    file = _File(tmp_path / "x", _records(200, 5000), options)
    del file.raw[2 * _BLOCK : 3 * _BLOCK]
    records = repair(file.raw[:-_BLOCK])
    behind = file.whole(len(file.raw))[-20:]
    assert records[-20:] == behind
    assert records[:20] == file.whole(len(file.raw))[:20]


@pytest.mark.parametrize("options", ["zstd", "uncompressed", "zstd,pad_to_block_boundary:true"])
@pytest.mark.parametrize("count", [1, 4])
def test_records_that_are_an_index_are_data(tmp_path, repair, options, count):
    other = _File(tmp_path / "other", _records(count), "group_size:1")
    footer, postscript = other.index
    for records, group_size in ((footer, len(footer)), (postscript, 3)):
        file = _File(tmp_path / "x", records * 4, f"group_size:{group_size},{options}")
        ends = [chunk.end for chunk in file.data]
        for end in (*ends, _stop(file.footer), file.footer.end, len(file.raw) - 1):
            assert repair(file.raw[:end]) == file.whole(end)


def test_what_array_record_could_not_read_is_refused(tmp_path):
    log = samples.log("opt_simple_smallchunk")
    source, target = next(log.glob("*/steps.riegeli")), tmp_path / "x"
    with pytest.raises(errors.CorruptDatasetError, match="expected an ArrayRecord file"):
        array_record.repair(source, target)
    assert not list(tmp_path.iterdir())
