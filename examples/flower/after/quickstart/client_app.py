"""What a node does."""

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedaq.flower import coded
from quickstart import task

app = ClientApp(mods=[coded()])


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the received model on the node's own images."""
    config, number = message.content["config"], context.node_config["partition-id"]
    torch.manual_seed(config["seed"] * 1_000_000 + config["server-round"] * 1_000 + number)
    model = _received(message)
    loader, _ = _own_images(message, context)
    loss = task.train(model, loader, config["local-epochs"], config["learning-rate"])
    metrics = {"train-loss": loss, "num-examples": len(loader.dataset)}
    content = {"arrays": ArrayRecord(model.state_dict()), "metrics": MetricRecord(metrics)}
    return Message(RecordDict(content), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Test the received model on images that the node does not train with."""
    _, loader = _own_images(message, context)
    loss, accuracy = task.test(_received(message), loader)
    metrics = {"loss": loss, "accuracy": accuracy, "num-examples": len(loader.dataset)}
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)


def _received(message: Message) -> task.Net:
    model = task.Net()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    return model


def _own_images(message: Message, context: Context) -> tuple:
    node = context.node_config
    batch_size = message.content["config"]["batch-size"]
    return task.train_and_test(node["partition-id"], node["num-partitions"], batch_size)
