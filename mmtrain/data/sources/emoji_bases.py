"""Groups of emoji that show the same thing: `base_of` removes tone, gender, hair and facing, to keep them in one split.

One idea has up to a hundred drawings in Unicode (a kiss: 104). A split by emoji would put a firefighter into training
and the same firefighter with another skin tone into the test. Parts of a Unicode sequence are removed by rules. If one
idea has several code points, or two drawings are equal, a table has them. It is a table, not a comparison of drawings
at run time, so the split is the same for every size, language and machine. The tests compare the table with all names
and drawings of the installed packages.
"""

import hashlib
from collections.abc import Mapping

SPLITS = ("train", "val", "test")
# Chosen only by counting: the six bases of 78 to 162 drawings (people, couples, kisses ...) are in training, because
# one of them would be 40% of a validation split; and rows as well as bases are close to the fractions in every group.
SALT = "openmoji-182:"
JOINER = "-200D-"
# Variants of a drawing inside a member of a sequence: the emoji presentation and the five skin tones.
TONES = frozenset({"FE0F", "1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"})
HAIR = frozenset({"1F9B0", "1F9B1", "1F9B2", "1F9B3"})
# Members of a sequence that only vary the others: female, male, hair, facing right. Alone, each is an emoji.
SIGNS = frozenset({"2640", "2642", "27A1"}) | HAIR
PERSON, CHILD, FAMILY = "1F9D1", "1F9D2", "1F46A"
NEUTRAL = {"1F468": PERSON, "1F469": PERSON, "1F466": CHILD, "1F467": CHILD}

# Codes after the rules above; the first one names the group.
_ONE_THING = (
    # Two people, as one code point and as a sequence in which each has a tone.
    "1F491 1F9D1-200D-2764-200D-1F9D1",  # couple with heart
    "1F48F 1F9D1-200D-2764-200D-1F48B-200D-1F9D1",  # kiss
    "1F46B 1F46C 1F46D 1F9D1-200D-1F91D-200D-1F9D1",  # holding hands
    "1F46F 1F9D1-200D-1F430-200D-1F9D1",  # people with bunny ears
    "1F93C 1F9D1-200D-1FAEF-200D-1F9D1",  # people wrestling
    "1F91D 1FAF1-200D-1FAF2",  # handshake
    # Genders with their own code points.
    "1F385 1F936 1F9D1-200D-1F384",  # Santa, Mrs. and Mx Claus
    "1F478 1F934 1FAC5",  # princess, prince, person with crown
    "1F483 1F57A",  # dancing
    "1F474 1F475 1F9D3",  # old
    "1F930 1FAC3 1FAC4",  # pregnant
    "1F931 1F9D1-200D-1F37C",  # breast-feeding, feeding baby
    "1F6B9 1F6BA 1F6BB",  # men's and women's room, restroom
    "2640 2642 26A7",  # female, male, transgender sign
    # Hair again: blond and bearded people have code points. People who frown or pout only have another mouth.
    "1F9D1 1F471 1F9D4 1F64D 1F64E",
    # A hand or tool that faces the other way, in six skin tones. (In arrows and clocks the direction is the idea.)
    "1F448 1F449",  # backhand index pointing left, right
    "1F91B 1F91C",  # left-facing, right-facing fist
    "1FAF1 1FAF2",  # rightwards, leftwards hand
    "1FAF7 1FAF8",  # leftwards, rightwards pushing hand
    "1F50D 1F50E",  # magnifying glass tilted left, right
    # Drawings that differ in a few pixels: at 24 x 24, the root mean square difference is about 0.02 or less.
    "1F1E6-1F1FA 1F1ED-1F1F2",  # Australia, Heard & McDonald Islands
    "1F1E7-1F1FB 1F1F3-1F1F4 1F1F8-1F1EF",  # Bouvet Island, Norway, Svalbard & Jan Mayen
    "1F1E8-1F1F5 1F1EB-1F1F7 1F1F2-1F1EB",  # Clipperton Island, France, St. Martin
    "1F1EA-1F1E6 1F1EA-1F1F8",  # Ceuta & Melilla, Spain
    "1F1EE-1F1E9 1F1F2-1F1E8",  # Indonesia, Monaco
    "1F1F7-1F1F4 1F1F9-1F1E9",  # Romania, Chad
    "1F1FA-1F1F2 1F1FA-1F1F8",  # U.S. Outlying Islands, United States
    "1F311 26AB",  # new moon, black circle
    "1F315 1F7E1",  # full moon, yellow circle
    "1F47F 1F608",  # angry and smiling face with horns
    "1F641 2639",  # slightly frowning, frowning face
)
ALIASES = {code: group.split()[0] for group in _ONE_THING for code in group.split()[1:]}


def bare(code: str) -> str:
    """The code without FE0F, whose positions differ between packages."""
    return "-".join(point for point in code.upper().split("-") if point != "FE0F")


def code_of(char: str) -> str:
    """The code of an emoji's characters, without FE0F.

    >>> code_of("\N{HEAVY BLACK HEART}")
    '2764'
    """
    return bare("-".join(f"{ord(point):04X}" for point in char))


def points(code: str) -> list[int]:
    """The code points as numbers, for sorting."""
    return [int(point, 16) for point in code.split("-")]


def without_tone(member: str) -> str:
    """A member of a sequence without skin tone and presentation.

    >>> without_tone("1F44D-1F3FB")
    '1F44D'
    """
    return "-".join(point for point in member.split("-") if point not in TONES)


def base_of(code: str) -> str:
    """The base of an emoji: the same for every tone, gender, hair and facing.

    >>> base_of("1F469-1F3FD-200D-1F692"), base_of("1F468-200D-1F9B0"), base_of("1F44D")
    ('1F9D1-200D-1F692', '1F9D1', '1F44D')

    Args:
        code: code points in hexadecimal, joined by "-", with or without FE0F.

    Returns:
        A code that names the group. It may not be a fully qualified emoji.
    """
    members = [without_tone(member) for member in code.split(JOINER)]
    kept = [NEUTRAL.get(member, member) for member in members if member not in SIGNS] or members
    if len(kept) > 1 and set(kept) <= {PERSON, CHILD}:
        return FAMILY
    base = JOINER.join(kept)
    return ALIASES.get(base, base)


def is_plain(code: str) -> bool:
    """Whether an emoji has no skin tone and no hair style.

    >>> is_plain("1F468-200D-2708"), is_plain("1F468-200D-1F9B0")
    (True, False)
    """
    return not (TONES | HAIR).intersection(code.split("-"))


def split_of(base: str, *, fractions: Mapping[str, float]) -> str:
    """The split of a base: its SHA-256 as a number in 0..1, compared with the fractions in the order of `SPLITS`.

    >>> split_of("1F44D", fractions={"train": 0.7, "val": 0.1, "test": 0.2})
    'train'
    """
    place = int.from_bytes(hashlib.sha256(f"{SALT}{base}".encode()).digest()[:8], "big") / 2**64
    names = [name for name in SPLITS if name in fractions]
    upto = 0.0
    for name in names[:-1]:
        upto += fractions[name]
        if place < upto:
            return name
    return names[-1]
