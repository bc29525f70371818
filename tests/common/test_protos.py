"""The generated stubs are those of the contract."""

import re
import tomllib
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

from fedaq.net import grpc_options
from fedaq.v1 import federation_pb2 as pb

ROOT = Path(__file__).parents[2]


def test_the_generated_code_matches_the_contract(tmp_path: Path) -> None:
    """Whatever compiler reads the contract; ours is older than the one that is installed."""
    well_known = files("grpc_tools") / "_proto"
    code = protoc.main(
        [
            "protoc",
            f"-I{ROOT / 'protos'}",
            f"-I{well_known}",
            f"--python_out={tmp_path}",
            "fedaq/v1/federation.proto",
            "fedaq/v1/archive.proto",
            "fedaq/v1/flower.proto",
        ]
    )
    assert code == 0
    for proto in sorted((ROOT / "protos" / "fedaq" / "v1").glob("*.proto")):
        name = f"fedaq/v1/{proto.stem}_pb2.py"
        generated, ours = (
            (folder / name).read_text().partition("DESCRIPTOR = ")[2]
            for folder in (tmp_path, ROOT / "common")
        )
        assert generated == ours != "", f"{name} is not what protos/ says: run `make protos`"


def test_the_generated_code_runs_on_the_oldest_runtime_that_is_allowed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [least] = [text for text in project["dependencies"] if text.startswith("protobuf")]
    for path in sorted((ROOT / "common/fedaq/v1").glob("*_pb2.py")):
        [version] = re.findall(r"# Protobuf Python Version: (\d+\.\d+)", path.read_text())
        assert least == f"protobuf>={version}", path.name


def test_the_path_that_both_ends_use_is_that_of_the_contract() -> None:
    paths = {
        f"/{method.containing_service.full_name}/{method.name}"
        for method in pb.DESCRIPTOR.services_by_name["Federation"].methods
    }
    assert paths == {grpc_options.PATH, grpc_options.DESCRIBE_PATH}
