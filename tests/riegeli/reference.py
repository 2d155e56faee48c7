# SPDX-License-Identifier: Apache-2.0
"""Runs the automaton of an uncompressed transposed chunk node by node: `transposed_chunk`'s trivial twin."""

from __future__ import annotations

from envlogger import varints

NON_PROTO, SUBMESSAGE_START, RECORD = 1, 2, 3
_MOST_VISITS = 100_000


class TooLongError(Exception):
    """It would take too long this way."""


class _Reader:
    """Takes varints and bytes from a string, one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def varint(self) -> int:
        value, self.position = varints.read(self.data, self.position)
        if value >= 2**63:
            raise ValueError("too large")
        return value

    def varints(self, count: int) -> list[int]:
        if count > len(self.data):
            raise ValueError("the data ends")
        return [self.varint() for _ in range(count)]

    def take(self, size: int) -> bytes:
        self.position += size
        if self.position > len(self.data):
            raise ValueError("the data ends")
        return self.data[self.position - size : self.position]

    def string(self) -> bytes:
        """Takes a string with its size before it."""
        begin = self.position
        size = self.varint()
        prefix = self.data[begin : self.position]
        return prefix + self.take(size)

    def rest(self) -> bytes:
        return self.take(len(self.data) - self.position)


class Chunk:
    """The parts of a chunk without compression."""

    def __init__(self, data: bytes) -> None:
        chunk = _Reader(data)
        if chunk.take(1) != b"\0":
            raise ValueError("compressed")
        header = _Reader(chunk.take(chunk.varint()))
        num_buckets, num_buffers = header.varint(), header.varint()
        bucket_sizes = header.varints(num_buckets)
        buffer_sizes = header.varints(num_buffers)
        self.tags = header.varints(header.varint())
        count = len(self.tags)
        following = header.varints(count)
        subtyped = [i for i, tag in enumerate(self.tags) if tag >= 8 and tag % 8 == 0]
        self.subtypes = dict(zip(subtyped, header.take(len(subtyped)), strict=True))
        self.buffer_of = {i: header.varint() for i in range(count) if self._takes(i)}
        self.node = header.varint()
        self.implicit = [node >= count for node in following]
        self.following = [node - count * (node >= count) for node in following]
        if header.rest() or max([*self.following, self.node]) >= count:
            raise ValueError("damaged header")
        buckets = [_Reader(chunk.take(size)) for size in bucket_sizes]
        self.buffers = []
        current = 0
        for size in buffer_sizes:
            self.buffers.append(_Reader(buckets[current].take(size)))
            while current + 1 < num_buckets and not _left(buckets[current]):
                current += 1
        if any(map(_left, buckets)):
            raise ValueError("buckets are not used up")
        if max(self.buffer_of.values(), default=-1) >= num_buffers:
            raise ValueError("no such buffer")
        self.transitions = chunk.rest()

    def _takes(self, i: int) -> bool:
        tag = self.tags[i]
        if tag >= 2**32 or tag in (4, 5, 6, 7) or (tag >= 8 and tag % 8 == 7):
            raise ValueError("no such tag")
        if tag < 8:
            return tag == NON_PROTO
        if tag % 8 == 0 and self.subtypes[i] > 137:
            raise ValueError("no such subtype")
        return tag % 8 in (1, 2, 5) or (tag % 8 == 0 and self.subtypes[i] < 10)

    def records(self) -> list[bytes]:
        """Returns the records, in order."""
        made: list[bytes] = []
        size = 0
        stack: list[tuple[int, bytes]] = []
        records: list[bytes] = []
        begin = 0
        node, free, read = self.node, int(self.implicit[self.node]), 0
        sizes = _Reader(self.buffers[-1].data) if self.buffers else None
        for _ in range(_MOST_VISITS):
            tag = self.tags[node]
            piece = b""
            buffer = self.buffers[self.buffer_of[node]] if node in self.buffer_of else None
            if tag == NON_PROTO:
                piece = buffer.take(sizes.varint())
            elif tag == SUBMESSAGE_START:
                if not stack:
                    raise ValueError("no submessage")
                mark, prefix = stack.pop()
                piece = prefix + varints.encode(size - mark)
            elif tag >= 8:
                piece = varints.encode(tag)
                if tag % 8 == 6:
                    stack.append((size, varints.encode(tag - 4)))
                    piece = b""
                elif tag % 8 == 0 and self.subtypes[node] >= 10:
                    piece += bytes([self.subtypes[node] - 10])
                elif tag % 8 == 0:
                    *first, last = buffer.take(self.subtypes[node] + 1)
                    piece += bytes([byte | 0x80 for byte in first] + [last])
                elif tag % 8 in (1, 5):
                    piece += buffer.take(8 if tag % 8 == 1 else 4)
                elif tag % 8 == 2:
                    piece += buffer.string()
            made.append(piece)
            size += len(piece)
            if tag in (NON_PROTO, RECORD):
                if stack:
                    raise ValueError("a record begins in a submessage")
                records.append(b"".join(reversed(made[begin:])))
                begin = len(made)
            node = self.following[node]
            if free:
                free -= not self.implicit[node]
                continue
            if read == len(self.transitions):
                if stack or any(made[begin:]):
                    raise ValueError("something is left")
                return records[::-1]
            node += self.transitions[read] >> 2
            if node >= len(self.tags):
                raise ValueError("no such node")
            free = (self.transitions[read] & 3) + self.implicit[node]
            read += 1
        raise TooLongError


def _left(reader: _Reader) -> bool:
    return reader.position < len(reader.data)
