"""Everything that only a GPU can tell, in stages that are short enough for a machine that is lent for minutes.

``python -m yolact_benchmarks.studies.gpu pack`` prepares what travels to a machine without a network;
``python3 -B benchmarks/yolact_benchmarks/studies/gpu run first`` (and ``second``) runs there, in a checkout where
nothing is installed, with any Python that has NumPy, cuda-bindings, torch and pytest. ``docs/gpu.md`` tells the order
of a day.

| module | what |
| --- | --- |
| `stages` | the stages, their limits and commands |
| `day` | runs stages one after another, and judges how they ended |
| `stage_process` | a stage as a process group that ends at its limit |
| `record` | the rows that stages write, and the record made of them |
| `stage_options` | what every stage is told: where rows go, the scale, which driver |
| `facts`, `frames`, `network`, `growth`, `rtx`, `one_frame` | stages, a program each |
| `torch_network` | the project's own model as a network on the GPU |
| `pack`, `parts` | what travels, and how large it is |
"""

__all__: list[str] = []
