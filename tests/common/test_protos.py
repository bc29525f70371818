"""The generated stubs are those of the contract."""

from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

from fedaq.net import grpc_options
from fedaq.v1 import federation_pb2 as pb

ROOT = Path(__file__).parents[2]


def test_the_generated_stubs_match_the_contract(tmp_path: Path) -> None:
    well_known = files("grpc_tools") / "_proto"
    code = protoc.main(
        [
            "protoc",
            f"-I{ROOT / 'protos'}",
            f"-I{well_known}",
            f"--python_out={tmp_path}",
            f"--pyi_out={tmp_path}",
            "fedaq/v1/federation.proto",
            "fedaq/v1/archive.proto",
        ]
    )
    assert code == 0
    for checked_in in sorted((ROOT / "common" / "fedaq" / "v1").glob("*_pb2.py*")):
        name = checked_in.name
        assert (tmp_path / "fedaq" / "v1" / name).read_text() == checked_in.read_text(), (
            f"{name} is not what protos/ says: run `make protos`"
        )


def test_the_path_that_both_ends_use_is_that_of_the_contract() -> None:
    paths = {
        f"/{method.containing_service.full_name}/{method.name}"
        for method in pb.DESCRIPTOR.services_by_name["Federation"].methods
    }
    assert paths == {grpc_options.PATH, grpc_options.DESCRIBE_PATH}
