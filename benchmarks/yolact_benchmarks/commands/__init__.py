"""The command lines ``yolact-bench`` and ``yolact-eval``."""

__all__: list[str] = []
