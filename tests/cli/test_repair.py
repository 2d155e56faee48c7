# SPDX-License-Identifier: Apache-2.0
"""ArrayRecord files whose writer died are finished, and array_record reads them."""

from __future__ import annotations

import os
import random
import signal

import array_record_library
import damage
import processes
import pytest
import riegeli_samples as samples
from array_record.python import array_record_module

from envlogger.cli import main
from envlogger.riegeli import records_file

_OPTIONS = [
    "group_size:1",
    "group_size:7,uncompressed",
    "group_size:100,transpose,brotli:2",
    "group_size:3,snappy",
    "group_size:1,transpose,zstd:1",
]


def _records(count, size=300):
    rng = random.Random(0)
    return [rng.randbytes(rng.randrange(size)) for _ in range(count)]


def _read(path):
    reader = array_record_module.ArrayRecordReader(str(path))
    try:
        return reader.read_all(), reader.read([0, reader.num_records() - 1]), reader.num_records()
    finally:
        reader.close()


@pytest.mark.parametrize("options", _OPTIONS)
def test_what_is_whole_is_saved_wherever_the_file_ends(tmp_path, capsys, options):
    records = _records(200)
    whole = tmp_path / "whole"
    array_record_library.write(whole, records, options)
    raw = whole.read_bytes()
    with records_file.RecordsFile(whole) as file:
        ends = [chunk.end for chunk in file.scan()]
    counts = set()
    for i, size in enumerate([*range(100, len(raw), len(raw) // 6), *ends[-4:-1]]):
        torn = tmp_path / f"torn-{i}"
        torn.write_bytes(raw[:size])
        assert main.main(["repair", str(torn)]) == 0
        said = capsys.readouterr().out
        repaired = tmp_path / f"torn-{i}.repaired"
        if "0 records saved" in said and ": 0 records" in said:
            assert array_record_module.ArrayRecordReader(str(repaired)).num_records() == 0
            counts.add(0)
            continue
        got, ends_of, count = _read(repaired)
        assert got == records[:count]
        assert ends_of == [records[0], records[count - 1]]
        assert f"{torn}: {count} records saved in {repaired}" in said
        assert torn.read_bytes() == raw[:size]
        counts.add(count)
    assert max(counts) == 200
    assert len(counts) > 2


def test_a_file_that_a_killed_writer_left(tmp_path, capsys):
    path = samples.root() / "_riegeli_fuzz" / "killed_arrayrecord_prefix.riegeli"
    target = tmp_path / "finished"
    assert main.main(["repair", str(path), "--output", str(target)]) == 0
    assert "11 records saved" in capsys.readouterr().out
    assert _read(target)[0] == samples.records_of(path)


_KILLED = """
    import os, signal, sys
    from array_record.python import array_record_module

    writer = array_record_module.ArrayRecordWriter(sys.argv[1], "group_size:1")
    for i in range(190):
        writer.write(os.urandom(100_000))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_writer_that_is_killed_now(tmp_path, capsys):
    path = tmp_path / "x.array_record"
    processes.python(_KILLED, path, status=-signal.SIGKILL)
    assert main.main(["repair", str(path)]) == 0
    records, _, count = _read(tmp_path / "x.array_record.repaired")
    assert count == len(records) > 50
    assert {len(record) for record in records} == {100_000}


def test_damaged_chunks_are_left_out(tmp_path, capsys):
    records = _records(50)
    path = tmp_path / "x"
    array_record_library.write(path, records)
    with records_file.RecordsFile(path) as file:
        chunks = list(file.scan())
    os.truncate(path, chunks[41].begin)
    damage.flip(path, chunks[6].begin + 50, chunks[20].begin + 50)
    assert main.main(["repair", str(path)]) == 0
    got = _read(tmp_path / "x.repaired")[0]
    assert got == [record for i, record in enumerate(records[:40]) if i not in (5, 19)]
    assert "38 records saved" in capsys.readouterr().out


def test_a_directory_is_searched(tmp_path, capsys):
    (tmp_path / "data" / "sub").mkdir(parents=True)
    names = ["a.array_record-00000", "sub/b.array_record-00000-of-00001"]
    for name in names:
        array_record_library.write(tmp_path / "data" / name, _records(100))
    array_record_library.write(tmp_path / "data" / "done.array_record", _records(3))
    (tmp_path / "data" / "dataset_info.json").write_text("{}")
    (tmp_path / "data" / "empty").touch()
    log = samples.log("catch_default")
    os.symlink(next(log.glob("*/steps.riegeli")), tmp_path / "data" / "steps.riegeli")
    for name in names:
        os.truncate(tmp_path / "data" / name, 10_000)

    assert main.main(["repair", str(tmp_path / "data")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in said] == [
        str(tmp_path / "data" / name) for name in names
    ]
    for name in names:
        assert _read(tmp_path / "data" / f"{name}.repaired")[0] == _records(100)[: _count(said[0])]

    # A second time, they are there already; elsewhere they can be written.
    assert main.main(["repair", str(tmp_path / "data")]) == 1
    assert capsys.readouterr().err.count("exists already") == 2
    assert main.main(["repair", str(tmp_path / "data"), "--output", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / names[1]).is_file()


def _count(line):
    return int(line.split(": ")[1].split()[0])


def test_nothing_to_repair(tmp_path, capsys):
    assert main.main(["repair", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "Nothing to repair.\n"
    path = tmp_path / "x"
    array_record_library.write(path, _records(3))
    assert main.main(["repair", str(path)]) == 1
    assert "is complete" in capsys.readouterr().err
    path.write_bytes(b"something else" * 10)
    assert main.main(["repair", str(path)]) == 1
    assert f"{path}, offset 0: " in capsys.readouterr().err
    assert main.main(["repair", str(tmp_path / "nothing")]) == 1
    assert sorted(os.listdir(tmp_path)) == ["x"]
