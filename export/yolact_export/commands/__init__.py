"""The command lines ``yolact-export`` and ``yolact-finetune``."""

__all__: list[str] = []
