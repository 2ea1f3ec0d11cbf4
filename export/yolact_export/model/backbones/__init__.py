"""The backbone families, one module each; :mod:`yolact_export.model.registry` names them, and nothing else does."""

__all__: list[str] = []
