# SPDX-License-Identifier: Apache-2.0
"""The automaton of a transposed chunk: its nodes, and which of them are visited."""

from __future__ import annotations

import enum

import numpy as np
import numpy.typing as npt

from envlogger import varints
from envlogger.varints import Bytes, Ints


class Kind(enum.IntEnum):
    """What visiting a node does. The first four are also the tags of such nodes."""

    NO_OP = 0
    NON_PROTO = 1  # a whole record
    SUBMESSAGE_START = 2
    RECORD = 3  # begins here: the next visits make the one before
    SUBMESSAGE_END = 4
    TAG = 5  # of a group's start or end
    VARINT = 6
    INLINE = 7  # a varint of one byte, which the node itself has
    FIXED = 8  # four or eight bytes
    STRING = 9


Visits = npt.NDArray[np.int32]

_NODE_BYTES = np.dtype(np.int32).itemsize

# So many transitions are looked up at once.
_AT_ONCE = 16

# By the lowest three bits of the tag: protobuf's wire types, and one that it does not have.
_KINDS = np.array(
    [Kind.VARINT, Kind.FIXED, Kind.STRING, Kind.TAG, Kind.TAG, Kind.FIXED, Kind.SUBMESSAGE_END, -1]
)
_FIXED_WIDTHS = np.array([0, 8, 0, 0, 0, 4, 0, 0])
_STRING_TYPE = 2
_FIRST_FIELD = 8
_FIRST_INLINE = 10
_MAX_SUBTYPE = 137
_MAX_TAG = 2**32 - 1
_MAX_PREFIX = 6


class Nodes:
    """The nodes; all arrays are indexed by node.

    Attributes:
      kind: int8, one of `Kind`.
      prefix: uint8 of shape (nodes, 6): the tag, and the byte of INLINE.
      prefix_size: How many bytes of the prefix a visit makes.
      message_tag_size: The same for the submessages that SUBMESSAGE_END ends; their tag comes later.
      buffer: The buffer that a visit takes bytes from, or -1.
      width: How many; -1 where the value says it.
    """

    def __init__(self, tags: Ints, subtypes: Ints) -> None:
        is_field = tags >= _FIRST_FIELD
        self.kind = np.where(is_field, _KINDS[tags & 7], tags).astype(np.int8)
        if (tags > _MAX_TAG).any() or (self.kind < 0).any() or tags[~is_field].max(initial=0) > 3:
            raise ValueError("a node has a tag that there is not")
        is_inline = subtypes >= _FIRST_INLINE
        self.kind[is_inline] = Kind.INLINE

        is_end = self.kind == Kind.SUBMESSAGE_END
        written = np.where(is_field, tags, 0)
        written[is_end] += _STRING_TYPE - 6
        sizes = varints.lengths_of(written)
        self.prefix = np.zeros((len(tags), _MAX_PREFIX), np.uint8)
        for i in range(int(sizes.max())):
            here = sizes > i
            follows = (sizes[here] > i + 1) * np.uint8(0x80)
            self.prefix[here, i] = (written[here] >> 7 * i & 0x7F).astype(np.uint8) | follows
        self.prefix[is_inline, sizes[is_inline]] = subtypes[is_inline] - _FIRST_INLINE
        self.prefix_size = np.where(is_field & ~is_end, sizes + is_inline, 0)
        self.message_tag_size = np.where(is_end, sizes, 0)

        self.width = _FIXED_WIDTHS[tags & 7] * is_field
        is_varint = self.kind == Kind.VARINT
        self.width[is_varint] = subtypes[is_varint] + 1
        self.width[self.kind == Kind.STRING] = -1
        self.has_buffer = np.isin(self.kind, [Kind.NON_PROTO, Kind.VARINT, Kind.FIXED, Kind.STRING])
        self.buffer = np.full(len(tags), -1)


class Automaton:
    """Says which nodes are visited.

    A transition byte says how far behind the base to go (6 bits), and how many more moves, each to the
    node that follows, are made before the next byte is read (2 bits). Nodes may be implicit: the move
    away from them is made without a byte, too.

    Args:
      following: The node that follows each, or the base from which a transition counts.
      is_implicit: Whether nodes are implicit.
      first: The node to begin with.
    """

    def __init__(self, following: list[int], is_implicit: list[bool], first: int) -> None:
        self._following = following
        self._is_implicit = is_implicit
        self._first = first

    def run(self, transitions: bytes, max_visits: int) -> Visits:
        """Returns the nodes in the order in which they are visited.

        The bytes repeat in the same states, one by one and even more so in groups: the visits that each
        leads to are found out once.

        Raises:
          ValueError: There are more than `max_visits`, or a transition leads nowhere.
        """
        if len(transitions) > max_visits:
            raise ValueError(f"got {len(transitions)} transitions, more than {max_visits}")
        # As bytes, which are joined fast.
        moves: dict[tuple[int, int], tuple[bytes, int]] = {}
        runs: dict[tuple[int, bytes], tuple[bytes, int]] = {}
        nodes, base = self._follow(self._first, 0, max_visits)
        visits = [nodes]
        left = max_visits * _NODE_BYTES - len(nodes)
        for i in range(0, len(transitions), _AT_ONCE):
            key = base, transitions[i : i + _AT_ONCE]
            run = runs.get(key)
            if run is None:
                pieces = []
                for byte in key[1]:
                    move = moves.get((base, byte))
                    if move is None:
                        move = self._follow(base + (byte >> 2), byte & 3, left // _NODE_BYTES)
                        moves[base, byte] = move
                    pieces.append(move[0])
                    base = move[1]
                run = runs[key] = b"".join(pieces), base
            visits.append(run[0])
            left -= len(run[0])
            if left < 0:
                raise ValueError(f"got more than {max_visits} visits of nodes")
            base = run[1]
        return np.frombuffer(b"".join(visits), np.int32)

    def _follow(self, node: int, moves: int, max_visits: int) -> tuple[bytes, int]:
        """Returns the nodes visited from one on until a byte is needed, and the base then."""
        following, is_implicit = self._following, self._is_implicit
        if node >= len(following):
            raise ValueError(f"a transition leads to node {node} of {len(following)}")
        nodes = [node]
        moves += is_implicit[node]
        since = len(nodes) + len(following)
        while moves:
            node = following[node]
            nodes.append(node)
            if not is_implicit[node]:
                moves -= 1
                since = len(nodes) + len(following)
            elif len(nodes) > since:
                raise ValueError("the automaton runs in a circle")
        if len(nodes) > max_visits:
            raise ValueError("got more visits of nodes than there can be")
        return np.array(nodes, np.int32).tobytes(), following[node]


def read(data: Bytes, position: int, num_buffers: int) -> tuple[Nodes, Automaton, int]:
    """Reads the nodes from the header of a chunk.

    Args:
      data: The header, decompressed.
      position: Where the number of nodes is.
      num_buffers: How many buffers there are.

    Returns:
      The nodes, what visits them, and the position behind.

    Raises:
      ValueError: They are damaged.
    """
    count, position = varints.read(data.data, position)
    tags, position = varints.read_array(data, position, count)
    following, position = varints.read_array(data, position, count)
    if not count:
        raise ValueError("the automaton has no nodes")
    has_subtype = np.flatnonzero((tags >= _FIRST_FIELD) & (tags & 7 == 0))
    subtypes = np.full(count, -1)
    given = data[position : position + len(has_subtype)]
    if len(given) < len(has_subtype) or given.max(initial=0) > _MAX_SUBTYPE:
        raise ValueError("the subtypes of nodes are damaged")
    subtypes[has_subtype] = given
    nodes = Nodes(tags, subtypes)
    takers = np.flatnonzero(nodes.has_buffer)
    buffers, position = varints.read_array(data, position + len(given), len(takers))
    nodes.buffer[takers] = buffers
    first, position = varints.read(data.data, position)
    is_implicit = following >= count
    following = following - is_implicit * count
    if max(int(following.max()), first) >= count or buffers.max(initial=-1) >= num_buffers:
        raise ValueError("a node refers to a node or a buffer that there is not")
    return nodes, Automaton(following.tolist(), is_implicit.tolist(), first), position
