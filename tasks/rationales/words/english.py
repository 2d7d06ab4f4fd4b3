"""English: how reasons give their label away, and what says nothing."""

import re

from tasks.rationales.words.words import RIGHT, BadReason, ReasonWords, alternation

_LEAKS = (
    r"\b(?:given|provided|known|correct|right|true|gold|target|assigned|specified|reference|annotated|supplied|expected)\s+"
    r"(?:class\s+|category\s+)?(?:labels?|answer|annotation|class|category)\b",
    r"\b(?:label|answer|annotation|category)s?\s+(?:is|was|are|says?|states?|tells?|given|provided|indicates?|"
    r"already|must|shows?)\b",
    r"\b(?:according to|based on|by|per|from|since|because|as|matche?s|fits?|supports?|justifie?s)\s+"
    r"(?:the|this|its|that|your)\s+(?:\w+\s+)?(?:label|annotation|answer)\b",
    r"\b(?:this|that|such a|its|the)\s+(?:label|annotation|answer)\b",
    rf"\b(?:labell?ed|annotated|tagged|marked)\s+(?:as|with|to be)\b.{{0,12}}{RIGHT}",
    r"\bground.?truth\b|\bas (?:stated|given|told|specified|instructed)\b",
    r"\byou (?:said|told|gave|specified|provided)\b",
    r"\bi (?:was|am) (?:told|given)\b|\b(?:question|prompt|task|instruction)s? (?:says?|states?|tells?|gives?)\b",
    rf"\b(?:known|given|told) (?:to be|as|that)\b.{{0,20}}{RIGHT}",
)
_PHYSICAL = (
    r"\b(?:price|care|size|shipping|washing|product|address|white|red|blue|green|yellow|black|paper|printed|bottle|brand)\s+labels?\b"
    r"|\blabels? (?:on|of) (?:the|a|its) (?!image|picture|screenshot)\w+"
)
_BEFORE_A_LABEL = r"\s+(?:(?:a|an|the|just|merely|about|really|of|class|category)\s+)*[“\"'‘]?$"

_IDLE = """
    a an the this that these those it its is are was were be been being and or of in on at to for with by from as so
    because since therefore thus hence which who what there here image picture screenshot screen page photo text
    content contents information dialogue conversation user customer buyer agent shows show showing shown displays
    display contains contain has have having includes include indicates indicate suggests suggest represents represent
    reflects reflect matches match fits fit belongs belong meets meet supports support label category class
    classification type kind answer choice decision judgement judgment conclusion reason reasoning explanation
    evidence feature features characteristic characteristics element elements aspect aspects all every any each
    everything not can could may might should would must will we i you one seen see sees look looks like tell know
    easily just only also too more most much many some such same related relevant corresponding consistent meaning
    definition makes make
"""
_PRAISE = """
    very really quite extremely absolutely completely totally fully clearly obviously evidently definitely certainly
    surely undoubtedly indeed perfectly exactly precisely accurately well good great excellent perfect ideal typical
    classic clear obvious evident accurate correct right appropriate suitable fitting convincing reasonable logical
    sound strong solid complete comprehensive detailed rich nice beautiful without doubt question no sense glance
    textbook example best superb overall whole entire strongly highly
"""

ENGLISH = ReasonWords(
    scripts=frozenset({"LATIN"}),
    physical=re.compile(_PHYSICAL),
    leaks=re.compile("|".join(_LEAKS)),
    denies=re.compile(r"\b(?:not|never|isn['’]?t|cannot be|excludes?)" + _BEFORE_A_LABEL),
    compares=re.compile(r"\b(?:no|unlike|than|rather than|instead of|from|without)" + _BEFORE_A_LABEL),
    denied=re.compile(r"^[”\"'’]?\s+(?:is|are|would be|can be)\s+(?:not|excluded|ruled out|wrong)\b"),
    asserts=re.compile(
        r"\b(?:is|as|be|into|to|was|means|suggests|indicates|matches|fits|choose|chose|called|likely|clearly)"
        + _BEFORE_A_LABEL
    ),
    turns=re.compile(r"\b(?:first|although|though|while|despite|initially|earlier|before)\b[^,.;]{0,30}$"),
    idle=re.compile(rf"\b(?:{alternation(_IDLE + _PRAISE)})\b"),
    praise=re.compile(rf"\b(?:{alternation(_PRAISE)})\b"),
    faults=(
        (BadReason.TOO_SHORT, "too short; name what is seen"),
        (BadReason.TOO_LONG, "too long; be briefer"),
        (BadReason.GARBLED, "not one plain sentence; no JSON, no repetition"),
        (BadReason.OTHER_LANGUAGE, "write in English"),
        (BadReason.LEAKS_LABEL, "don't say that a label or an answer was given; write as if you saw it yourself"),
        (BadReason.NAMES_OTHER_LABEL, "it argues for another label"),
        (BadReason.DENIES_LABEL, "it denies this label"),
        (BadReason.SAYS_NOTHING, "it would fit anything; name the very words, things or colours of this one"),
        (BadReason.BEGINS_ALIKE, "many reasons begin like this; begin with what is seen in this one"),
        (BadReason.ALIKE, "it is like other reasons; name what only this one has"),
        (BadReason.UNSUPPORTED, "it does not lead to the label; name what speaks for it"),
    ),
    complaint="Your last answer “{reason}” won't do: {fault}. Write another.",
)
