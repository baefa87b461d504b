"""A few evenly spread images of a split, to be predicted and shown."""

from dataclasses import dataclass

from ufo_large.data.shards import SplitReader
from ufo_large.structures import RawSample, SampleInfo


@dataclass(frozen=True, slots=True)
class ShownRows:
    """Some rows of a split, numbered 0..len-1; stands in for the reader where batches are made."""

    reader: SplitReader
    rows: tuple[int, ...]

    @classmethod
    def spread(cls, reader: SplitReader, most: int) -> "ShownRows":
        """Choose at most `most` rows, evenly spread."""
        count = min(most, len(reader))
        return cls(reader, tuple(int((i + 0.5) * len(reader) / count) for i in range(count)))

    def __len__(self) -> int:
        return len(self.rows)

    def sample(self, index: int) -> SampleInfo:
        return self.reader.sample(self.rows[index])

    def read(self, index: int) -> RawSample:
        return self.reader.read(self.rows[index])

    def shard_of(self, index: int) -> str:
        return self.reader.shard_of(self.rows[index])
