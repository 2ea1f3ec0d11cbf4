"""The known configurations, by who published weights for them."""

from __future__ import annotations

from yolact_export.model.registry import CONFIGS

_EDGE_NAMES = ("yolact_edge", "yolact_edge_resnet50", "yolact_edge_mobilenetv2")
_OWN_NAMES = ("yolact_lite0", "yolact_lite0_im384", "yolact_small", "yolact_tiny")

YOLACT_EDGE = {name: CONFIGS[name] for name in _EDGE_NAMES}
OWN = {name: CONFIGS[name] for name in _OWN_NAMES}
PUBLISHED = {name: config for name, config in CONFIGS.items() if name not in (*_EDGE_NAMES, *_OWN_NAMES)}
