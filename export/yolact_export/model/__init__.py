"""The networks, written from the published description; each module is imported by its own name.

``config``, ``registry`` and ``class_names`` need no torch, so that a command can list the configurations without it.
"""

__all__: list[str] = []
