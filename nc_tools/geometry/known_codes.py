"""Table of the minimal angles of the best known spherical codes, for K > 2 D."""

import math


def _degrees(cosine: float) -> float:
    return math.degrees(math.acos(cosine))


# (K, degrees) on the sphere in three dimensions: Hardin, Sloane & Smith, "Tables of spherical codes". K = 7 to 14 and
# 24 are proved optimal.
_SPHERE = [
    (7, 77.8695421), (8, 74.8584922), (9, 70.5287794), (10, 66.1468220), (11, 63.4349488), (12, 63.4349488),
    (13, 57.1367031), (14, 55.6705700), (15, 53.6578501), (16, 52.2443957), (17, 51.0903285), (18, 49.5566548),
    (19, 47.6919141), (20, 47.4310362), (21, 45.6132231), (22, 44.7401612), (23, 43.7099642), (24, 43.6907671),
    (25, 41.6344612), (26, 41.0376616), (27, 40.6776007), (28, 39.3551436), (29, 38.7136512), (30, 38.5971159),
    (31, 37.7098291), (32, 37.4752140), (33, 36.2545530), (34, 35.8077844), (35, 35.3198076), (36, 35.1897322),
    (37, 34.4224080), (38, 34.2506607), (39, 33.4890466), (40, 33.1583563),
]  # fmt: skip

# Largest cosine of highly symmetric codes (K, D). All are proved optimal, except those marked "best known". Where no
# source is named, they are the sharp codes of Levenshtein (1992) as listed by Cohn & Kumar (2007, table 1), or the
# 600-cell.
_SYMMETRIC = {
    (10, 4): 1 / 6,  # Bachoc & Vallentin (2009)
    (24, 4): 1 / 2,  # 24-cell: best known, not proved
    (120, 4): math.cos(math.pi / 5),  # 600-cell
    (16, 5): 1 / 5,  # Clebsch
    (40, 5): 1 / 2,  # roots of D5: best known
    (27, 6): 1 / 4,  # Schlaefli
    (72, 6): 1 / 2,  # roots of E6: best known
    (56, 7): 1 / 3,
    (126, 7): 1 / 2,  # roots of E7: best known
    (240, 8): 1 / 2,  # roots of E8
    (112, 21): 1 / 9,
    (162, 21): 1 / 7,
    (100, 22): 1 / 11,  # Higman-Sims
    (275, 22): 1 / 6,  # McLaughlin
    (552, 23): 1 / 5,
    # Kerdock codes, K = D (D + 2): Cohn, de Laat & Leijenhorst (2024).
    (288, 16): 1 / 4,
    (4224, 64): 1 / 8,
    (66048, 256): 1 / 16,
    (1050624, 1024): 1 / 32,
}

BEST_KNOWN: dict[tuple[int, int], float] = {
    **{(number, 3): angle for number, angle in _SPHERE},
    **{key: _degrees(cosine) for key, cosine in _SYMMETRIC.items()},
}
