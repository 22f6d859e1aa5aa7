"""The small SenseVoice's recipe: its vocabulary, and the alignment that it is judged by."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tiktoken
from support.parity.live import OFFLINE, reference_python

from tools.demo.ctc_alignment import forced_alignment
from tools.demo.grammar import lexicon

REPOSITORY = Path(__file__).parents[2]
CLIPS = REPOSITORY / "tests/data/demo/clean"

# Two steps of the whole recipe on shards of eight clips, without a synthesiser. Prints what FunASR reads at the
# end.
RECIPE = """
import json, sys
from pathlib import Path
import numpy as np, soundfile, torch
from tools.demo import data, sense_evaluate, sense_train
from tools.demo.features import filter_bank
from tools.demo.grammar import Sentence

if __name__ == "__main__":
    clips, work = Path(sys.argv[1]), Path(sys.argv[2])
    rows = [json.loads(line) for line in (clips / "clips.jsonl").read_text(encoding="utf-8").splitlines()]
    (work / "state/shards").mkdir(parents=True)
    for shard in range(2):
        made = []
        for row in rows[8 * shard : 8 * shard + 8]:
            sentence = Sentence(*(row[key] for key in ("language", "domain", "spoken", "written")))
            frames = filter_bank(soundfile.read(clips / row["file"], dtype="float32")[0])
            made.append(data.Clip(sentence, row["voice"], frames.astype(np.float16)))
        data.write_shard(data.shard_path(work / "state/shards", shard), made)
    plan = sense_train.SensePlan(work / "state", work / "out", steps=int(sys.argv[3]), shards=2, threads=1)
    sense_train.train(plan)
    stored = torch.load(work / "out/model.pt", weights_only=True)
    auto = sense_evaluate.load(work / "out")
    loaded = auto.model.state_dict()
    samples = [soundfile.read(clips / rows[0]["file"], dtype="float32")[0]]
    print(json.dumps({
        "same": stored.keys() == loaded.keys()
        and all(torch.equal(stored[name].float(), loaded[name]) for name in stored),
        "queries": list(stored["embed.weight"].shape),
        "step": torch.load(work / "state/checkpoint.pt", weights_only=True)["step"],
        "texts": sense_evaluate.transcribe(auto, samples, ["auto"], itn=False),
    }))
"""


def brute_force(log_probs: np.ndarray, labels: list[int], blank: int) -> list[int]:
    """Return the labels' first frames on the best of all paths that spell the labels."""
    best, found = -np.inf, []
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        firsts = [
            frame
            for frame, label in enumerate(path)
            if label != blank and (frame == 0 or path[frame - 1] != label)
        ]
        score = sum(log_probs[frame, label] for frame, label in enumerate(path))
        if [path[frame] for frame in firsts] == labels and score > best:
            best, found = score, firsts
    return found


@pytest.mark.parametrize("labels", [[1], [1, 2], [1, 1], [2, 1, 2], [1, 1, 2]])
def test_alignment_is_the_best_path(labels: list[int]) -> None:
    rng = np.random.default_rng(len(labels))
    for _ in range(20):
        log_probs = np.log(rng.dirichlet(np.ones(3), size=6))
        assert forced_alignment(log_probs, labels, 0) == brute_force(log_probs, labels, 0)
        swapped = forced_alignment(log_probs[:, [1, 2, 0]], [label - 1 for label in labels], 2)
        assert swapped == brute_force(log_probs, labels, 0), "the blank may also be the last label"


def test_each_word_is_one_piece_and_tags_are_whole() -> None:
    pytest.importorskip("google.protobuf")
    from tools.demo import sense_vocabulary

    pieces = sense_vocabulary.load_pieces(sense_vocabulary.build_pieces())
    for language, word, opens in lexicon():
        spellings = list(word) if language == "zh" else [f" {word}", f" {word.lower()}"]
        if language == "en" and opens:
            spellings += [word.lower(), word[0].upper() + word[1:]]
        for spelling in spellings:
            assert len(pieces.encode(spelling)) == 1, spelling
    assert pieces.id_to_piece(sense_vocabulary.SPACE_ID) == sense_vocabulary.SPACE
    assert [pieces.id_to_piece(index) for index in range(3)] == ["<unk>", "<s>", "</s>"]
    written = "<|en|><|NEUTRAL|><|Speech|><|withitn|>The meeting starts at 3:20 pm."
    ids = pieces.encode(written)
    assert pieces.decode(ids) == written
    assert ids[:4] == sense_vocabulary.tag_ids(pieces, "en", itn=True)
    assert pieces.unk_id() not in ids


def test_labels_of_the_demo_model_become_pieces() -> None:
    pytest.importorskip("google.protobuf")
    from tools.demo import sense_vocabulary

    pieces = sense_vocabulary.load_pieces(sense_vocabulary.build_pieces())
    tokens = [b"\xe6", b" the", b"the", "六".encode(), "六".encode()[:2]]
    ranks = tiktoken.Encoding(
        "few",
        pat_str=r"\S+",
        mergeable_ranks={token: rank for rank, token in enumerate(tokens)},
        special_tokens={},
    )
    found = sense_vocabulary.pieces_of_ranks(pieces, ranks)
    none = sense_vocabulary.NO_TEACHER
    spoken = [pieces.piece_to_id(piece) for piece in ("▁the", "the", "六")]
    assert found == [none, *spoken, none, sense_vocabulary.BLANK]


@pytest.mark.slow
@pytest.mark.process
def test_the_recipe_writes_what_funasr_loads(tmp_path: Path) -> None:
    """After two training steps, every tensor of the checkpoint is loaded with its value."""
    script = tmp_path / "recipe.py"
    script.write_text(RECIPE, encoding="utf-8")
    environment = os.environ | OFFLINE | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [reference_python(), script, CLIPS, tmp_path / "work", "2"], env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["same"]
    assert found["queries"] == [16, 560]
    assert found["step"] == 2
    assert len(found["texts"]) == 1
