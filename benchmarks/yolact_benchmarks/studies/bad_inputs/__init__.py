"""What the commands do with bad inputs, kind by kind: ``python -m yolact_benchmarks.studies.bad_inputs``."""

__all__: list[str] = []
