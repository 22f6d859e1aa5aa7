"""The grammar's number slots. Each draws a pair: in words as spoken, in digits as written."""

from __future__ import annotations

import random

EN_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
EN_TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()
EN_ORDINALS = (
    "_ first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
    "fifteenth sixteenth seventeenth eighteenth nineteenth twentieth"
).split()
ZH_DIGITS = "零一二三四五六七八九"
ENGLISH_NUMBER_WORDS = [
    *EN_ONES,
    *EN_TENS[2:],
    *EN_ORDINALS[1:],
    "thirtieth",
    "hundred",
    "thousand",
    "oh",
    "sharp",
]
ENGLISH_NUMBER_WORDS += "a p m am pm st nd rd th".split()
MANDARIN_NUMBER_WORDS = [*ZH_DIGITS, *"十百千两点半月号年", "上午", "下午", "晚上", "早上"]
MINUTES = (0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55)


def english_number(n: int) -> str:
    """Return 0 to 9,999 in words."""
    if n < 20:
        return EN_ONES[n]
    if n < 100:
        return EN_TENS[n // 10] + (f" {EN_ONES[n % 10]}" if n % 10 else "")
    size, name = (1000, "thousand") if n >= 1000 else (100, "hundred")
    rest = n % size
    return f"{english_number(n // size)} {name}" + (f" {english_number(rest)}" if rest else "")


def english_ordinal(n: int) -> tuple[str, str]:
    """Return 1 to 31 as an ordinal: ("twenty first", "21st")."""
    suffix = "th" if 10 < n < 20 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    tens, ones = divmod(n, 10)
    words = EN_ORDINALS[n] if n <= 20 else "thirtieth" if n == 30 else f"{EN_TENS[tens]} {EN_ORDINALS[ones]}"
    return words, f"{n}{suffix}"


def mandarin_number(n: int) -> str:
    """Return 0 to 9,999 in characters, with a space between words (digit and unit)."""
    if n < 10:
        return ZH_DIGITS[n]
    if n < 20:
        return "十" + (f" {ZH_DIGITS[n % 10]}" if n % 10 else "")
    for size, name in ((1000, "千"), (100, "百"), (10, "十")):
        if n >= size:
            rest = n % size
            gap = " 零 " if rest and rest < size // 10 else " "
            tail = ("一 " if 10 <= rest < 20 else "") + mandarin_number(rest) if rest else ""
            return f"{ZH_DIGITS[n // size]} {name}{gap if rest else ''}{tail}"
    raise ValueError(n)


def _draw_value(name: str, rng: random.Random) -> int:
    if name == "NUMBER":
        return rng.randrange(rng.choice((20, 100, 1000, 10_000)))
    if name == "HOUR":
        return rng.randrange(1, 13)
    return rng.randrange(2, rng.choice((13, 32, 100)))  # SMALL


def _english_time(rng: random.Random) -> tuple[str, str]:
    hour, minute = rng.randrange(1, 13), rng.choice(MINUTES)
    spoken_half, written_half = rng.choice((("", ""), (" a m", " am"), (" p m", " pm")))
    if minute == 0:
        return f"{EN_ONES[hour]}{spoken_half or ' sharp'}", f"{hour}:00{written_half or ' sharp'}"
    words = english_number(minute) if minute >= 10 else f"oh {EN_ONES[minute]}"
    return f"{EN_ONES[hour]} {words}{spoken_half}", f"{hour}:{minute:02d}{written_half}"


def _mandarin_hour(hour: int) -> str:
    return "两" if hour == 2 else mandarin_number(hour)


def _mandarin_time(rng: random.Random) -> tuple[str, str]:
    hour, minute = rng.randrange(1, 13), rng.choice(MINUTES)
    part = rng.choice(("", "", "上午 ", "下午 ", "晚上 ", "早上 "))
    spoken, written = f"{part}{_mandarin_hour(hour)} 点", f"{part}{hour} 点"
    if minute == 0:
        return spoken, written
    if minute == 30 and rng.random() < 0.5:
        return f"{spoken} 半", f"{written} 半"
    return f"{spoken} {'零 ' if minute < 10 else ''}{mandarin_number(minute)}", f"{written} {minute:02d}"


def _year(rng: random.Random) -> int:
    return rng.choice((rng.randrange(1910, 2000), rng.randrange(2010, 2030)))


def english_slot(name: str, rng: random.Random, length: tuple[int, int]) -> tuple[str, str]:
    """Draw (spoken, written) for an English number slot; `length` bounds the digits of DIGITS."""
    if name == "DIGITS":
        digits = [rng.randrange(10) for _ in range(rng.randint(*length))]
        return " ".join(EN_ONES[d] for d in digits), "".join(map(str, digits))
    if name == "TIME":
        return _english_time(rng)
    if name == "ORDINAL":
        return english_ordinal(rng.randrange(1, 32))
    if name == "YEAR":
        year = _year(rng)
        low = english_number(year % 100) if year % 100 >= 10 else f"oh {EN_ONES[year % 100]}"
        return f"{english_number(year // 100)} {low}", str(year)
    value = _draw_value(name, rng)
    return english_number(value), str(value)


def mandarin_slot(name: str, rng: random.Random, length: tuple[int, int]) -> tuple[str, str]:
    """Draw (spoken, written) for a Mandarin number slot, with spaces between words."""
    if name == "DIGITS":
        digits = [rng.randrange(10) for _ in range(rng.randint(*length))]
        return " ".join(ZH_DIGITS[d] for d in digits), "".join(map(str, digits))
    if name == "TIME":
        return _mandarin_time(rng)
    if name == "HOUR":
        hour = rng.randrange(1, 13)
        return f"{_mandarin_hour(hour)} 点", f"{hour} 点"
    if name == "DATE":
        month, day = rng.randrange(1, 13), rng.randrange(1, 32)
        return f"{mandarin_number(month)} 月 {mandarin_number(day)} 号", f"{month} 月 {day} 号"
    if name == "YEAR":
        year = _year(rng)
        return f"{' '.join(ZH_DIGITS[int(d)] for d in str(year))} 年", f"{year} 年"
    value = _draw_value(name, rng)
    return mandarin_number(value), str(value)
