"""Float16 and INT8 networks of a bundle: conversion, judgement, and reports."""

__all__: list[str] = []
