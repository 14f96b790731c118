"""Train the embedded vision-language model and save its weights: python jobs/train_nano.py --help."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from carl.cli import bars

app = typer.Typer(add_completion=False, context_settings={"help_option_names": ["-h", "--help"]})


@app.command()
def main(
    directory: Annotated[Path, typer.Option("--dir", help="Run directory; run again to continue.")] = Path("runs/nano"),
    steps: Annotated[int, typer.Option(help="Updates; 2,700 take about an hour on two cores.")] = 2_700,
    batch: Annotated[int, typer.Option(help="Scenes per update; 128 suits a GPU.")] = 16,
    rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 2e-3,
    seed: Annotated[int, typer.Option(help="Of weights and scenes.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; none: cuda if there is one.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the trained model; none: DIR/model.")] = None,
) -> None:
    """Train, save the model, and print exact-match accuracy on held-out scenes as one JSON line.

    The package ships what lies in carl/nano/weights.
    """
    import torch

    from carl.nano.train import Recipe, Trainer

    torch.set_num_threads(threads)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    recipe = Recipe(steps=steps, batch=batch, rate=rate, seed=seed, device=device)
    trainer = Trainer(recipe, directory)
    with (directory / "log.jsonl").open("a") as log_file:

        def log(entry: dict[str, Any]) -> None:
            log_file.write(json.dumps(entry) + "\n")
            log_file.flush()

        with bars() as progress:
            trainer.run(progress, log)
    trainer.export(out or directory / "model")
    typer.echo(json.dumps({"steps": trainer.step, "seconds": trainer.seconds, "exact_match": trainer.accuracy()}))


if __name__ == "__main__":
    app()
