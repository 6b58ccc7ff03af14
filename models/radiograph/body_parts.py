"""Whether the words of a header speak of a chest or of another part of the body: one table of words, many languages.

Body Part Examined (0018,0015) is a Code String with defined terms (PS3.16 annex L) that few devices keep to: ``TORAX``,
``CHEST PA``, ``THORAX AP`` and ``PORT_CHEST`` all mean a chest, and a description speaks the language of the hospital.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from models.radiograph.words import one_of, plain_words

# English, German, French, Spanish, Italian, Portuguese, Dutch, Nordic languages, Polish, Czech, Croatian, Hungarian,
# Finnish, Turkish, Russian, Greek, Chinese, Japanese, Korean, Arabic.
_CHEST = one_of(
    "CHEST CHESTS CXR THORAX* THORAC* THORAK* TORAX TORACE TORAC* TORAKS* BRUSTKORB BRUSTRAUM HEMITHORAX LUNG "
    "LUNGS LUNGE LUNGEN LUNGENAUFNAHME LUNGOR LUNGA LONGEN POUMON POUMONS PULMON* PULMAO PULMOES POLMONE POLMONI "
    "POLMONARE KLATK*+PIERSIOW* PLUC PLUCA HRUDNIK* PLICE MELLKAS* TUDO KEUHKO* RINTAKEHA AKCIGER GOGUS ГРУДН* "
    "ГРУДЬ ЛЕГКИХ ЛЕГКИЕ ОГК ΘΩΡΑΚ* صدر الصدر 胸部 胸片 胸腔 흉부"
)
_OTHER = one_of(
    "SKULL HEAD FACIAL FACE+BONES NOSE NASAL SINUS* MANDIBLE NECK SPINE CSPINE LSPINE TSPINE SACRUM COCCYX "
    "ABDOMEN ABDOMINAL ABDO ABD ABDOM* KUB PELVIS PELVIC HIP HIPS FEMUR THIGH KNEE KNEES PATELLA TIBIA FIBULA LEG "
    "LEGS ANKLE ANKLES FOOT FEET CALCANEUS TOE TOES CLAVICLE CLAVICLES SCAPULA SHOULDER SHOULDERS HUMERUS ELBOW "
    "ELBOWS FOREARM WRIST WRISTS HAND HANDS FINGER FINGERS THUMB EXTREMIT* BREAST TEETH DENTAL MAXILLA VERTEBRA* "
    "CHESTABDOMEN CHESTABDPELVIS ABDOMENPELVIS SCHADEL* SCHAEDEL* KOPF WIRBELSAULE WIRBELSAEULE HWS BWS LWS "
    "BECKEN* HUFTE HUFT* HUEFT* OBERSCHENKEL UNTERSCHENKEL KNIE KNIEGELENK SPRUNGGELENK FUSS FUSS* VORFUSS ZEHE* "
    "SCHULTER* OBERARM UNTERARM ELLENBOGEN* HANDGELENK SCHLUSSELBEIN CRANE RACHIS GENOU* HANCHE* BASSIN CHEVILLE "
    "PIED PIEDS EPAULE* COUDE POIGNET DOIGT* CLAVICULE CRANEO COLUMNA RODILLA* CADERA* TOBILLO* HOMBRO* CODO* "
    "MUNECA* MANO MANOS DEDO* CLAVICULA* PELVIANO CRANIO COLONNA RACHIDE GINOCCHI* BACINO CAVIGLIA PIEDE PIEDI "
    "SPALLA GOMITO POLSO MANI ADDOME COLUNA JOELHO* QUADRIL TORNOZELO OMBRO* COTOVELO PUNHO MAO MAOS BACIA "
    "SCHEDEL WERVELKOLOM HEUP* BEKKEN ENKEL VOET VOETEN SCHOUDER* ELLEBOOG BUIK CZASZKA KREGOSLUP* KOLANO KOLANA "
    "BIODRO BIODRA MIEDNICA STOPA STOPY NADGARSTEK BRZUCH* ПОЗВОН* КОЛЕН* ТАЗОБЕДР* СТОПА КИСТЬ ПЛЕЧ* ЧЕРЕП* "
    "腰椎 胸椎 颈椎 膝 骨盆 腹部"
)
_REMEMBERED = 128  # texts: one department writes the same few, an unfriendly peer up to 64 KB each
# Here the chest is only an adjective: what is meant is a spine.
_THORACIC_SPINE = one_of(
    "THORAC*+SPINE THORAC*+VERTEBRA* T+SPINE D+SPINE DORSAL+SPINE THORAK*+WIRBELSA* COLUMNA+TORAC* COLUMNA+DORSAL "
    "COLUNA+TORAC* COLUNA+DORSAL COLONNA+TORAC* COLONNA+DORSALE RACHIS+THORAC* RACHIS+DORSAL THORAC*+INLET "
    "THORAC*+OUTLET"
)


@dataclass(frozen=True, slots=True)
class BodyPart:
    """What a text speaks of: a chest, another part (``other``: its own word, in lower case), both, or neither."""

    chest: bool
    other: str


@lru_cache(_REMEMBERED)
def body_part_in(text: str) -> BodyPart:
    """What part of the body ``text`` speaks of."""
    words = plain_words(text)
    spine = _THORACIC_SPINE.search(words)
    if spine is not None:
        return BodyPart(chest=False, other=spine.group().lower())
    other = _OTHER.search(words)
    return BodyPart(chest=_CHEST.search(words) is not None, other=other.group().lower() if other is not None else "")


def speaks_of_chest(text: str, values: Iterable[str], patterns: Iterable[str]) -> bool | None:
    """Whether ``text`` speaks of a chest, and of nothing else; None where it names both or none.

    ``values`` (the whole text; an underscore is a blank) and ``patterns`` (regular expressions, in any case) are a
    site's own words for a chest.
    """
    whole = text.upper().replace("_", " ").strip()
    if whole and whole in {value.upper().replace("_", " ") for value in values}:
        return True
    part = body_part_in(text)
    named = part.chest or (not part.other and any(re.search(pattern, text, re.IGNORECASE) for pattern in patterns))
    return None if named == bool(part.other) else named
