"""Where a benchmark reads and writes."""

from dataclasses import dataclass
from pathlib import Path

from semiseg.data.protocol import Protocol, official_splits
from semiseg.data.splits import Splits, load_frozen, load_or_freeze
from semiseg.data.store import Dataset


@dataclass(frozen=True)
class Places:
    """The folders of results, data and splits, and one of further methods."""

    results: Path
    data: Path
    splits: Path
    methods_dir: Path | None = None

    def absolute(self) -> "Places":
        """The same folders for a process that works elsewhere."""
        methods_dir = self.methods_dir and self.methods_dir.resolve()
        return Places(self.results.resolve(), self.data.resolve(), self.splits.resolve(), methods_dir)

    def dataset(self, name: str) -> Dataset:
        """A prepared data set by name."""
        return Dataset(self.data / f"{name}.h5")

    def frozen_splits(self, dataset: Dataset, repeats: int = 1, write: bool = True) -> Splits:
        """The frozen splits of a data set, with at least so many repeats; the first use freezes them."""
        return load_or_freeze(self.splits_file(dataset.info.name), dataset, repeats, write)

    def splits_of(self, dataset: Dataset, protocol: Protocol | None, repeats: int = 1, write: bool = True) -> Splits:
        """The official split that a protocol names, or else the frozen ones."""
        return official_splits(dataset, protocol) if protocol else self.frozen_splits(dataset, repeats, write)

    def known_splits(self, dataset: Dataset, protocol: Protocol | None = None) -> Splits | None:
        """The same, without freezing any; what is frozen of a data set may be nothing."""
        if protocol:
            return official_splits(dataset, protocol)
        return load_frozen(self.splits_file(dataset.info.name), dataset)

    def splits_file(self, name: str) -> Path:
        """Where the splits of a data set are frozen."""
        return self.splits / f"{name}.json"
