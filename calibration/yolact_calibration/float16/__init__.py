"""Float16 networks: conversion, bounds of their values, and simulation of an engine's rounding."""

__all__: list[str] = []
