"""The families of backbones, and the configurations of whole models that they bring.

No family is imported before it is needed, so that a command can list the configurations without torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from yolact_export.errors import ConfigError
from yolact_export.model.config import BackboneConfig, YolactConfig

if TYPE_CHECKING:
    from yolact_export.model.backbone import Backbone, BackboneFamily

__all__ = ["CONFIGS", "FAMILIES", "families", "family_of", "family_of_module", "find_config"]

_RESNETS = "yolact_resnet50 yolact_base yolact_im400 yolact_im700 yolact_resnet50_pascal yolact_plus_resnet50"
_ROOM = "yolact_export.model.backbones"
FAMILIES: dict[str, str] = {
    f"{_ROOM}.resnet": f"{_RESNETS} yolact_plus_base yolact_edge yolact_edge_resnet50",
    f"{_ROOM}.darknet": "yolact_darknet53",
    f"{_ROOM}.mobilenet": "yolact_edge_mobilenetv2",
    f"{_ROOM}.efficientnet_lite": "yolact_lite0 yolact_lite0_im384",
    f"{_ROOM}.small_resnet": "yolact_small yolact_tiny",
}
"""Module of each family -> names of its configurations. The module has the family as ``FAMILY``."""


def families() -> tuple[BackboneFamily[Any, Any], ...]:
    """Return all families; torch is imported."""
    return tuple(map(_family, FAMILIES))


def family_of(config: BackboneConfig) -> BackboneFamily[Any, Any]:
    """Return the family of a configuration.

    Raises:
        ConfigError: It is of no family here.
    """
    found = next((family for family in families() if type(config) is family.config_type), None)
    if found is None:
        raise ConfigError(f"a {type(config).__name__} belongs to no family of backbones; there are: {_names()}")
    return found


def family_of_module(backbone: Backbone) -> BackboneFamily[Any, Any]:
    """Return the family of a network.

    Raises:
        ConfigError: It is of no family here.
    """
    found = next((family for family in families() if isinstance(backbone, family.module_type)), None)
    if found is None:
        raise ConfigError(f"a {type(backbone).__name__} belongs to no family of backbones; there are: {_names()}")
    return found


def _names() -> str:
    return ", ".join(family.name for family in families())


def _family(module: str) -> BackboneFamily[Any, Any]:
    try:
        family: BackboneFamily[Any, Any] = importlib.import_module(module).FAMILY
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ConfigError(f"{module} is registered as a family of backbones, and there is no such module") from error
    except AttributeError as error:
        raise ConfigError(f"{module} is registered as a family of backbones, and has no FAMILY") from error
    elsewhere = {name: other for other, listed in FAMILIES.items() for name in listed.split() if other != module}
    if twice := elsewhere.keys() & FAMILIES[module].split():
        name = min(twice)
        raise ConfigError(f'{module} and {elsewhere[name]} both have a configuration called "{name}"; rename one')
    names = [config.name for config in family.configs]
    if names != FAMILIES[module].split():
        raise ConfigError(f"{module} has the configurations {names}, and is registered with {FAMILIES[module]}")
    return family


class _Configs(Mapping[str, YolactConfig]):
    """Every known configuration by name. Names are there without torch; a configuration imports its family."""

    def __getitem__(self, name: str) -> YolactConfig:
        for module, names in FAMILIES.items():
            if name in names.split():
                return next(config for config in _family(module).configs if config.name == name)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        for names in FAMILIES.values():
            yield from names.split()

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return name in list(iter(self))


CONFIGS: Mapping[str, YolactConfig] = _Configs()
"""Every known configuration by name: the published ones, and those of this project for weak hardware."""


def find_config(name: str) -> YolactConfig:
    """Return the configuration called `name`.

    Raises:
        ConfigError: There is none of that name; the message lists those there are.
    """
    try:
        return CONFIGS[name]
    except KeyError:
        raise ConfigError(f'no configuration is called "{name}"; there are: {", ".join(CONFIGS)}') from None
