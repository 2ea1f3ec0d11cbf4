"""Everything that only a GPU can measure, in stages that fit a machine that is available for minutes.

``python -m yolact_benchmarks.studies.gpu pack`` packs the files for a machine without a network; ``python3 -B
benchmarks/yolact_benchmarks/studies/gpu run first`` (and ``second``) runs there, in a checkout without installed
packages, with any Python that has NumPy, cuda-bindings, torch and pytest. ``docs/gpu.md`` describes the procedure.

| module | content |
| --- | --- |
| `stages` | the stages, their limits and commands |
| `day` | the execution of stages one after another, and their outcomes |
| `stage_process` | a stage as a process group that is killed at its limit |
| `record` | the rows that stages write, and the record assembled from them |
| `stage_options` | options of every stage: where rows go, the scale, which driver |
| `facts`, `frames`, `network`, `growth`, `rtx`, `one_frame` | the stages, a program each |
| `torch_network` | the project's own model as a network on the GPU |
| `pack`, `parts` | the files for the other machine, and their size |
"""

__all__: list[str] = []
