"""How a radiograph was taken, from the words of a header: one table of words, and which of them wins.

View Position (0018,5101) is a Code String of defined terms (PS3.3 C.8.11.5), but devices write whatever they are
set up to: ``PA LLD``, ``AP AXIAL``, ``FRONTAL``, ``CHEST PA``, ``THORAX SEITLICH``. A decubitus or a lordotic view *is*
an AP or PA projection, so these words say nothing against it: what is no upright or supine frontal view wins.
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache

from models.radiograph.words import one_of, plain_words


class View(StrEnum):
    """How a radiograph was taken; ``FRONTAL`` where PA or AP is not told."""

    PA = "PA"
    AP = "AP"
    FRONTAL = "FRONTAL"
    LATERAL = "lateral"
    OBLIQUE = "oblique"
    DECUBITUS = "lateral decubitus"
    LORDOTIC = "lordotic"
    OTHER = "special"


FRONTAL_VIEWS = frozenset({View.PA, View.AP, View.FRONTAL})
SPECIAL_VIEWS = frozenset({View.DECUBITUS, View.LORDOTIC, View.OTHER})
"""Views that are PA or AP projections as well, so that these words say nothing against them."""

# English, German, French, Spanish, Italian, Portuguese, Dutch, the Nordic languages, Polish, Czech, Turkish, Russian,
# Chinese and Japanese. LL, RL, LLD, RLD, LLO, RLO are defined terms of View Position.
_WORDS = (
    (
        View.PA,
        "PA POSTEROANTERIOR* POSTERO+ANTERIOR* POSTERIOR+ANTERIOR DORSOVENTRAL DORSO+VENTRAL ACHTERVOORWAARTS ЗП",
    ),
    (
        View.AP,
        "AP ANTEROPOSTERIOR* ANTERO+POSTERIOR* ANTERIOR+POSTERIOR VENTRODORSAL VENTRO+DORSAL VOORACHTERWAARTS ПЗ",
    ),
    (
        View.FRONTAL,
        "FRONTAL* FRONT FRENTE FACE ПРЯМАЯ 正位 正面",
    ),
    (
        View.LATERAL,
        "LAT LATERAL* LATS LL RL LLAT RLAT LATERO+LATERAL* SEITLICH* SEITENAUFNAHME SEITE PROFIL PROFILE "
        "PROFILO PERFIL ZIJDELINGS DWARS BOCZN* BOCNI BOCNY SIVU YAN БОКОВАЯ XTABLE X+TABLE CROSSTABLE "
        "CROSS+TABLE SHOOT+THROUGH 侧位 側位 側面",
    ),
    (
        View.OBLIQUE,
        "OBL OBLS OBLIQUE* OBLICU* OBLIQU* SCHRAG* SCHRAEG* SKOSN* RAO LAO RPO LPO RLO LLO LAXO 斜位",
    ),
    (
        View.DECUBITUS,
        "LLD RLD DECUB* LDECUB* RDECUB* SEITENLAGE* LINKSSEITENLAGE RECHTSSEITENLAGE ZIJLIGGING 侧卧位 側臥位",
    ),
    (
        View.LORDOTIC,
        "LORD LORDOT* LORDOS* APLORDOT* AXIAL* APICAL* APICES LINDBLOM 前凸位",
    ),
    (
        View.OTHER,
        "SWIMMER SWIMMERS TANGENTIAL* TRANSTHORACIC TRANSLATERAL",
    ),
)
_REMEMBERED = 128  # texts: one department writes the same few, an unfriendly peer up to 64 KB each
_PATTERNS = tuple((view, one_of(words)) for view, words in _WORDS)
# In Romance languages a patient who lies on the back is "en decubito supino": that is no lateral decubitus.
_SUPINE = one_of("DECUBITO+SUPIN* SUPINE+DECUBITUS")


@lru_cache(_REMEMBERED)
def views_in(text: str) -> frozenset[View]:
    """Every view that ``text`` names; a description may name several, and many texts name none."""
    words = _SUPINE.sub("SUPINE", plain_words(text))
    return frozenset(view for view, pattern in _PATTERNS if pattern.search(words))


def not_frontal(views: frozenset[View]) -> View | None:
    """The view in ``views`` that makes an image something else than a plain frontal one, the most telling first."""
    for view in (View.DECUBITUS, View.LORDOTIC, View.OTHER, View.OBLIQUE, View.LATERAL):
        if view in views:
            return view
    return None


def frontal_view(text: str) -> View | None:
    """PA, AP or FRONTAL where ``text`` plainly names one frontal view and nothing else; None otherwise."""
    views = views_in(text)
    if not_frontal(views) is not None or {View.PA, View.AP} <= views:
        return None
    return next((view for view in (View.PA, View.AP, View.FRONTAL) if view in views), None)
