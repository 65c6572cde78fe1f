"""What a `/metrics` page says, as Prometheus reads it."""

from dataclasses import dataclass
from typing import Self

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


@dataclass(frozen=True, slots=True)
class Scrape:
    samples: list[Sample]

    @classmethod
    def of(cls, page: str | bytes) -> Self:
        text = page if isinstance(page, str) else page.decode()
        families = text_string_to_metric_families(text)
        return cls([sample for family in families for sample in family.samples])

    @property
    def names(self) -> set[str]:
        return {sample.name for sample in self.samples}

    def value(self, name: str, /, **labels: str) -> float:
        """The sum of all samples that have these labels; there must be one."""
        found = self.all(name, **labels)
        assert found, f"no {name} with {labels} in {sorted(self.names)}"
        return sum(sample.value for sample in found)

    def all(self, name: str, /, **labels: str) -> list[Sample]:
        return [
            sample
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
