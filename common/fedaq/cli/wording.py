"""How a command words what ended it."""

import sys
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec

from fedaq.errors import FedaqError, refused

EXTRAS = {
    "cryptography": "server",
    "grpc_health": "client",
    "grpc_reflection": "server",
    "jinja2": "server",
    "matplotlib": "server",
    "mlflow": "mlflow",
    "onnx": "onnx",
    "onnxscript": "onnx",
    "prometheus_client": "server",
    "safetensors": "client",
    "sklearn": "client",
    "starlette": "server",
    "uvicorn": "server",
    "tensorboard": "tensorboard",
}
# Packages that bring modules of another name.
_BRINGS = {"google": "protobuf", "grpc": "grpcio"}


def sentence_of(error: Exception) -> str:
    """Return what a person should read of an error, and what helps."""
    if isinstance(error, FedaqError):
        return str(error)
    said = refused(error) if isinstance(error, OSError) else _lacking(error) or _outdated(error)
    if said is not None:
        return said
    return f"{type(error).__name__}: {error} (this is a bug; FEDAQ_TRACEBACK=1 shows where)"


def _lacking(error: Exception) -> str | None:
    missing = error.name if isinstance(error, ModuleNotFoundError) and error.name else ""
    extra = EXTRAS.get(missing.partition(".")[0])
    if extra is None:
        return None
    return f"this command needs {missing}: pip install 'fedaq[{extra}]'"


def _outdated(error: Exception) -> str | None:
    """Name the package in which an import failed: one that is older than it has to be."""
    if type(error).__module__ == "google.protobuf.runtime_version":
        module = "google.protobuf"
    elif isinstance(error, ImportError) and error.name:
        module = error.name
    else:
        return None
    package = _BRINGS.get(root := module.partition(".")[0], root)
    needed = _requirement(package)
    if needed is None:
        return None
    return (
        f"{package} {_version(package)} in {_place(module)} does not fit: fedaq needs {needed}; "
        f"pip install --upgrade '{needed}', or take that folder off PYTHONPATH"
    )


def _requirement(package: str) -> str | None:
    for line in requires("fedaq") or ():
        requirement = line.partition(";")[0].strip()
        if requirement.rstrip("0123456789.,<>=!~ ") == package and ";" not in line:
            return requirement
    return None


def _version(package: str) -> str:
    found = sys.modules.get("google.protobuf") if package == "protobuf" else None
    try:
        return str(getattr(found, "__version__", None) or version(package))
    except PackageNotFoundError:
        return "of an unknown version"


def _place(module: str) -> str:
    parts = module.split(".")
    for length in range(min(len(parts), 2), 0, -1):
        try:
            spec = find_spec(".".join(parts[:length]))
        except (ImportError, ValueError):
            continue
        if spec is not None and spec.submodule_search_locations:
            return next(iter(spec.submodule_search_locations))
    return "sys.path"
