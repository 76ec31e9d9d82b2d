"""Package, docs and README use plain words: patterns that they must not have."""

import re

import pytest
from paths import ROOT, docs_files

PATTERNS = {
    "is no": r"\b(is|are)\s+no\b",
    "so many": r"\bso many\b",
    "backward pass": r"\bway back\b",
    "personification": r"\b(said|says|told|tells|hears|whom)\b",
    "unchanged": r"\bleft alone\b",
    "continues": r"\bgoes on\b",
    "fix": r"\bmend(s|ed)?\b",
    "is in": r"\b(stands? in|lies in)\b",
    "padded": r"\bfilled up\b",
    "American spelling": (
        r"\b\w*(optimis(?!t)|normalis|standardis|initialis|analys(e|ed|ing)\b|colour|"
        r"\bgrey|behaviour|centre|\blicence)\w*"
    ),
}
"""What to write instead, or why -> a pattern."""

ALLOWED = ("people exposed must be told",)
"""Parts of sentences that are as they should be."""

PAGES = [
    *sorted(ROOT.glob("mmfusion_jax/**/*.py")),
    *sorted(ROOT.glob("configs/*.py")),
    *sorted(ROOT.glob("experiments/**/*.py")),
    *sorted(ROOT.glob("experiments/**/*.md")),
    *sorted(ROOT.glob("notebooks/*.py")),
    *docs_files(".md", ".py"),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
]


@pytest.mark.parametrize("name", PATTERNS)
def test_words(name):
    pattern = re.compile(PATTERNS[name], re.IGNORECASE)
    found = []
    for page in PAGES:
        text = page.read_text("utf-8")
        for part in ALLOWED:
            text = text.replace(part, "")
        if page.name == "CHANGELOG.md":  # its tables have the old names
            text = re.sub(r"^\|.*$", "", text, flags=re.MULTILINE)
        for match in pattern.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(f"{page.relative_to(ROOT)}:{line}: {match[0]}")
    assert not found


def test_the_patterns_find_what_they_are_for():
    bad = "there is no flag; 3 so many; its way back; it says; left alone; it goes on; "
    bad += "to mend; stands in line; filled up; normalise the colour"
    assert all(re.search(pattern, bad) for pattern in PATTERNS.values())
    good = "the file does not exist; optimistic; analysis; the center; it continues"
    assert not any(re.search(pattern, good) for pattern in PATTERNS.values())
