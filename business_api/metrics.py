"""What is counted: exchanges by outcome, latencies, degradations, the spool's conservation."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from business_api.exchange import Exchange, Record

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80)


class Metrics:
    """The counters of one process, in their own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._exchanges = Counter(
            "tandem_exchanges",
            "Exchanges by how they ended",
            ["assistant", "outcome"],
            registry=self.registry,
        )
        self._degraded = Counter(
            "tandem_degraded",
            "Answers that had to do without something",
            ["degradation"],
            registry=self.registry,
        )
        self._stage = Histogram(
            "tandem_stage_seconds", "Time per stage", ["stage"], buckets=SECONDS, registry=self.registry
        )
        self._tokens = Counter("tandem_tokens", "Tokens counted by the LLM", ["kind"], registry=self.registry)

    def counted(self, record: Record, known: frozenset[str]) -> Record:
        """`record`, counting what passes. Assistants that are not `known` share one label."""

        # looking a counter up by its labels costs more than counting; there are few, and they stay
        exchanges, degraded = cache(self._exchanges.labels), cache(self._degraded.labels)
        stages, tokens = cache(self._stage.labels), cache(self._tokens.labels)

        def record_and_count(exchange: Exchange) -> None:
            record(exchange)
            name = exchange.question.assistant
            exchanges(name if name in known else "unknown", str(exchange.outcome)).inc()
            for degradation in exchange.degraded:
                degraded(str(degradation)).inc()
            for stage, ms in exchange.timings_ms.items():
                stages(stage).observe(ms / 1000)
            if exchange.usage and exchange.cached is None:
                tokens("prompt").inc(exchange.usage.prompt_tokens)
                tokens("completion").inc(exchange.usage.completion_tokens)

        return record_and_count

    async def scrape(self) -> bytes:
        """All of them in Prometheus's text format."""
        return generate_latest(self.registry)

    def watch(self, name: str, about: str, value: Callable[[], float]) -> None:
        """A gauge that is read when it is asked for."""
        Gauge(name, about, registry=self.registry).set_function(value)

    def watch_counts(
        self, name: str, about: str, label: str, counts: Callable[[], Mapping[str, float]]
    ) -> None:
        """A counter by `label`, read when it is asked for."""
        self._watch(lambda: CounterMetricFamily(name, about, labels=[label]), counts)

    def watch_levels(
        self, name: str, about: str, label: str, levels: Callable[[], Mapping[str, float]]
    ) -> None:
        """A gauge by `label`, read when it is asked for."""
        self._watch(lambda: GaugeMetricFamily(name, about, labels=[label]), levels)

    def _watch(
        self,
        new: Callable[[], CounterMetricFamily | GaugeMetricFamily],
        values: Callable[[], Mapping[str, float]],
    ) -> None:
        class Watched(Collector):
            def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
                family = new()
                for label, value in values().items():
                    family.add_metric([label], value)
                yield family

        self.registry.register(Watched())
