"""``fedaq client``."""

from pathlib import Path
from typing import Annotated

import typer

from fedaq.cli import completion
from fedaq.cli.options import Data, Device, JsonLogs, Quiet, Set, Task, Threads, settings_of

Server = Annotated[
    str | None,
    typer.Option(
        help="Address of the server, host:port [127.0.0.1:50051]; of several, A,B, the next where "
        "one is gone."
    ),
]
Name = Annotated[
    str | None,
    typer.Option(
        help="Identity of this client [its certificate's or token's, its part, or host name]"
    ),
]
Part = Annotated[
    str | None,
    typer.Option(help="Use part 2 of 5 of the data: 2/5. Default: all of it is this client's."),
]
PartSeed = Annotated[int | None, typer.Option(help="Decides who holds which part of the data [1]")]
Base = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="FILE",
        help="Model file that has the frozen weights, the same as the server's.",
    ),
]
Radio = Annotated[
    str | None,
    typer.Option(
        help="State this client's own radio, a preset of fedaq radio, for example "
        "lte-m. Default: what the server's settings say.",
        autocompletion=completion.radio,
    ),
]
OwnBudget = Annotated[
    str | None,
    typer.Option(
        metavar="AMOUNT",
        help="What this device may spend in the run: 2J, 20MB or 3EUR, or several. The server may "
        "give it less.",
    ),
]
OwnTariff = Annotated[
    float | None,
    typer.Option(
        metavar="MONEY", help="What a megabyte costs here. Default: what the server says."
    ),
]
TrainingPower = Annotated[
    float | None,
    typer.Option("--training-w", metavar="WATTS", help="Power that it draws while it trains."),
]
Tls = Annotated[
    Path | None,
    typer.Option(
        help="Folder with ca.crt, by which the server is known, and client.crt and "
        "client.key, if it wants them; fedaq certs makes it."
    ),
]
TokenFile = Annotated[
    Path | None, typer.Option(help="File with this client's token [environment FEDAQ_TOKEN]")
]
Insecure = Annotated[
    bool | None,
    typer.Option("--insecure", help="Speak to another machine without encryption."),
]
Config = Annotated[
    Path | None,
    typer.Option(help="A TOML file of settings; those above are in its section [client]."),
]


def client(
    server: Server = None,
    name: Name = None,
    task: Task = None,
    data: Data = None,
    partition: Part = None,
    seed: PartSeed = None,
    start_from: Base = None,
    radio: Radio = None,
    device_budget: OwnBudget = None,
    tariff: OwnTariff = None,
    training_w: TrainingPower = None,
    give_up_after: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", help="End after so long without a server. Default: try without end."
        ),
    ] = None,
    tls: Tls = None,
    token_file: TokenFile = None,
    insecure: Insecure = None,
    device: Device = None,
    threads: Threads = None,
    config: Config = None,
    json_logs: JsonLogs = False,
    quiet: Quiet = False,
    assignments: Set = None,
) -> None:
    """Train on this machine's data for a federation that a server runs.

    Example: fedaq client --server 192.168.1.10:50051 --tls kitchen --task digits --partition 1/3
    """
    from fedaq.process import logs, terminal
    from fedaq.process.memory import share_one_arena

    logs.begin(as_json=json_logs, quiet=quiet)
    share_one_arena()
    with terminal.starting():
        from fedaq_client.cli.client_process import run_client

    run_client(
        config=config,
        flags={
            "client.device_budget": device_budget,
            "client.tariff": tariff,
            "client.training_w": training_w,
        }
        | settings_of(
            server=server,
            name=name,
            partition=partition,
            radio=radio,
            give_up_after_s=give_up_after,
            task=task,
            data=data,
            seed=seed,
            start_from=start_from,
            tls=tls,
            token_file=token_file,
            insecure=insecure,
            device=device,
            threads=threads,
        ),
        assignments=assignments or [],
    )
