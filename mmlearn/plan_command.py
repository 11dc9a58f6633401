"""``mmlearn plan``: what a training will cost."""

from dataclasses import asdict
from typing import Annotated

import typer

from mmlearn.console import Json, say, show
from mmlearn.escaping import in_json

MOST = 10**9  # of what is counted: beyond that numbers overflow


def plan(
    system: Annotated[str, typer.Argument(help="Such as clip; a wrong name is answered with all. Or a file of yours.")],
    pairs: Annotated[float, typer.Option(help="Samples in the data set, such as 400e6.")] = 1e6,
    batch_size: Annotated[int, typer.Option(max=MOST, help="Samples in a batch, over all devices.")] = 1024,
    device: Annotated[str, typer.Option(help="Such as h100; a wrong name is answered with all.")] = "h100",
    devices: Annotated[int, typer.Option(max=MOST, help="How many.")] = 1,
    preset: Annotated[str, typer.Option(help="tiny, or a published name.")] = "tiny",
    epochs: Annotated[float, typer.Option(help="How often each sample is read.")] = 1,
    precision: Annotated[str, typer.Option(help="no (float32), bf16 or fp16.")] = "bf16",
    optimizer: Annotated[str, typer.Option(help="muon or adamw.")] = "adamw",
    stage: Annotated[str | None, typer.Option(help="Of a system that is trained in several; the first.")] = None,
    text_length: Annotated[int, typer.Option(min=1, max=MOST, help="Tokens of a text with its padding.")] = 77,
    utilisation: Annotated[float, typer.Option(help="Share of the FLOP/s of the data sheet that is reached.")] = 0.4,
    chunk: Annotated[int, typer.Option(max=MOST, help="Samples that towers read at a time.")] = 1024,
    pack: Annotated[int | None, typer.Option(min=1, max=MOST, help="Tokens of a row that several texts share.")] = None,
    setting: Annotated[list[str] | None, typer.Option("--set", help="Of the preset, such as lora_rank=8.")] = None,
    as_json: Json = False,
) -> None:
    """Print what a training will cost, before anything is paid for: FLOPs, memory, hours, bytes. Nothing is trained.

    Example: mmlearn plan clip --preset ViT-B/16 --pairs 400e6 --batch-size 32768 --devices 8 --device h100
    """
    from mmlearn.recipes.discovery import find_recipe
    from mmlearn.training.counting import count
    from mmlearn.training.plan import GIB, card_for
    from mmlearn.training.plan import plan as make
    from mmlearn.training.settings import read_settings, with_settings

    card, recipe = card_for(device, precision), find_recipe(system)  # before counting takes time
    how = dict(precision=precision, optimizer=optimizer, stage=stage, text_length=text_length)
    config = with_settings(recipe.config.preset(preset), read_settings(setting or []), system)
    counted = count(recipe, config, batch_size, pack=pack, devices=devices, chunk=chunk, **how)
    made = make(counted, samples=pairs * epochs, device=device, utilisation=utilisation)
    if as_json:
        print(in_json(asdict(made)))
        return
    kind = "float32" if precision == "no" else precision
    batches = f"{pairs * epochs:,.0f} samples in batches of {batch_size:,}"
    say(f"{system} {preset}, {batches}, on {devices} × {device} ({card.gib:g} GiB each) in {kind}, {optimizer}")
    print(f"""\
parameters               {made.parameters:,}, {made.trained:,} of them trained
FLOPs of a step          {made.flops:.3g}
steps                    {made.steps:,}
{f"hours at {utilisation:.0%} of peak":24} {made.hours:,.1f}
device hours             {made.device_hours:,.0f}
samples a second         {made.samples_per_second:,.0f}
to load                  {made.bytes_per_second / 1e6:,.0f} MB a second, as a batch holds it

GiB on each device""")
    names = {way: way for way in made.memory} | {"in chunks": f"in chunks of {min(chunk, batch_size // devices):,}"}
    rows = [
        {"training": names[way], **{name: f"{x / GIB:.2f}" for name, x in held.items()}}
        | {"fits": "yes" if way in made.fits else "no"}
        for way, held in made.memory.items()
    ]
    show(rows, False)
