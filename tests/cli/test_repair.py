# SPDX-License-Identifier: Apache-2.0
"""ArrayRecord files whose writer died are finished, and array_record reads them."""

from __future__ import annotations

import os
import pty
import random
import re
import signal
import subprocess
import sys

import array_record_library
import damage
import processes
import pytest
import riegeli_samples as samples
from array_record.python import array_record_module

from envlogger.cli import main
from envlogger.riegeli import array_record, records_file

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


_PROGRAM = "from envlogger.cli import main; raise SystemExit(main.main())"

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
    output = capsys.readouterr()
    assert output.err == ""  # no bar where there is no terminal
    said = output.out.splitlines()
    assert [line.split(": ")[0] for line in said] == [
        str(tmp_path / "data" / name) for name in names
    ]
    for name in names:
        assert _read(tmp_path / "data" / f"{name}.repaired")[0] == _records(100)[: _count(said[0])]

    # Elsewhere they can be written, too.
    assert main.main(["repair", str(tmp_path / "data"), "--output", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / names[1]).is_file()


def _torn(path, count=100):
    array_record_library.write(path, _records(count), "group_size:1")
    os.truncate(path, 10_000)


def _versions(directory):
    stats = {path: path.stat() for path in directory.rglob("*") if path.is_file()}
    return {path: (stat.st_ino, stat.st_mtime_ns, stat.st_size) for path, stat in stats.items()}


def test_a_second_time_the_repaired_files_are_there_already(tmp_path, capsys):
    names = ["a.array_record", "b.array_record"]
    for name in names:
        _torn(tmp_path / name)
    for target in ([], ["--output", str(tmp_path / "out")]):
        command = ["repair", str(tmp_path), *target]
        assert main.main(command) == 0
        made = _versions(tmp_path)
        assert capsys.readouterr().out.count("records saved in") == 2

        assert main.main(command) == 0
        output = capsys.readouterr()
        assert output.out.count("was repaired before") == 2
        assert output.err == ""
        assert _versions(tmp_path) == made

        # One that is new is saved.
        _torn(tmp_path / "c.array_record")
        assert main.main(command) == 0
        output = capsys.readouterr().out
        assert output.count("was repaired before") == 2
        assert output.count("records saved in") == 1
        (tmp_path / "c.array_record").unlink()
    for name in names:
        assert main.main(["repair", str(tmp_path / name)]) == 0
        assert f"in {tmp_path / name}.repaired\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "case", ["changed since", "of another file", "something else", "unfinished"]
)
def test_what_is_there_already_is_never_overwritten(tmp_path, capsys, case):
    source, target = tmp_path / "a.array_record", tmp_path / "a.array_record.repaired"
    _torn(source)
    _torn(tmp_path / "b.array_record")
    if case == "changed since":
        assert main.main(["repair", str(source)]) == 0
        array_record_library.write(source, _records(100), "group_size:1")
        os.truncate(source, 12_000)
    elif case == "of another file":
        array_record_library.write(target, _records(3), "group_size:1")
    elif case == "something else":
        target.write_text("mine")
    else:
        _torn(target)
    there = target.read_bytes()
    for other in ("records saved in", "was repaired before"):
        assert main.main(["repair", str(tmp_path)]) == 1
        output = capsys.readouterr()
        assert output.err.startswith(f"error: {target}: exists already")
        assert other in output.out
        assert target.read_bytes() == there
    assert main.main(["repair", str(source)]) == 1
    assert target.read_bytes() == there


@pytest.mark.parametrize("size", [0, 50])
def test_damaged_chunks_are_not_missed_in_what_was_repaired_before(tmp_path, capsys, size):
    path = tmp_path / "x.array_record"
    array_record_library.write(path, [b"alike" * size] * 20, "group_size:2")
    raw = bytearray(path.read_bytes())
    with records_file.RecordsFile(path) as file:
        chunks = list(file.scan())
    raw[chunks[3].begin + 41] ^= 1
    path.write_bytes(raw[:-1])
    for said in ("18 records saved", "was repaired before"):
        assert main.main(["repair", str(path)]) == 0
        assert said in capsys.readouterr().out


def test_what_a_killed_repair_left_is_no_file_to_repair(tmp_path, capsys):
    path = tmp_path / "x.array_record"
    array_record_library.write(path, _records(1200, 3000), "group_size:1")
    os.truncate(path, path.stat().st_size - 1)
    with subprocess.Popen([sys.executable, "-c", _PROGRAM, "repair", str(path)]) as process:
        while len(os.listdir(tmp_path)) == 1:
            assert process.poll() is None
        left = next(other for other in tmp_path.iterdir() if other != path)
        while left.stat().st_size < 100_000:
            assert process.poll() is None
        process.kill()
    assert left.stat().st_size
    assert main.main(["repair", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("\n") == 1
    assert len(_read(tmp_path / "x.array_record.repaired")[0]) == 1200


def test_says_how_far_it_is(tmp_path):
    _torn(tmp_path / "a")
    amounts = []
    array_record.repair(tmp_path / "a", tmp_path / "b", amounts.append)
    assert sum(amounts) == 10_000
    assert len(amounts) > 40
    assert min(amounts) >= 0


def test_shows_a_bar_on_a_terminal(tmp_path):
    for name in ("a", "b"):
        _torn(tmp_path / name)
    (tmp_path / "b.repaired").write_text("mine")
    _torn(tmp_path / "c")
    shown, said, code = _run_on_a_terminal(tmp_path)
    # Of what there is to do, nothing is for b.
    assert re.search(
        rb"100%\|[^|]+\| 20.0k/20.0k \[\d\d:\d\d<\d\d:\d\d, +[\d.]+[kM]?B/s\]", shown
    ), shown
    assert b"error: " in shown
    assert [line.split(b": ")[0] for line in said.splitlines()] == [
        bytes(tmp_path / name) for name in ("a", "c")
    ]
    assert code == 1


def test_shows_no_bar_where_nothing_is_copied(tmp_path):
    _torn(tmp_path / "a")
    assert main.main(["repair", str(tmp_path)]) == 0
    shown, said, code = _run_on_a_terminal(tmp_path)
    assert (shown, code) == (b"", 0)
    assert b"was repaired before" in said


def _run_on_a_terminal(path):
    """Repairs in a process whose stderr is a terminal; returns what that showed, stdout, and the code."""
    terminal, end = pty.openpty()
    command = [sys.executable, "-c", _PROGRAM, "repair", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=end) as process:
        os.close(end)
        shown = b""
        try:
            while data := os.read(terminal, 4096):
                shown += data
        except OSError:  # its way of saying that nobody has the other end
            pass
        os.close(terminal)
        return shown, process.stdout.read(), process.wait(60)


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
