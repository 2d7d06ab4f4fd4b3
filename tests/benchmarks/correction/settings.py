"""The settings of the synthetic benchmark: every kind and rate of noise, and what goes wrong in practice."""

from tests.benchmarks.correction.noisy_sets import Setting
from tests.benchmarks.correction.students import Student

STRONG, MIDDLING, BAD = 0.5, 1.2, 3.0
"""Blur: right on about 94 %, 84 % and 48 % of ten balanced classes."""

# One student of each kind for each noise, the stronger and the weaker ones mixed over the rates.
_GRID = {
    "symmetric": {
        0.05: Student("simulated", MIDDLING),
        0.10: Student("network", STRONG),
        0.20: Student("logistic", MIDDLING),
        0.40: Student("simulated", STRONG),
    },
    "class-dependent": {
        0.05: Student("forest", STRONG),
        0.10: Student("simulated", MIDDLING),
        0.20: Student("network", STRONG),
        0.40: Student("logistic", STRONG),
    },
    "human-like": {
        0.05: Student("logistic", STRONG),
        0.10: Student("simulated", STRONG),
        0.20: Student("forest", MIDDLING),
        0.40: Student("neighbours", STRONG),
    },
}
GRID = tuple(
    Setting(f"{noise} {rate:.0%}, {student.kind}", noise, rate, (student,))
    for noise, row in _GRID.items()
    for rate, student in row.items()
)

_NET = Student("network", 0.7)
_REPEAT = Student("simulated", 0.8, kin=0.7)
_OTHER = Student("simulated", 0.8)
_TEACHER = Student("zero-shot", 0.3, shared=0.1)

SHAPES = (
    Setting("over-confident", "human-like", 0.10, (Student("simulated", 0.7, temperature=0.35),)),
    Setting("under-confident", "human-like", 0.10, (Student("simulated", 0.7, temperature=3.0),)),
    Setting("over-confident weak", "class-dependent", 0.20, (Student("simulated", MIDDLING, temperature=0.3),)),
    Setting("under-confident, 40 %", "symmetric", 0.40, (Student("network", STRONG, temperature=2.5),)),
    Setting("naive Bayes", "symmetric", 0.20, (Student("bayes", MIDDLING),)),
    Setting("imbalanced 30:1", "human-like", 0.20, (Student("logistic", STRONG),), imbalance=30),
    Setting("imbalanced 10:1", "class-dependent", 0.20, (Student("network", STRONG),), imbalance=10),
    Setting("imbalanced 100:1", "symmetric", 0.10, (Student("simulated", STRONG),), items=5000, imbalance=100),
    Setting("8 % unusable", "symmetric", 0.10, (Student("simulated", STRONG),), unusable=0.08),
    Setting("5 % unusable", "human-like", 0.20, (Student("network", STRONG, temperature=2.0),), unusable=0.05),
    Setting("15 % unusable", "human-like", 0.05, (Student("forest", MIDDLING),), unusable=0.15),
    Setting("sees as people do", "human-like", 0.10, (Student("simulated", 1.0, shared=0.8),)),
    Setting("follows the noise", "class-dependent", 0.20, (Student("simulated", 0.7, pull=1.0),)),
    Setting("46 classes", "human-like", 0.10, (Student("logistic", 0.3),), items=2000, classes=46, imbalance=10),
    Setting("2 classes", "class-dependent", 0.20, (Student("logistic", STRONG),), items=2000, classes=2),
    Setting("5,000 items", "human-like", 0.05, (Student("simulated", STRONG),), items=5000),
)

SEVERAL = (
    Setting("two students", "human-like", 0.10, (Student("logistic", 0.7), _NET)),
    Setting("three repeats", "human-like", 0.20, (_OTHER, _REPEAT, _REPEAT)),
    Setting("a bad second student", "class-dependent", 0.10, (_OTHER, Student("simulated", BAD, temperature=0.4))),
    Setting("teacher", "human-like", 0.10, (_OTHER,), teacher=_TEACHER),
    Setting("teacher, like the student", "human-like", 0.20, (_OTHER,), teacher=Student("zero-shot", 0.4, kin=0.7)),
    Setting(
        "teacher, unusable items", "human-like", 0.10, (_NET,), unusable=0.05, teacher=Student("zero-shot", 0.3, 0.5)
    ),
    Setting("teacher worse than labels", "symmetric", 0.05, (_OTHER,), teacher=Student("zero-shot", 2.0)),
)

# A student, or a teacher, that is worse than the labels: nothing may get worse.
TRAPS = (
    Setting("bad student", "human-like", 0.05, (Student("network", BAD),)),
    Setting("bad, sure of itself", "symmetric", 0.05, (Student("simulated", BAD, temperature=0.2),)),
    Setting("blind student", "human-like", 0.10, (Student("simulated", 30.0, temperature=0.3),)),
    Setting("two classes mistaken", "human-like", 0.05, (Student("simulated", STRONG, mistakes=2),)),
    Setting("sees as people do, sure", "human-like", 0.20, (Student("simulated", 1.5, 0.9, temperature=0.3),)),
    Setting("clean labels", "symmetric", 0.0, (Student("simulated", 0.7),)),
    Setting("clean labels, bad student", "symmetric", 0.0, (Student("logistic", BAD),)),
    Setting(
        "mistaken teacher",
        "human-like",
        0.05,
        (Student("simulated", STRONG, mistakes=2),),
        teacher=Student("zero-shot", MIDDLING, mistakes=2),
    ),
    Setting("20 reviews", "human-like", 0.10, (Student("forest", MIDDLING),), reviews=20),
    Setting("20 reviews, over-confident", "human-like", 0.05, (Student("bayes", 1.5, temperature=0.4),), reviews=20),
    Setting("200 items", "human-like", 0.10, (Student("logistic", STRONG),), items=200, classes=5, reviews=30),
    Setting("200 items, 40 %", "symmetric", 0.40, (Student("simulated", MIDDLING),), items=200, reviews=30),
    Setting("200 items, bad", "human-like", 0.05, (Student("bayes", BAD),), items=200, classes=5, reviews=30),
    Setting("200 clean items", "symmetric", 0.0, (Student("simulated", MIDDLING),), items=200, classes=5, reviews=30),
)

SETTINGS = GRID + SHAPES + SEVERAL + TRAPS
QUICK = ("human-like 10%, simulated", "class-dependent 20%, network", "5 % unusable", "teacher", "bad, sure of itself")
"""Names of the settings for a quick look."""
