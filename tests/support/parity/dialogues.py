"""Conversations whose prompts are compared with upstream's."""

from support.parity.live import Jobs

ASKED, ANSWERED = ("user", "你好\n"), ("assistant", "\n  Hello, it's 12.")  # line ends next to the tags
PROMPTS: Jobs = [
    {"instruction": instruction, "dialogue": dialogue, "dataset_conf": {"sys_prompt": system, "do_think": think}}
    for instruction, dialogue, system, think in (
        ("Translate into English:\n", [("system", "Translate."), ASKED, ANSWERED], True, True),
        ("语音转写：", [ASKED, ANSWERED] * 4, True, True),
        (" 把语音译成英文", [("system", " 译者\n"), *([ASKED, ANSWERED] * 2)], True, False),
        ("x", [ASKED, ANSWERED] * 3, False, False),
        ("x", [("system", "Only this.")], True, True),
        ("x", [], False, True),
    )
]
