"""From MNIST to a served prediction, with this project's own packages.

python examples/digits.py [--output runs/digits] [--save digits.png]
"""

from pathlib import Path

import click
from litestar.testing import TestClient
from matplotlib.figure import Figure

import export
from serving.api.app import create_app
from serving.settings import Settings
from training.config import TrainConfig
from training.data.digits import load
from training.loop.train import train
from training.networks import build, parameter_count


@click.command()
@click.option("--output", default="runs/digits", show_default=True, type=click.Path(path_type=Path), help="Run folder.")
@click.option("--save", type=click.Path(path_type=Path), help="Draw ten digits and their predictions to this file.")
def main(output: Path, save: Path | None) -> None:
    """Train the tutorial's network, test, save, export and serve it."""
    # Data: uint8 [N, 28, 28], all in memory. Use the validation set to choose settings, never the test set.
    splits = load("mnist", validation=5000)
    click.echo(f"data: {len(splits.train)} + {len(splits.validation)} + {len(splits.test)} images")

    # Network: 784-28-10. The config holds its name and every other setting of the run.
    config = TrainConfig.of(model="mlp", optimizer="adam", epochs=5)
    click.echo(f"network: {config.model}, {parameter_count(build(config.model)):,} parameters")

    # Train, test and save: the run folder holds weights, curves and results. resume=True continues the run in it.
    result = train(config, splits, output, resume=True)
    click.echo(f"test: {result.correct} of {len(splits.test)} correct, saved in {output}")

    # Export: published only if ONNX and TorchScript give the network's prediction for every test image.
    bundle = export.publish(output, output / "models", progress=False)
    click.echo(f"exported: {bundle.folder}")

    # Serve: the real application handles a request in this process. The graph scales the raw pixels itself.
    digits = splits.test.images[:10].numpy()
    raw = {"content-type": "application/octet-stream"}
    with TestClient(create_app(Settings(repository=output / "models")), base_url="http://127.0.0.1") as client:
        predictions = client.post("/predict", content=digits.tobytes(), headers=raw).json()["predictions"]
    click.echo(f"served: {[p['digit'] for p in predictions]}, true labels: {splits.test.labels[:10].tolist()}")
    if save:
        figure = Figure(figsize=(10, 1.5), dpi=80, layout="constrained")
        for axes, digit, prediction in zip(figure.subplots(1, 10), digits, predictions, strict=True):
            axes.imshow(digit, cmap="Greys")
            axes.set(title=f"{prediction['digit']}: {prediction['confidence']:.0%}", xticks=[], yticks=[])
        save.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(save)


if __name__ == "__main__":
    main()
