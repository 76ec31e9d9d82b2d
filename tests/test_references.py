"""Every section, equation and table that a docstring names exists in its paper."""

import re
from pathlib import Path

import pytest
from paths import ROOT

SECTIONS = {
    "CFN-SR": "1 2 2.1 2.2 2.3 2.4 3 3.1 3.2 3.3 3.4 3.5 4",
    "MEA": "I II II-A II-B II-C III III-A III-B III-C III-D III-E III-E.1 III-E.2 "
    "III-E.3 III-F III-G IV IV-A IV-B V V-A V-B V-C V-D VI",
    "MCL-MCF": "1 2 2.1 2.2 3 3.1 3.2 3.3 3.3.1 3.3.2 3.3.3 3.4 3.5 4 5 5.1 5.2 5.3 "
    "5.4 5.5 5.6 5.7 6 6.1 6.2 6.3 6.4 6.5 6.6 7",
    "Hetero-Fusion-Net": "1 2 2.1 2.2 2.3 2.4 3 3.1 3.2 3.3 3.4 4 4.1 4.2 5 5.1 5.2 "
    "5.3 6 6.1 6.2 6.3 6.4 6.5 6.6 7",
    "OF-CMAER-CAT": "1 2 3 4 4.1 5",
}
EQUATIONS = dict(zip(SECTIONS, (10, 20, 23, 23, 22), strict=True))
TABLES = dict(zip(SECTIONS, ("2", "V", "9", "3", "4"), strict=True))
ROMAN = {"I": 1, "II": 2, "III": 3, "IV": 4, "V": 5, "VI": 6}
NUMBER = {
    "Sec.": r"(?:[IVX]+(?:-[A-G](?:\.\d)?)?|\d(?:\.\d)*)",
    "Eq.": r"\d+",
    "Table": r"(?:[IVX]+|\d+)",
}
"""Keyword -> pattern of a number after it."""


def text_of_references(path: Path) -> list[str]:
    """The `Reference:` sections of a file, one line each."""
    found = re.findall(r"^ *Reference:\n((?: {4,}\S.*\n)+)", path.read_text(), re.M)
    sections = [re.split(r"\n *\w+:\n", part)[0] for part in found]
    return [" ".join(part.split()) for part in sections]


def by_paper(text: str) -> list[tuple[str, str]]:
    """Paper and what a reference says about it, for each paper that it names."""
    parts = re.split(rf"\b({'|'.join(SECTIONS)})(?=,|:|;|\.|$)", text)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def named(keyword: str, text: str) -> list[str]:
    """The numbers after a keyword, such as 3, 5 and 6 of "Eq. 3, 5-6"."""
    number = NUMBER[keyword]
    lists = (
        rf"\b{re.escape(keyword)}s? ({number}(?:(?:-|, (?:and )?| and | to ){number})*)"
    )
    return [n for part in re.findall(lists, text) for n in re.findall(number, part)]


def missing(paper: str, text: str) -> list[str]:
    """What a reference names and a paper does not have."""
    arabic = lambda n: ROMAN[n] if n in ROMAN else int(n)
    found = [
        f"Sec. {n}" for n in named("Sec.", text) if n not in SECTIONS[paper].split()
    ]
    found += [f"Eq. {n}" for n in named("Eq.", text) if int(n) > EQUATIONS[paper]]
    return found + [
        f"Table {n}"
        for n in named("Table", text)
        if (n in ROMAN) != (paper == "MEA") or arabic(n) > arabic(TABLES[paper])
    ]


def test_what_a_reference_names_exists():
    wrong, count = [], 0
    for path in sorted((ROOT / "mmfusion_jax").rglob("*.py")):
        for reference in text_of_references(path):
            for paper, text in by_paper(reference):
                # What follows the next work with a year is about that work.
                own = re.split(r"[A-Z][\w-]+(?: et al\.| and \w+)? \d{4}", text)[0]
                count += len(named("Sec.", own) + named("Eq.", own))
                wrong += [f"{path}: {paper}, {n}" for n in missing(paper, own)]
    assert not wrong, "\n".join(wrong)
    assert count > 60


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ("MCL-MCF, Sec. 4.5 and Table 9.", ["Sec. 4.5"]),
        ("MCL-MCF, Sec. 6.6, Eq. 19-24.", ["Eq. 24"]),
        ("MEA, Sec. III-E.4, Table 5.", ["Sec. III-E.4", "Table 5"]),
        ("MEA, Sec. III-E.3, Tables II to V.", []),
        ("He et al. 2016, Table 7; CFN-SR, Table 3, Eq. 10.", ["Table 3"]),
        ("OF-CMAER-CAT, Sec. 3, Eq. 8-10, and Eq. 23.", ["Eq. 23"]),
    ],
)
def test_what_does_not_exist_is_found(reference, found):
    assert [n for p, text in by_paper(reference) for n in missing(p, text)] == found
