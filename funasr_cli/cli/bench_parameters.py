"""The options of ``funasr bench`` that are its own: names and help."""

from pathlib import Path
from typing import Annotated

import typer

from funasr_cli.benchmarks.request import SYNTHETIC_TOKENS
from funasr_cli.cli.parameters import DECODING

MODE = "What to measure"
CASES = "Cases"
RESULT = "Result"

Audio = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="AUDIO",
        help="Recordings. Default: the demo model's clips; with --rtf and other models, generated ones.",
    ),
]

# What to measure
RTF = Annotated[
    bool, typer.Option("--rtf", rich_help_panel=MODE, help="The real-time factor, each stage's time, memory.")
]
Batches = Annotated[
    bool, typer.Option("--batches", rich_help_panel=MODE, help="The throughput of several batch sizes.")
]
Drafts = Annotated[
    bool,
    typer.Option(
        "--drafts",
        rich_help_panel=MODE,
        help="What drafts save: each case with --draft off and auto in turns. Needs models with a CTC branch.",
    ),
]
Memory = Annotated[
    bool,
    typer.Option(
        "--memory",
        rich_help_panel=MODE,
        help="The memory that long recordings take, each in a process of its own.",
    ),
]

# Cases
Synthetic = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SIZE",
        rich_help_panel=CASES,
        help="A model of random weights, full (830 million parameters) or demo. Repeatable.",
    ),
]
BatchSizes = Annotated[
    str | None,
    typer.Option(
        metavar="N,N,...",
        rich_help_panel=CASES,
        help="Segments decoded side by side. Default: by the memory at hand; with --batches 1,4,16; with "
        "--drafts 1,16.",
    ),
]
Durations = Annotated[
    str | None,
    typer.Option(
        metavar="S,S,...",
        rich_help_panel=CASES,
        help="Join the recordings to these lengths, or generate them, in seconds. Default: as they are; with "
        "--memory 600,3600,10800.",
    ),
]
Recordings = Annotated[
    int | None,
    typer.Option(
        min=1,
        rich_help_panel=CASES,
        help="How many are transcribed in a run; they are repeated. Default: with --batches 32, with --drafts "
        "each once, else the largest of --batch-sizes.",
    ),
]
Trials = Annotated[
    int, typer.Option(min=1, rich_help_panel=CASES, help="Timed runs of each case, after a warm-up.")
]
ExactTokens = Annotated[
    int | None,
    typer.Option(
        rich_help_panel=DECODING,
        help=f"Write exactly so many tokens for each segment, whatever they are. "
        f"Default with --synthetic: {SYNTHETIC_TOKENS}.",
    ),
]

# Result
Refs = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        rich_help_panel=RESULT,
        help="Count errors against these texts: a file name, a tab and its text on each line.",
    ),
]
Compare = Annotated[
    Path | None,
    typer.Option(metavar="FILE", rich_help_panel=RESULT, help="Show ratios to what --json printed earlier."),
]
Plot = Annotated[
    Path | None,
    typer.Option(metavar="FILE", rich_help_panel=RESULT, help="Draw a picture: .png or .svg."),
]
JSON = Annotated[bool, typer.Option("--json", rich_help_panel=RESULT, help="Print everything measured as JSON.")]
Markdown = Annotated[bool, typer.Option("--markdown", rich_help_panel=RESULT, help="Print tables as Markdown.")]
