"""The option ``yolact-run --self-test``: one exit status, and the result as text or JSON."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping

from yolact_runtime.errors import BackendError, BundleError, ManifestError, SelfTestError, SignatureError, YolactError
from yolact_runtime.segmenter import Segmenter
from yolact_runtime.segmenter_options import SegmenterOptions
from yolact_runtime.self_test import SelfTest
from yolact_runtime.terminal import show_results, write_json

__all__ = ["check_model", "open_model", "show_result"]


def open_model(options: argparse.Namespace, segmenter_options: SegmenterOptions) -> Segmenter:
    """Open the model of ``yolact-run``.

    Raises:
        SelfTestError: The model cannot be opened with ``--self-test``; an engine of another machine, exhausted GPU
            memory and an invalid signature keep their own statuses.
        YolactError: The same as for :meth:`yolact_runtime.Segmenter.open`, without the option.
    """
    try:
        return Segmenter.open(
            options.model,
            options.backend,
            segmenter_options,
            options.precision,
            verify_key=options.verify_key,
            trust_engine=options.trust_engine,
        )
    except (BackendError, BundleError, ManifestError) as error:
        # Trust is not a matter of the self-test.
        if options.self_test and error.exit_status == 1 and not isinstance(error, SignatureError):
            raise _record_failure(error, options) from error
        raise


def check_model(segmenter: Segmenter, options: argparse.Namespace) -> SelfTest:
    """Run the self-test.

    Raises:
        SelfTestError: The self-test failed, or cannot be run.
    """
    try:
        return segmenter.self_test()
    except (BackendError, BundleError, SelfTestError) as error:
        raise _record_failure(error, options) from error


def show_result(tested: SelfTest, options: argparse.Namespace, signature: Mapping[str, str]) -> None:
    """Write the result of a self-test without inputs to stdout, or to the destination of ``--json``."""
    if options.json:
        document = {"model": str(options.model), **signature, "self_test": dataclasses.asdict(tested)}
        write_json(document, options.json)
    else:
        show_results([str(tested)])


def _record_failure(error: YolactError, options: argparse.Namespace) -> SelfTestError:
    """Write the reason to the destination of ``--json``, and return the error to end with."""
    if options.json:
        write_json({"model": str(options.model), "self_test": None, "error": str(error)}, options.json)
    return error if isinstance(error, SelfTestError) else SelfTestError(f"the self-test cannot be run: {error}")
