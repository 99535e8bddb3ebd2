"""The energy that the processors of a machine use, where the system lets it be read."""

from collections.abc import Iterator
from pathlib import Path

RAPL = Path("/sys/class/powercap")  # counters of whole processors, in microjoules, which begin anew at their range


class Meter:
    """Counts the joules of all processors since it was made; they serve whatever else the machine does, too."""

    def __init__(self, folder: Path = RAPL) -> None:
        self.folder = folder
        self.last = dict(self._read())
        self.microjoules = 0

    @property
    def joules(self) -> float | None:
        """So far; None where nothing can be read."""
        self.read()
        return round(self.microjoules / 1e6, 1) if self.last else None

    def read(self) -> None:
        """Look at the counters, which must be done before one has gone round: after half an hour or so."""
        for zone, value in self._read():
            if zone in self.last:
                self.microjoules += (value - self.last[zone]) % self._range(zone)
            self.last[zone] = value

    def _read(self) -> Iterator[tuple[Path, int]]:
        for zone in sorted(self.folder.glob("intel-rapl:[0-9]*")):
            if zone.name.count(":") == 1:  # parts of a processor are counted with it
                try:
                    yield zone, int((zone / "energy_uj").read_text())
                except (OSError, ValueError):  # since 2020 only root may read it, on most systems
                    continue

    @staticmethod
    def _range(zone: Path) -> int:
        try:
            return int((zone / "max_energy_range_uj").read_text()) + 1
        except (OSError, ValueError):
            return 2**63
