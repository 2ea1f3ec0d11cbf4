"""``yolact-export BUNDLE --engine``."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from support.engine_graphs import write_engine_bundle
from yolact_export.commands.engine_cli import add_engine_options, engine_options, parse_size_bytes, run_engine
from yolact_export.commands.signing_cli import add_signing_options
from yolact_export.engine.options import EngineOptions
from yolact_export.errors import UsageError
from yolact_plugins.command_line import CommandParser
from yolact_runtime.errors import BundleError, SignatureError
from yolact_runtime.model.bundle_signature import verify_bundle
from yolact_runtime.terminal import Terminal


def parse(*words: str) -> argparse.Namespace:
    parser = CommandParser("tool", "A tool.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--json")
    add_engine_options(parser)
    add_signing_options(parser)
    return parser.parse_args(["b", *words])


def test_the_options_of_a_command_line() -> None:
    assert engine_options(parse("--engine"), "tensorrt") == EngineOptions()
    words = ["--target", "rtx", "--compute-capability", "8.6, 8.9", "--workspace", "2G", "--builder-level", "4"]
    assert engine_options(parse(*words, "--memory-limit", "6G"), "rtx") == EngineOptions(
        "rtx", 2 << 30, 4, ("8.6", "8.9"), memory_limit_bytes=6 << 30
    )
    compatible = engine_options(parse("--version-compatible", "--hardware-compatible"), "tensorrt")
    assert compatible == EngineOptions(version_compatible=True, hardware_compatible=True)


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("512M", 512 << 20), ("1.5g", 3 << 29), ("2GiB", 2 << 30), ("2 GB", 2 << 30), (" 64k ", 64 << 10)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size_bytes("--workspace", text) == size


@pytest.mark.parametrize("text", ["", "0", "G", "-1G", "2T", "1e9", "much"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="--memory-limit takes a size such as 512M or 2G; found "):
        parse_size_bytes("--memory-limit", text)


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    key = Ed25519PrivateKey.generate()
    private, public = tmp_path / "sign.pem", tmp_path / "verify.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def test_a_build_signs_and_a_later_one_verifies_first(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    bundle, report = write_engine_bundle(tmp_path / "b", ("fp32",)), tmp_path / "report.json"
    stream = io.StringIO()
    options = parse("--engine", "--target", "rtx", "--sign", str(private), "--json", str(report))
    options.checkpoint = bundle
    assert run_engine(options, Terminal(stream=stream)) == 0
    verify_bundle(bundle, public)
    text = stream.getvalue()
    assert "building model.fp32.rtx.plan from model.fp32.onnx" in text
    assert "next:  yolact-run" in text
    (engine,) = json.loads(report.read_text())["engines"]
    assert engine["file"] == "model.fp32.rtx.plan"
    assert engine["build"]["target"] == "rtx"
    assert {found["arithmetic"] for found in engine["convolutions"].values()} == {"Float"}

    options.verify_key, options.json = [public], None
    (bundle / "model.fp32.rtx.plan").write_bytes(b"swapped")
    with pytest.raises(BundleError, match="not the file that the manifest describes"):
        run_engine(options, Terminal(stream=stream))
    (bundle / "manifest.json").write_text((bundle / "manifest.json").read_text() + " ")
    with pytest.raises(SignatureError, match="was changed after it was signed"):
        run_engine(options, Terminal(stream=stream))
