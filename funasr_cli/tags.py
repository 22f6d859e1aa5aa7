"""Emotions and sounds that models hear beside the words, under names that are the same for all models.

Source of the emoji: FunASR ``funasr/utils/postprocess_utils.py`` (``emoji_dict``).
"""

EMOTIONS = {  # by name: the emoji, behind the text
    "happy": "😊", "sad": "😔", "angry": "😡", "neutral": "", "fearful": "😰", "disgusted": "🤢",
    "surprised": "😮", "other-emotion": "",
}  # fmt: skip
SOUNDS = {  # by name: the emoji, in front of the text
    "speech": "", "music": "🎼", "applause": "👏", "laughter": "😀", "crying": "😭", "sneeze": "🤧", "breath": "",
    "cough": "🤧", "singing": "", "noise": "",
}  # fmt: skip
