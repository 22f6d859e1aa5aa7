"""`python -m tools.demo train --state DIR`, then `evaluate`, `export`, `clips`; or `sense`, `sense-evaluate`."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

# Waiting threads must not spin: next to a busy process, training would almost stop. torch reads this when it
# loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def main() -> None:
    """Parse the command line and run the command."""
    from . import evaluate, train

    parser = argparse.ArgumentParser(prog="python -m tools.demo", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    trainer = commands.add_parser("train", help="train, or go on from the checkpoint in the folder")
    for field in fields(train.Plan):
        if field.name != "state":
            option = f"--{field.name.replace('_', '-')}"
            trainer.add_argument(option, type=type(field.default), default=field.default)
    evaluator = commands.add_parser("evaluate", help="print error rates on held-out voices and sentences")
    exporter = commands.add_parser("export", help="write the averaged weights as an upstream checkpoint")
    exporter.add_argument("--out", type=Path, required=True, help="folder of the checkpoint")
    for command in (trainer, evaluator, exporter):
        command.add_argument("--state", type=Path, required=True, help="folder of data, checkpoint and log")
    clips = commands.add_parser("clips", help="write held-out clips as WAV files, their texts and word starts")
    clips.add_argument("--out", type=Path, required=True, help="folder of the clips")
    clips.add_argument(
        "--training", action="store_true", help="voices and sentences of the training instead, to set constants by"
    )
    for command in (evaluator, clips):
        command.add_argument("--clips", type=int, default=1000, help="how many clips")
        command.add_argument("--snr", type=float, help="signal-to-noise ratio in dB; clean without it")
        command.add_argument("--seed", type=int, default=1, help="which clips")
    add_sense(commands)
    arguments = vars(parser.parse_args())
    command = arguments.pop("command")
    if command == "train":
        train.train(train.Plan(**arguments))
    elif command == "evaluate":
        print(json.dumps(train.evaluate_state(**arguments), indent=2))
    elif command == "export":
        train.export_state(**arguments)
    elif command == "sense":
        from . import sense_train

        sense_train.train(sense_train.SensePlan(**arguments))
    elif command == "sense-evaluate":
        from . import sense_evaluate

        print(json.dumps(sense_evaluate.evaluate(**arguments), indent=2))
    else:
        evaluate.write_clips(**arguments)


def add_sense(commands: Any) -> None:
    """Add the commands of the small SenseVoice."""
    from .sense_train import SensePlan

    sense = commands.add_parser("sense", help="train a small SenseVoice from the demo model, in half an hour")
    for field in fields(SensePlan):
        option = f"--{field.name.replace('_', '-')}"
        if field.name in ("state", "out"):
            sense.add_argument(option, type=Path, required=True, help=f"see {SensePlan.__name__}")
        else:
            sense.add_argument(option, type=type(field.default), default=field.default)
    measure = commands.add_parser("sense-evaluate", help="error rates and word starts of a small SenseVoice")
    measure.add_argument("--model", type=Path, required=True, help="folder of the checkpoint")
    measure.add_argument("--clips", type=Path, required=True, help="folder that `clips` wrote")
    measure.add_argument("--texts", type=Path, help="file for what was read, as JSON")


if __name__ == "__main__":
    main()
