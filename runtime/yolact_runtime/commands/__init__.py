"""``yolact-run``: what its command line asks for, done."""

__all__: list[str] = []
