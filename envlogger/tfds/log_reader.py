# SPDX-License-Identifier: Apache-2.0
"""Reads the rows of a session's step log, while they are being written or after, as episodes."""

from __future__ import annotations

import contextlib
import glob
import json
import os
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from envlogger import errors
from envlogger.converters import json_codec
from envlogger.tfds import episode, features, step_log, structure
from envlogger.tfds.episode import End, Episode, Given, Pattern
from envlogger.tfds.features import Chunks, Column, Feature
from envlogger.tfds.session import Journal
from envlogger.tfds.step_log import Segment
from envlogger.tfds.structure import Leaves, Path, Structure

_MAX_PATTERNS = 1024

# A segment, and the places of the first row in it and of the one behind the last.
_Piece: TypeAlias = tuple[Segment, int, int]


class LogReader:
    """The reading end of a step log.

    Args:
      directory: The session's directory.
      journal: The session's journal; refreshed as rows are read.
      first_row: The first row that is not in a published shard.
      stream: Which of the session's streams it reads.
    """

    def __init__(self, directory: str, journal: Journal, first_row: int, stream: int = 0) -> None:
        self._directory = directory
        self._stream = stream
        self._journal = journal
        # Those whose rows were all handed out, and the others; both in the order of their rows.
        self._spent: list[Segment] = []
        self._segments: list[Segment] = []
        self._idle: dict[str, Segment] = {}  # mapped, and to be used again by the writer
        self._starts: list[int] = []  # rows that begin an episode, from `_begin` on
        self._patterns: dict[tuple[tuple[int, int], ...], Pattern] = {}
        self._newest_layout = -1
        self._features: dict[Path, Feature] = {}  # those of that layout
        self._begin = first_row  # the first row that was not handed out
        self._scanned = first_row

    @property
    def num_rows(self) -> int:
        """How many rows the session has, as far as `refresh` saw."""
        last = self._segments[-1] if self._segments else None
        return self._begin if last is None else max(last.first_row + last.count, self._begin)

    @property
    def first_row(self) -> int:
        """The first row that was not handed out as part of an episode."""
        return self._begin

    @property
    def ends_with_episode(self) -> bool:
        """Whether the rows that were not handed out end with the last one of an episode."""
        if self.num_rows == self._begin:
            return False
        segment = next(s for s in reversed(self._segments) if s.count)
        last = segment.records[segment.count - 1]
        if self._is_aligned:
            return bool(last["flags"] & step_log.ENDED)
        return bool(last["step_type"] == episode.LAST_STEP)

    def refresh(self) -> None:
        """Looks for new rows."""
        self._find_segments()
        for segment in self._segments:
            count = segment.count
            start = max(self._scanned - segment.first_row, 0)
            if start < count:
                flags = segment.records["flags"][start:count]
                places = np.flatnonzero(flags & step_log.NEW_EPISODE) + (segment.first_row + start)
                self._starts += places.tolist()
                self._scanned = segment.first_row + count
        self._journal.refresh()  # after the rows, so that what they refer to is there

    def finished(self, max_bytes: int) -> Iterator[Episode]:
        """Yields the episodes behind which another one has begun.

        Args:
          max_bytes: How much of the step log an episode may take; a larger one comes in parts.
        """
        while self._starts:
            if self._starts[0] == self._begin:
                if len(self._starts) == 1:
                    return
                del self._starts[0]
            # Rows before the first start go on with an episode that was split.
            yield from self.take(self._starts[0], End.RESET, max_bytes)

    def take(self, stop: int, end: End, max_bytes: int) -> Iterator[Episode]:
        """Yields the rows up to `stop` as an episode, in parts if it is too large, and moves on."""
        while self._starts and self._starts[0] < stop:
            del self._starts[0]
        most = max(int(max_bytes / self.bytes_between(0, 1)), 1)
        while stop - self._begin > most:
            self._begin += most
            yield from self._episode(self._begin - most, self._begin, End.SPLIT)
        start, self._begin = self._begin, stop
        yield from self._episode(start, stop, end)
        while len(self._segments) > 1 and _end(self._segments[0]) <= stop:
            self._spent.append(self._segments.pop(0))

    def bytes_between(self, start: int, stop: int) -> float:
        """Returns how much of the step log so many rows take, about."""
        last = self._segments[-1]
        heap = last.heap_used / max(last.count, 1)
        return (stop - start) * (last.layout.row_bytes + heap)

    def give_back(self, row: int) -> None:
        """Gives back the space of the segments whose rows all lie before `row`."""
        for segments in (self._spent, self._segments):
            while segments and segments[0].is_done and _end(segments[0]) <= row:
                segment = segments.pop(0)
                segment.mark_sealed()
                self._idle[segment.path] = segment

    def check_complete(self) -> None:
        """Refuses to go on where rows are left that do not follow on those that were read.

        Raises:
          CorruptDatasetError: A segment is missing.
        """
        left = [segment.path for segment in self._idle.values() if segment.is_unsealed]
        if left:
            raise errors.CorruptDatasetError(
                f"{', '.join(sorted(left))}: the rows before these are missing from the step log, "
                f"which ends at row {self.num_rows}. Was a segment removed? Restore it from a copy."
            )

    def make_spares(self) -> None:
        """Makes files for the segments that the writer will need next, so that it need not."""
        if not self._journal.layouts or len(self._idle) >= step_log.NUM_SPARES:
            return
        layout = self._journal.layouts[max(self._journal.layouts)]
        for index in range(step_log.NUM_SPARES):
            path = step_log.spare_path(self._directory, layout, index)
            if not os.path.exists(path):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{path}.tmp")  # of a helper that died over it
                step_log.reserve(f"{path}.tmp", layout.size)
                os.rename(f"{path}.tmp", path)

    def sync(self) -> None:
        """Makes all rows survive a loss of power."""
        for segment in (*self._spent, *self._segments):
            segment.sync()

    def close(self) -> None:
        """Unmaps the segments."""
        for segment in (*self._spent, *self._segments, *self._idle.values()):
            segment.close()
        self._spent, self._segments, self._idle = [], [], {}

    def _find_segments(self) -> None:
        """Takes up the segments that follow on the last one, without a gap.

        The listing is no snapshot: while it goes on, the writer may fill and recycle segments. One
        that seems to follow after a gap is left for the next time, when the one before is seen too.
        """
        if self._segments and not self._segments[-1].is_done:
            return  # the writer is still there
        self._journal.refresh()
        # One without a row, but with a note, may be there beside the one that takes its place.
        by_row = sorted(self._candidates(), key=lambda s: (s.first_row, s.count > 0, not s.is_done))
        for segment in by_row:
            if segment.first_row > self.num_rows:
                self._idle[segment.path] = segment
            else:
                self._segments.append(segment)

    def _candidates(self) -> Iterator[Segment]:
        """Yields the segments that are in use and not taken up yet."""
        known = {segment.path for segment in (*self._spent, *self._segments)}
        for path in glob.glob(step_log.segment_path(self._directory, self._stream, "*")):
            if path in known:
                continue
            segment = self._idle.get(path)
            if segment is None:
                with contextlib.suppress(FileNotFoundError):  # it was empty, and is gone
                    segment = step_log.open_segment(path, self._journal.layouts)
            elif not segment.is_unsealed:
                if not os.path.exists(path):
                    self._idle.pop(path).close()
                continue
            if segment is not None:
                self._idle.pop(path, None)
                yield segment

    @property
    def _is_aligned(self) -> bool:
        """Whether the rows are steps of RLDS."""
        assert self._journal.options is not None, "rows come after the journal's first line"
        return self._journal.options.is_aligned

    def _episode(self, start: int, stop: int, end: End) -> Iterator[Episode]:
        """Yields the rows as an episode, unless they do not count, since it was not completed."""
        pieces = []
        for segment in self._segments:
            first = segment.first_row
            if first >= stop:
                break
            if (count := segment.count) > max(start - first, 0):
                pieces.append((segment, max(start - first, 0), min(stop - first, count)))
        step_types = _join([s.records["step_type"][a:b] for s, a, b in pieces])
        given = None
        if self._is_aligned:
            first = int(pieces[0][0].records["flags"][pieces[0][1]])
            last = int(pieces[-1][0].records["flags"][pieces[-1][2] - 1])
            if last & step_log.ENDED:
                end = End.OPEN if last & step_log.NOT_LAST else End.LAST
            elif end is not End.SPLIT and first & step_log.NEW_EPISODE and last & step_log.WHOLE:
                return
            given = Given(bool(first & step_log.IS_FIRST), bool(last & step_log.IS_TERMINAL))
        elif step_types[-1] == episode.LAST_STEP:
            end = End.LAST
        pattern = self._pattern(_join([s.records["structure"][a:b] for s, a, b in pieces]))
        shape, metadata = self._metadata(pieces[0], start, stop)
        yield Episode(
            episode_id=self._episode_id(start),
            end=end,
            step_types=step_types,
            pattern=pattern,
            columns={
                feature.path: _column(self._newest(feature), pieces, pattern)
                for feature in pieces[-1][0].layout.features
            },
            metadata_structure=shape,
            metadata=metadata,
            given=given,
        )

    def _episode_id(self, first_row: int) -> str:
        options = self._journal.options
        assert options is not None, "rows come after the journal's first line"
        stream = f"{self._stream:03d}-" if options.num_streams > 1 else ""
        return f"{options.session_id}-{stream}{first_row:09d}"

    def _newest(self, feature: Feature) -> Feature:
        """Returns a feature as it is now: another stream may have shown that a dimension varies."""
        newest = max(self._journal.layouts)
        if newest != self._newest_layout:
            self._newest_layout = newest
            self._features = {item.path: item for item in self._journal.layouts[newest].features}
        return self._features.get(feature.path, feature)

    def _metadata(self, first: _Piece, start: int, stop: int) -> tuple[Structure, Leaves]:
        """Returns the metadata of the episode that has the rows from `start` to before `stop`."""
        segment, place, _ = first
        if not segment.records["flags"][place] & step_log.NEW_EPISODE:
            start -= 1  # a part of an episode: the note for the row before may have come after it
        # The note for the last row may be in the segment behind it.
        for segment in reversed((*self._spent[-1:], *self._segments)):
            if _end(segment) <= start:
                break
            if segment.first_row <= stop:
                text = segment.last_note(start, stop)
                if text is not None:
                    return decode_note(text)
        return None, {}

    def _pattern(self, ids: npt.NDArray[Any]) -> Pattern:
        """Returns the pattern of rows with such structures; those of a run are few, and kept."""
        starts = [0, *(np.flatnonzero(ids[1:] != ids[:-1]) + 1).tolist()]
        stops = [*starts[1:], len(ids)]
        runs = tuple((int(ids[a]), b - a) for a, b in zip(starts, stops, strict=True))
        if runs not in self._patterns:
            if len(self._patterns) >= _MAX_PATTERNS:
                self._patterns.clear()
            structures = self._journal.structures
            self._patterns[runs] = Pattern(structures, runs, is_aligned=self._is_aligned)
        return self._patterns[runs]


def _end(segment: Segment) -> int:
    """Returns the row behind the last."""
    return segment.first_row + segment.count


def _column(feature: Feature, pieces: list[_Piece], pattern: Pattern) -> Column | Chunks:
    """Returns the rows of a leaf; images are not copied to bring them together."""
    if not pattern.lacks(feature.path) and not step_log.is_varying(feature):
        views = [s.columns[feature.path][a:b] for s, a, b in pieces if s.feature(feature.path)]
        if len(views) == len(pieces):
            return Chunks(views) if feature.is_large and len(views) > 1 else _join(views)
    present = pattern.present(feature.path)
    parts: list[Column] = []
    row = 0
    for segment, a, b in pieces:
        known = segment.feature(feature.path)
        has = present[row : row + b - a]
        row += b - a
        parts.append(feature.zeros(b - a) if known is None else segment.column(known, a, b, has))
    if feature.is_ragged:
        # A dimension may have turned out to vary after the first rows.
        return [np.asarray(item, feature.dtype) for part in parts for item in part]
    return _join([np.asarray(part) for part in parts])


def encode_note(shape: Structure, leaves: Leaves) -> bytes:
    """Returns the metadata of an episode as it lies in the step log."""
    named = [
        [list(path), json_codec.encode(array.tolist() if array.dtype == features.STRING else array)]
        for path, array in leaves.items()
    ]
    return json.dumps([structure.to_json(shape), named], separators=(",", ":")).encode()


def decode_note(text: bytes) -> tuple[Structure, Leaves]:
    """Returns the metadata that `encode_note` encoded."""
    shape, named = json.loads(text)
    leaves: Leaves = {}
    for path, value in named:
        decoded = json_codec.decode(value)
        if not isinstance(decoded, np.ndarray):  # strings, as nested lists of bytes
            decoded = np.array(decoded, object)
        leaves[tuple(path)] = decoded
    return structure.from_json(shape), leaves


def _join(parts: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
