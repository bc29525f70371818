"""What the server does."""

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from quickstart import task

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train by federated averaging, and test each model on images that no node has."""
    settings = context.run_config
    torch.manual_seed(settings["seed"])
    names = "learning-rate", "local-epochs", "batch-size", "seed"
    config = {name: settings[name] for name in names}
    strategy = FedAvg(fraction_evaluate=settings["fraction-evaluate"])
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(task.Net().state_dict()),
        num_rounds=settings["num-server-rounds"],
        train_config=ConfigRecord(dict(config)),
        evaluate_config=ConfigRecord(dict(config)),
        evaluate_fn=evaluate,
    )


def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
    """Test a model."""
    model = task.Net()
    model.load_state_dict(arrays.to_torch_state_dict())
    loss, accuracy = task.test(model, task.common_test())
    return MetricRecord({"loss": loss, "accuracy": accuracy})
